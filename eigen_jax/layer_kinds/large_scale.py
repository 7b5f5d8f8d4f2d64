"""The layers of Large-Scale Evolution (Real et al., 2017): linear convolutions, vertices, and sums of any two maps.

There an edge is a convolution or an identity, and a vertex normalises and applies ReLU, or does nothing. Where edges
meet, one is primary; the others are resized to it, in space by zeroth-order interpolation, and added. Decided here,
since no source for it was found: channels are cut off, or padded with zeros, at the end; pixel i of n becomes pixel
floor(i m / n) of m; convolutions have no bias, and start with the variance 2 / fan-in (He et al., 2015).
"""

import jax.numpy as jnp

from eigen_jax.layer_kinds.kind import CHANNELS, Choice, LayerKind, Look, register, valid_taps

_TIMES = "\N{MULTIPLICATION SIGN}"


def _linear_conv_layer(inputs, values, *, norm, name):
    from flax import linen as nn

    from eigen_jax.layers import Conv

    sides = values.kernel_height, values.kernel_width
    return Conv(values.channels, sides, values.stride, kernel_init=nn.initializers.he_normal(), name=name)(*inputs)


def _linear_conv_taps(size, values):
    rows = valid_taps(size[:1], values.kernel_height, values.stride)
    return rows * valid_taps(size[1:], values.kernel_width, values.stride)


def _linear_conv_look(values, width):
    height, length, strided = values.kernel_height, values.kernel_width, values.stride > 1
    return Look(
        text=f"linear conv {height} x {length}" + f", stride {values.stride}" * strided,
        label=f"{height}{_TIMES}{length}, {width}\n" + (f"stride {values.stride}" if strided else "linear"),
        legend="linear convolution" + ", strided" * strided,
        face="#B9DDE3" if strided else "#E1F1F4",
        edge="#2B7C8C",
    )


LINEAR_CONV = register(
    LayerKind(
        name="linear_conv",
        choices=(
            CHANNELS,
            Choice(
                "stride",
                "strides",
                default=1,
                accepted=tuple(1 << power for power in range(11)),
                rule="a power of two from 1 to 1024",
            ),
            *(
                Choice(name, "kernels", default=3, accepted=range(1, 32, 2), rule="an odd integer from 1 to 31")
                for name in ("kernel_height", "kernel_width")
            ),
        ),
        halves="stride",
        width=lambda widths, values: values.channels,
        parameters=lambda widths, values: values.kernel_height * values.kernel_width * (widths[0] * values.channels),
        flops=lambda taps, widths, values: 2 * (widths[0] * values.channels) * taps,
        taps=_linear_conv_taps,
        layer=_linear_conv_layer,
        look=_linear_conv_look,
    )
)


def _vertex_parameters(widths, values):
    # A scale and an offset for each channel.
    return 2 * widths[0] if values.activation == "norm_relu" else 0 * widths[0]


def _vertex_layer(inputs, values, *, norm, name):
    return norm(name=name)(*inputs) if values.activation == "norm_relu" else inputs[0]


def _vertex_look(values, width):
    if values.activation == "linear":
        return Look(text="identity", label=f"identity\n{width:,}", legend="identity")
    text = "batch normalisation, ReLU"
    return Look(text=text, label=f"norm, ReLU\n{width:,}", legend=text, face="#EADCF4", edge="#7B4FA3")


VERTEX = register(
    LayerKind(
        name="vertex",
        choices=(Choice("activation", ("norm_relu", "linear")),),
        parameters=_vertex_parameters,
        layer=_vertex_layer,
        look=_vertex_look,
        code=lambda inputs, values, width, name: (
            f'norm_relu({inputs[0]}, "{name}")' if values.activation == "norm_relu" else inputs[0]
        ),
        onnx=lambda graph, inputs, values, name: (
            graph.norm_relu(inputs[0], name) if values.activation == "norm_relu" else inputs[0]
        ),
    )
)


def _nearest(x, axis, size):
    """Resized along an axis: place i of `size` is what place floor(i * before / size) was."""
    before = x.shape[axis]
    # Slices and copies, whose gradients are no scatters, wherever one size is a multiple of the other.
    if before % size == 0:
        return x[(slice(None),) * axis + (slice(None, None, before // size),)]
    if size % before == 0:
        return jnp.repeat(x, size // before, axis=axis)
    return x.take(jnp.arange(size, dtype=jnp.int32) * before // size, axis=axis)


def _add_resized_layer(inputs, values, *, norm, name):
    first, second = inputs
    _, height, width, channels = first.shape
    second = _nearest(_nearest(second, 1, height), 2, width)[..., :channels]
    return first + jnp.pad(second, ((0, 0), (0, 0), (0, 0), (0, channels - second.shape[-1])))


ADD_RESIZED = register(
    LayerKind(
        name="add_resized",
        inputs=2,
        agree="nothing",
        layer=_add_resized_layer,
        look=lambda values, width: Look(
            text="addition, resized",
            label=f"add resized\n{width:,}",
            legend="addition, resized",
            face="#F8E4EE",
            edge="#CC79A7",
        ),
    )
)
