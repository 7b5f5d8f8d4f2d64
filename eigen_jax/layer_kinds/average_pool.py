"""2 x 2 average pooling with stride 2; at the edge of an odd side, of the pixels that there are."""

import jax.numpy as jnp

from eigen_jax.layer_kinds.kind import LayerKind, Look, register


def _layer(inputs, values, *, norm, name):
    from flax import linen as nn

    x = inputs[0].astype(jnp.float32)
    return nn.avg_pool(x, (2, 2), strides=(2, 2), padding="SAME", count_include_pad=False).astype(inputs[0].dtype)


def _look(values, width):
    label = "avg pool\n2\N{MULTIPLICATION SIGN}2"
    return Look(text="average pooling 2 x 2", label=label, legend="average pooling", face="#F9E9C4", edge="#D55E00")


AVERAGE_POOL = register(
    LayerKind(
        name="average_pool",
        halves=True,
        layer=_layer,
        look=_look,
        code=lambda inputs, values, width, name: f"average_pool({inputs[0]})",
        onnx=lambda graph, inputs, values, name: graph.pool("AveragePool", inputs[0], count_include_pad=0),
    )
)
