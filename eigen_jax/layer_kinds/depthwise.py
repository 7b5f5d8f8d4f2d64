"""Depthwise convolution, each channel by itself, with batch normalisation and ReLU, as of MobileNets (2017)."""

from eigen_jax.layer_kinds.kind import Choice, LayerKind, Look, register, valid_taps


def _parameters(widths, values):
    """The kernel's, and a scale and an offset for each channel."""
    return (values.kernel**2 + 2) * widths[0]


def _flops(taps, widths, values):
    del values
    return 2 * widths[0] * taps


def _taps(size, values):
    return valid_taps(size, values.kernel, 1)


def _layer(inputs, values, *, norm, name):
    from flax import linen as nn

    (x,) = inputs
    width, side = x.shape[-1], (values.kernel, values.kernel)
    convolve = nn.Conv(
        *(width, side), feature_group_count=width, use_bias=False, dtype=x.dtype, name=f"{name}_conv",
        kernel_init=nn.initializers.he_normal(),
    )  # fmt: skip
    return norm(name=f"{name}_norm")(convolve(x))


def _look(values, width):
    side, name = values.kernel, "depthwise convolution"
    label = f"{side}\N{MULTIPLICATION SIGN}{side}, {width:,}\ndepthwise"
    return Look(text=f"{name} {side} x {side}", label=label, legend=name, face="#E3E0F4", edge="#5B4EA1")


DEPTHWISE = register(
    LayerKind(
        name="depthwise",
        choices=(Choice("kernel", (3, 5)),),
        parameters=_parameters,
        flops=_flops,
        taps=_taps,
        layer=_layer,
        look=_look,
    )
)
