"""Networks as a page draws them: laid out here, once each, in hundredths of an inch from the top left corner."""

from typing import Any

from eigen_jax.architecture import Architecture, layer_shapes, times
from eigen_jax.layer_kinds import KINDS, Look
from eigen_jax.report.drawing import CHAIN, junctions, panels_of, skip_colours
from eigen_jax.report.layout import block_groups, place
from eigen_jax.report.routing import Geometry


class Drawings:
    """Layouts of networks, each different one once, and the looks of boxes and the colours that they share."""

    def __init__(self, *, num_classes: int) -> None:
        self.num_classes = num_classes
        self.networks: list[dict[str, Any]] = []
        self._known: dict[Architecture, int] = {}
        self._looks: dict[Look, int] = {}
        self._colours: dict[str, int] = {}

    def add(self, architecture: Architecture) -> int:
        """The number of a network's layout, which is made where there is none."""
        if architecture not in self._known:
            self._known[architecture] = len(self.networks)
            self.networks.append(self._lay_out(architecture))
        return self._known[architecture]

    def content(self) -> dict[str, Any]:
        """All of them, as JSON has it."""
        looks = [
            {"label": look.label.split("\n"), "face": look.face, "edge": look.edge, "legend": look.legend}
            for look in self._looks
        ]
        return {"networks": self.networks, "looks": looks, "colours": list(self._colours)}

    def _lay_out(self, architecture: Architecture) -> dict[str, Any]:
        geometry = Geometry(place(architecture, block_groups(architecture), num_classes=self.num_classes))
        colours = skip_colours(geometry.wires)

        def colour(source: int, skips: bool) -> int:
            return self._number(self._colours, colours[source] if skips else CHAIN)

        boxes = [
            [*_scaled(*geometry.corners[node]), self._number(self._looks, box.look)]
            for node, box in geometry.grid.boxes.items()
        ]
        wires = [
            [colour(wire.source, wire.skips), *_scaled(*(number for point in wire.points for number in point))]
            for wire in geometry.wires
        ]
        dots = [
            [colour(wire.source, wire.skips), *_scaled(*point)] for point, wire in junctions(geometry.wires).items()
        ]
        panels = [
            [
                self._number(self._colours, each.colour),
                each.label,
                *_scaled(each.left, each.top, each.right, each.bottom),
            ]
            for each in panels_of(geometry)
        ]
        layers = [
            [KINDS.find(layer.op).look(layer, shape[2]).text, list(layer.inputs), times(shape)]
            for layer, shape in zip(architecture.layers, layer_shapes(architecture), strict=True)
        ]
        size = _scaled(geometry.width, geometry.height)
        return {"size": size, "boxes": boxes, "wires": wires, "dots": dots, "panels": panels, "layers": layers}

    def _number(self, table: dict[Any, int], entry: Any) -> int:
        return table.setdefault(entry, len(table))


def _scaled(*inches: float) -> list[int]:
    return [round(100 * each) for each in inches]
