"""Hypothesis strategies: random networks of the search space."""

import dataclasses
from collections.abc import Sequence

from hypothesis import strategies as st

from eigen_jax.architecture import IMAGE, Architecture, Layer
from eigen_jax.genome import GenomeSpec


@st.composite
def architectures(draw: st.DrawFn, *, spec: GenomeSpec, max_layers: int = 10) -> Architecture:
    """Architectures that `spec` holds, of up to `max_layers` layers.

    Layers are drawn one after another on the layers before them, and those that the last one does
    not depend on are dropped, so that any topology can come out.
    """
    layers: list[Layer] = []
    sizes: list[tuple[int, int]] = []
    for position in range(draw(st.integers(0, max_layers))):
        # Most draws read one of the latest layers, or nearly everything would be dropped as dead.
        source = draw(st.integers(max(IMAGE, position - 3), position - 1))
        size = spec.input_shape[:2] if source == IMAGE else sizes[source]
        joinable = [other for other in range(position) if sizes[other] == size]
        op = draw(st.sampled_from(["conv"] + ["pool"] * (size != (1, 1)) + ["concat"] * 2 * (source != IMAGE)))
        if op == "conv":
            choices = spec.channels, spec.kernels, spec.strides if size != (1, 1) else (1,)
            channels, kernel, stride = (draw(st.sampled_from(values)) for values in choices)
            layers.append(Layer(op="conv", inputs=(source,), channels=channels, kernel=kernel, stride=stride))
        elif op == "pool":
            layers.append(Layer(op="pool", inputs=(source,)))
        else:
            layers.append(Layer(op="concat", inputs=(source, draw(st.sampled_from(joinable)))))
        halved = op == "pool" or layers[-1].stride == 2
        sizes.append(((size[0] + 1) // 2, (size[1] + 1) // 2) if halved else size)
    return Architecture(input_shape=spec.input_shape, layers=without_dead(layers))


def without_dead(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """The layers that the last one depends on, renumbered in the order given."""
    live = {len(layers) - 1}
    for position in reversed(range(len(layers))):
        if position in live:
            live.update(layers[position].inputs)
    return renumbered(layers, sorted(live - {IMAGE}))


def renumbered(layers: Sequence[Layer], order: list[int]) -> tuple[Layer, ...]:
    """The layers at the positions `order`, in that order, with inputs renumbered to match."""
    new = {IMAGE: IMAGE} | {old: position for position, old in enumerate(order)}
    return tuple(
        dataclasses.replace(layers[old], inputs=tuple(new[source] for source in layers[old].inputs)) for old in order
    )


@st.composite
def topological_orders(draw: st.DrawFn, layers: tuple[Layer, ...]) -> list[int]:
    """Orders in which each of the layers comes after its inputs."""
    order: list[int] = []
    while len(order) < len(layers):
        ready = [
            position
            for position, layer in enumerate(layers)
            if position not in order and all(source == IMAGE or source in order for source in layer.inputs)
        ]
        order.append(draw(st.sampled_from(ready)))
    return order
