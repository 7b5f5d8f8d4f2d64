"""The networks that are measured, and how much work they are.

All take images of 32 x 32 x 3 and tell ten classes apart.
"""

from importlib import resources

from eigen_jax.architecture import IMAGE, Architecture, Layer, count_flops, from_json

NUM_CLASSES = 10


def benchmark_architectures() -> dict[str, Architecture]:
    """By name: eight layers, a typical evolved network of 30, a large one of 101.

    The last two were bred once with `eigen_jax.mutation.mutate`, from global pooling in generations
    of 256 children of 8 steps (keys 4 and 5). Parent became the child that was nearest to the layers
    asked for, at least 62 % of them convolutions, within bounds on FLOPs and parameters.
    """
    folder = resources.files("experiments.benchmarks") / "genomes"
    evolved = {name: from_json((folder / f"{name}.json").read_text()) for name in ("typical", "large")}
    return {"small": eight_layers(), **evolved}


def eight_layers() -> Architecture:
    """Eight 3 x 3 convolutions of 32 to 96 channels, three of them halving; images of 32 x 32 x 3."""
    shapes = [(32, 1), (32, 1), (48, 2), (48, 1), (64, 2), (64, 1), (96, 2), (96, 1)]
    layers = [
        Layer(op="conv", inputs=(position - 1 if position else IMAGE,), channels=channels, kernel=3, stride=stride)
        for position, (channels, stride) in enumerate(shapes)
    ]
    return Architecture(input_shape=(32, 32, 3), layers=tuple(layers))


def describe(name: str, architecture: Architecture) -> str:
    """The name of a network as it stands in the table."""
    return f"{name}, {len(architecture.layers)} layers"


def training_flops(architecture: Architecture) -> int:
    """Floating-point operations of one image in a training step: convolutions and classifier.

    Three times those of the forward pass (`count_flops`: two for each multiply-add, none for kernel
    positions on the padding), since each gradient costs as much as the pass forward; but for the
    convolutions that read the image, whose input needs no gradient: twice.
    """
    total = 3 * count_flops(architecture, num_classes=NUM_CLASSES)
    for layer in architecture.layers:
        if layer.op == "conv" and layer.inputs == (IMAGE,):
            total -= convolution_flops(architecture.input_shape, layer)
    return total


def convolution_flops(input_shape: tuple[int, int, int], layer: Layer) -> int:
    """Floating-point operations of one convolution of one image, forward."""
    alone = Architecture(input_shape=input_shape, layers=(layer,))
    return count_flops(alone, num_classes=NUM_CLASSES) - 2 * layer.channels * NUM_CLASSES
