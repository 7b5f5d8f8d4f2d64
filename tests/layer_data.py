"""Layers and networks in few words."""

from eigen_jax.architecture import IMAGE, Architecture, Layer


def conv(source: int = IMAGE, channels: int = 48, kernel: int = 3, stride: int = 1) -> Layer:
    return Layer(op="conv", inputs=(source,), channels=channels, kernel=kernel, stride=stride)


def pool(source: int = IMAGE) -> Layer:
    return Layer(op="pool", inputs=(source,))


def concat(first: int, second: int) -> Layer:
    return Layer(op="concat", inputs=(first, second))


def network(*layers: Layer, input_shape: tuple[int, int, int] = (32, 32, 3)) -> Architecture:
    return Architecture(input_shape=input_shape, layers=layers)
