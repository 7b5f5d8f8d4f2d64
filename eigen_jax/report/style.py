"""How every picture looks, and how it is saved."""

import io
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from eigen_jax.report.files import write_files

# Told apart with every common colour blindness (Okabe and Ito, "Color Universal Design", 2008).
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"
LINE_COLOURS = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, BLACK)
GREY = "#6B6B6B"

_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so pictures are the same on every machine
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.labelsize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "text.parse_math": False,  # a title can be a folder's name, dollar signs and all
    "svg.fonttype": "none",  # text stays text: searchable, and read aloud
    "svg.hashsalt": "eigen_jax",  # equal pictures have equal bytes
}

# As a decorator: the function runs under the style, and nothing outside of it does.
styled = rc_context(_STYLE)


@styled
def save_figure(figure: Figure, stem: Path) -> tuple[Path, ...]:
    """Saves a figure as PNG and as SVG, as `write_files` writes. Equal figures give equal bytes."""
    contents = {}
    # None drops what names the time or the version that the picture was made with.
    for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=160, metadata=metadata)
        contents[f".{kind}"] = buffer.getvalue()
    return write_files(stem, contents)
