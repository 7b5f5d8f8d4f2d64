"""Layers without batch normalisation: dense layers, dropout, convolutions with biases, and more kinds of max pooling.

They are of EDEN (Dufourq & Bassett, 2017), which evolves chains of them, of Genetic CNN (Xie & Yuille, 2017), which
pools 3 x 3, and of AG-Evolution (Li et al., 2018). Decided here, since no source for it was found: which activations
there are; that kernels start as by He et al. (2015) before a ReLU, else with the variance 1 / fan-in, and biases at 0;
that dropout is of single values, also of maps.
"""

import jax
import jax.numpy as jnp
import numpy as np

from eigen_jax.layer_kinds.kind import CHANNELS, Choice, LayerKind, Look, register, valid_taps

_ACTIVATION = Choice("activation", ("relu", "tanh", "sigmoid", "linear"))
_TIMES = "\N{MULTIPLICATION SIGN}"


def _activated(x, activation):
    if activation == "relu":
        # A selection, not a maximum, as in `eigen_jax.layers.normalization.normalized_relu`.
        return jnp.where(x <= 0, 0, x)
    return x if activation == "linear" else {"tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid}[activation](x)


def _kernel_init(activation):
    from flax import linen as nn

    return nn.initializers.he_normal() if activation == "relu" else nn.initializers.lecun_normal()


def _dense_layer(inputs, values, *, norm, name):
    from flax import linen as nn

    (x,) = inputs
    dense = nn.Dense(values.units, dtype=x.dtype, kernel_init=_kernel_init(values.activation), name=name)
    return _activated(dense(x.reshape(x.shape[0], -1)), values.activation)[:, None, None]


def _dense_code(inputs, values, width, name):
    (x,) = inputs
    dense = f'nn.Dense({values.units}, dtype={x}.dtype, name="{name}")({x}.reshape({x}.shape[0], -1))'
    return f"{dense if values.activation == 'linear' else f'nn.{values.activation}({dense})'}[:, None, None]"


def _dense_onnx(graph, inputs, values, name):
    kernel, bias = (graph.constant(graph.weights[f"params/{name}/{part}"]) for part in ("kernel", "bias"))
    flat = graph.add("Flatten", graph.add("Transpose", inputs[0], perm=[0, 2, 3, 1]))
    y = graph.add("Gemm", flat, kernel, bias)
    if values.activation != "linear":
        y = graph.add(values.activation.capitalize(), y)
    return graph.add("Unsqueeze", y, graph.constant(np.array([2, 3])))


DENSE = register(
    LayerKind(
        name="dense",
        choices=(
            Choice(
                "units", (16, 32, 64, 128, 256), default=128, accepted=range(1, 4097), rule="an integer from 1 to 4096"
            ),
            _ACTIVATION,
        ),
        flattens=True,
        width=lambda widths, values: values.units,
        parameters=lambda widths, values: (widths[0] + 1) * values.units,
        flops=lambda taps, widths, values: 2 * (widths[0] * values.units) * taps,
        layer=_dense_layer,
        look=lambda values, width: Look(
            text=f"dense, {values.activation}",
            label=f"dense {width}\n{values.activation}",
            legend="dense",
            face="#E6D5C3",
            edge="#8C510A",
        ),
        code=_dense_code,
        onnx=_dense_onnx,
    )
)


def _dropout_layer(inputs, values, *, norm, name):
    from flax import linen as nn

    # Training steps alone give random numbers for it.
    dropout = nn.Dropout(values.rate, name=name)
    return dropout(inputs[0], deterministic=not dropout.has_rng("dropout"))


DROPOUT = register(
    LayerKind(
        name="dropout",
        choices=(
            Choice(
                "rate",
                tuple(tenths / 10 for tenths in range(1, 10)),
                default=0.5,
                accepted=tuple(hundredths / 100 for hundredths in range(1, 100)),
                rule="a multiple of 0.01 from 0.01 to 0.99",
            ),
        ),
        layer=_dropout_layer,
        look=lambda values, width: Look(
            text=f"dropout {values.rate}", label=f"dropout\n{values.rate}", legend="dropout", face="#F2F2F2"
        ),
        code=lambda inputs, values, width, name: inputs[0],
        onnx=lambda graph, inputs, values, name: inputs[0],
    )
)


def _plain_conv_layer(inputs, values, *, norm, name):
    from eigen_jax.layers import Conv

    init = _kernel_init(values.activation)
    conv = Conv(values.channels, values.kernel, stride=1, kernel_init=init, use_bias=True, name=name)
    return _activated(conv(*inputs), values.activation)


PLAIN_CONV = register(
    LayerKind(
        name="plain_conv",
        choices=(
            CHANNELS,
            Choice("kernel", "kernels", default=3, accepted=range(1, 32), rule="an integer from 1 to 31"),
            _ACTIVATION,
        ),
        width=lambda widths, values: values.channels,
        parameters=lambda widths, values: values.kernel**2 * (widths[0] * values.channels) + values.channels,
        flops=lambda taps, widths, values: 2 * (widths[0] * values.channels) * taps,
        taps=lambda size, values: valid_taps(size, values.kernel, 1),
        layer=_plain_conv_layer,
        look=lambda values, width: Look(
            text=f"plain conv {values.kernel} x {values.kernel}, {values.activation}",
            label=f"{values.kernel}{_TIMES}{values.kernel}, {width}\n{values.activation}",
            legend="plain convolution",
            face="#DCEBDC",
            edge="#3B7A3B",
        ),
    )
)


def _max_pool_layer(inputs, side, stride):
    from eigen_jax.layers import max_pool_of, same_padding

    (x,) = inputs
    return max_pool_of(x, side, stride, same_padding(x, side, stride))


def _max_pool_look(side, stride):
    text = f"max pooling {side} x {side}" + f", stride {stride}" * (side != stride)
    label = f"max pool\n{side}{_TIMES}{side}" + f" / {stride}" * (side != stride)
    return Look(text=text, label=label, legend="max pooling", face="#FBDDA0", edge="#B37A00")  # as `POOL`


def _max_pool_code(inputs, side, stride):
    return f'nn.max_pool({inputs[0]}, ({side}, {side}), ({stride}, {stride}), "SAME")'


def _max_pool_onnx(graph, inputs, side, stride):
    return graph.pool("MaxPool", inputs[0], side=side, stride=stride)


POOL3 = register(
    LayerKind(
        name="pool3",
        halves=True,
        layer=lambda inputs, values, norm, name: _max_pool_layer(inputs, 3, 2),
        look=lambda values, width: _max_pool_look(3, 2),
        code=lambda inputs, values, width, name: _max_pool_code(inputs, 3, 2),
        onnx=lambda graph, inputs, values, name: _max_pool_onnx(graph, inputs, 3, 2),
    )
)

POOL_ANY = register(
    LayerKind(
        name="pool_any",
        choices=(Choice("side", (1, 2), default=2, accepted=range(1, 7), rule="an integer from 1 to 6"),),
        halves="side",
        layer=lambda inputs, values, norm, name: _max_pool_layer(inputs, values.side, values.side),
        look=lambda values, width: _max_pool_look(values.side, values.side),
        code=lambda inputs, values, width, name: _max_pool_code(inputs, values.side, values.side),
        onnx=lambda graph, inputs, values, name: _max_pool_onnx(graph, inputs, values.side, values.side),
    )
)
