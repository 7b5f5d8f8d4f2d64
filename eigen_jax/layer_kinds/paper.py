"""The three kinds of layers of Section 3.1: convolution with batch normalisation and ReLU, pooling, concatenation."""

import jax.numpy as jnp

from eigen_jax.layer_kinds.kind import CHANNELS, Choice, LayerKind, Look, register, valid_taps


def _conv_layer(inputs, values, *, norm, name):
    from eigen_jax.layers import ConvLayer

    return ConvLayer(values.channels, values.kernel, values.stride, norm=norm, name=name)(*inputs)


def _conv_look(values, width):
    side, strided, of_stride = values.kernel, values.stride > 1, f"stride {values.stride}"
    return Look(
        text=f"convolution {side} x {side}" + f", {of_stride}" * strided,
        label=f"{side}\N{MULTIPLICATION SIGN}{side}, {width}" + f"\n{of_stride}" * strided,
        legend="convolution" + f", {of_stride}" * strided,
        face="#8FC3E6" if strided else "#D6E8F5",
        edge="#0072B2",
    )


def _conv_code(inputs, values, width, name):
    stride = f", stride={values.stride}" if values.stride > 1 else ""
    return f'Conv({values.channels}, {values.kernel}{stride}, name="{name}")({inputs[0]})'


def _conv_onnx(graph, inputs, values, name):
    return graph.norm_relu(graph.conv(inputs[0], f"{name}/conv", stride=values.stride), f"{name}/norm")


CONV = register(
    LayerKind(
        name="conv",
        choices=(
            CHANNELS,
            Choice("stride", "strides", default=1, accepted=range(1, 3), rule="1 or 2"),
            Choice("kernel", "kernels", default=3, accepted=range(1, 32, 2), rule="an odd integer from 1 to 31"),
        ),
        halves="stride",
        width=lambda widths, values: values.channels,
        # The kernel's, and a scale and an offset for each channel.
        parameters=lambda widths, values: values.kernel**2 * (widths[0] * values.channels) + 2 * values.channels,
        flops=lambda taps, widths, values: 2 * (widths[0] * values.channels) * taps,
        taps=lambda size, values: valid_taps(size, values.kernel, values.stride),
        layer=_conv_layer,
        look=_conv_look,
        code=_conv_code,
        onnx=_conv_onnx,
    )
)


def _pool_layer(inputs, values, *, norm, name):
    from eigen_jax.layers import max_pool

    return max_pool(*inputs)


def _pool_look(values, width):
    label = "max pool\n2\N{MULTIPLICATION SIGN}2"
    return Look(text="max pooling 2 x 2", label=label, legend="max pooling", face="#FBDDA0", edge="#B37A00")


POOL = register(
    LayerKind(
        name="pool",
        halves=True,
        layer=_pool_layer,
        look=_pool_look,
        code=lambda inputs, values, width, name: f"max_pool({inputs[0]})",
        onnx=lambda graph, inputs, values, name: graph.pool("MaxPool", inputs[0]),
    )
)


def _concat_look(values, width):
    name = "concatenation"
    return Look(text=name, label=f"concat\n{width:,}", legend=name, face="#BFE6D8", edge="#009E73")


CONCAT = register(
    LayerKind(
        name="concat",
        inputs=2,
        agree="size",
        width=lambda widths, values: widths[0] + widths[1],
        layer=lambda inputs, values, norm, name: jnp.concatenate(inputs, axis=-1),
        look=_concat_look,
        code=lambda inputs, values, width, name: f"jnp.concatenate([{', '.join(inputs)}], axis=-1)",
        onnx=lambda graph, inputs, values, name: graph.add("Concat", *inputs, axis=1),
    )
)
