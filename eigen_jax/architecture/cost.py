"""What a network costs, told from its architecture alone."""

from eigen_jax.architecture.graph import Architecture, layer_shapes, shape_of
from eigen_jax.genome import valid_taps


def count_parameters(architecture: Architecture, *, num_classes: int) -> int:
    """Trainable numbers: kernels, scales and offsets of batch normalisation, and the classifier.

    As many as there are in the "params" collection of the built network.
    """
    shapes = layer_shapes(architecture)
    *_, features = shape_of(len(shapes) - 1, architecture.input_shape, shapes)
    total = (features + 1) * num_classes
    for layer, (_, _, channels) in zip(architecture.layers, shapes, strict=True):
        if layer.op == "conv":
            _, _, read = shape_of(layer.inputs[0], architecture.input_shape, shapes)
            total += (layer.kernel**2 * read + 2) * channels
    return total


def count_flops(architecture: Architecture, *, num_classes: int) -> int:
    """Floating-point operations of one image's forward pass: two for each multiply-add.

    Convolutions and the classifier are counted; normalisation, ReLU, pooling and the classifier's
    bias are left out, as is usual. Kernel positions that fall on the padding are not counted: the
    number is the one that XLA's cost analysis gives for the same convolutions and matrix product.
    """
    shapes = layer_shapes(architecture)
    *_, features = shape_of(len(shapes) - 1, architecture.input_shape, shapes)
    total = 2 * features * num_classes
    for layer in architecture.layers:
        if layer.op == "conv":
            height, width, read = shape_of(layer.inputs[0], architecture.input_shape, shapes)
            taps = valid_taps(height, layer.kernel, layer.stride) * valid_taps(width, layer.kernel, layer.stride)
            total += 2 * taps * read * layer.channels
    return total
