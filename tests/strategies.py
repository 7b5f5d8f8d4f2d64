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
    shapes = {IMAGE: spec.input_shape}
    for position in range(draw(st.integers(0, max_layers))):
        # Most draws read one of the latest layers, or nearly everything would be dropped as dead.
        source = draw(st.integers(max(IMAGE, position - 3), position - 1))
        (*size, width), is_smallest = shapes[source], shapes[source][:2] == (1, 1)
        # The more parallel branches are joined, the fewer are dropped.
        often = [0 if is_smallest and kind.halves is True else kind.inputs for kind in spec.ops]
        often = [0 if kind.inputs == 2 and source == IMAGE else n for n, kind in zip(often, spec.ops, strict=True)]
        kind = draw(st.sampled_from([kind for n, kind in zip(often, spec.ops, strict=True) for _ in range(n)]))
        values = {
            name: draw(st.sampled_from((1,) if is_smallest and kind.halves == name else options))
            for name, options in spec.options[kind.name].items()
        }
        inputs = [source]
        if kind.inputs == 2:
            agreeing = slice(2 if kind.agree == "size" else 3)
            equal = [other for other in range(position) if shapes[other][agreeing] == shapes[source][agreeing]]
            inputs.append(draw(st.sampled_from(equal)))
        layers.append(Layer(op=kind.name, inputs=tuple(inputs), **values))
        height, width = kind.output_size((size[0], size[1]), layers[-1])
        shapes[position] = height, width, kind.width(kind.widths_of([shapes[read] for read in inputs]), layers[-1])
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
