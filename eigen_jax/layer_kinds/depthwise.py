"""Depthwise convolution, each channel by itself, with batch normalisation and ReLU, as of MobileNets (2017)."""

from eigen_jax.layer_kinds.kind import Choice, LayerKind, Look, register, valid_taps


def _layer(inputs, values, *, norm, name):
    from flax import linen as nn

    (x,) = inputs
    width, side = x.shape[-1], (values.kernel, values.kernel)
    options = {"use_bias": False, "dtype": x.dtype, "kernel_init": nn.initializers.he_normal()}
    y = nn.Conv(width, side, feature_group_count=width, name=f"{name}_conv", **options)(x)
    return norm(name=f"{name}_norm")(y)


def _look(values, width):
    side, name = values.kernel, "depthwise convolution"
    label = f"{side}\N{MULTIPLICATION SIGN}{side}, {width:,}\ndepthwise"
    return Look(text=f"{name} {side} x {side}", label=label, legend=name, face="#E3E0F4", edge="#5B4EA1")


DEPTHWISE = register(
    LayerKind(
        name="depthwise",
        choices=(Choice("kernel", (3, 5)),),
        parameters=lambda widths, values: (values.kernel**2 + 2) * widths[0],  # a scale and an offset a channel
        flops=lambda taps, widths, values: 2 * widths[0] * taps,
        taps=lambda size, values: valid_taps(size, values.kernel, 1),
        layer=_layer,
        look=_look,
        code=lambda inputs, values, width, name: f'depthwise({inputs[0]}, {values.kernel}, "{name}")',
        onnx=lambda graph, inputs, values, name: graph.norm_relu(
            graph.conv(inputs[0], f"{name}_conv", depthwise=True), f"{name}_norm"
        ),
    )
)
