"""The element-wise sum of two maps, as of residual networks (He et al., 2016)."""

from eigen_jax.layer_kinds.kind import LayerKind, Look, register


def _look(values, width):
    return Look(text="addition", label=f"add\n{width:,}", legend="addition", face="#F3DCE9", edge="#CC79A7")


def _layer(inputs, values, *, norm, name):
    return inputs[0] + inputs[1]


ADD = register(
    LayerKind(
        name="add",
        inputs=2,
        agree="shape",
        layer=_layer,
        look=_look,
        code=lambda inputs, values, width, name: " + ".join(inputs),
        onnx=lambda graph, inputs, values, name: graph.add("Add", *inputs),
    )
)
