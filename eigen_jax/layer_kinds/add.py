"""The element-wise sum of two maps, as of residual networks (He et al., 2016)."""

from eigen_jax.layer_kinds.kind import LayerKind, Look, register


def _layer(inputs, values, *, norm, name):
    del values, norm, name
    first, second = inputs
    return first + second


def _look(values, width):
    del values
    return Look(text="addition", label=f"add\n{width:,}", legend="addition", face="#F3DCE9", edge="#CC79A7")


ADD = register(LayerKind(name="add", inputs=2, agree="shape", layer=_layer, look=_look))
