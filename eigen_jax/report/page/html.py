"""HTML, of values that are escaped wherever they come from: what is none yet becomes text, and no other can slip in."""

import html
import importlib.resources
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from eigen_jax.report.tables import Cell, Measured, Table, Unit, format_cell

_SCRIPTS = ("make.js", "chart.js", "network.js", "tree.js")


class Markup(str):
    """Text that is HTML."""


def element(name: str, *content: object, **attributes: object) -> Markup:
    """An element; a trailing underscore of an attribute's name is dropped, others are hyphens; None leaves one out."""
    told = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{told}>{join(content)}</{name}>")


def join(content: Iterable[object]) -> Markup:
    """Parts after one another; what is no Markup is escaped, None is nothing."""
    return Markup(
        "".join(each if isinstance(each, Markup) else html.escape(str(each)) for each in content if each is not None)
    )


def facts(pairs: Mapping[str, object]) -> Markup:
    """A list of names and values."""
    return element("dl", *(element("div", element("dt", key), element("dd", value)) for key, value in pairs.items()))


def section(name: str, heading: str, *content: object) -> Markup:
    """A part of the page, under a heading that names it."""
    return element(
        "section", element("h2", heading, id_=f"{name}-heading"), *content, id_=name, aria_labelledby=f"{name}-heading"
    )


def chart(name: str, caption: str) -> Markup:
    """A place where the script draws, with what is said of it."""
    return element("figure", element("figcaption", caption), element("div", class_="plot"), id_=name, class_="chart")


def scrollable(content: object, label: str) -> Markup:
    """Content that may be wider than the page: it scrolls by itself, by keyboard too."""
    return element("div", content, class_="scroll", tabindex=0, role="region", aria_label=label)


def grid(label: str, heads: Sequence[Markup], rows: Iterable[Sequence[Markup]], *, class_: str | None = None) -> Markup:
    """A table of cells, which scrolls by itself; its label is read, not seen."""
    head = element("thead", element("tr", *heads)) if heads else None
    body = element("tbody", *(element("tr", *row) for row in rows))
    return scrollable(element("table", head, body, class_=class_), label)


def table(told: Table) -> Markup:
    """A table of a report, with its caption and its notes."""
    heads = [element("th", f"{each.heading}{each.unit.in_markdown}", scope="col") for each in told.columns]
    rows = [[_cell(cell, column.unit) for cell, column in zip(row, told.columns, strict=True)] for row in told.rows]
    for row, (first, *_) in zip(rows, told.rows, strict=True):
        row[0] = element("th", first, scope="row")
    notes = [element("p", note, class_="note") for note in told.notes]
    return join([element("h3", told.caption), grid(told.caption, heads, rows), *notes])


def percent(fraction: float) -> str:
    """A fraction for people."""
    return f"{100 * fraction:.1f} %"


def _cell(cell: Cell, unit: Unit) -> Markup:
    # All is of one run, so that nothing has to say of how many.
    value = cell.mean if isinstance(cell, Measured) and cell.deviation is None else getattr(cell, "value", None)
    text = format_cell(cell, unit) if value is None else unit.show(value, None)
    return element("td", text, class_="text" if unit is Unit.TEXT else None)


def document(title: str, body: Markup, data: Mapping[str, Any], *, script: str | None) -> str:
    """The page: style, content, data and scripts in one file, which may ask for nothing else."""
    folder = importlib.resources.files(__package__)
    scripts = "\n".join(folder.joinpath(name).read_text(encoding="utf-8") for name in (*_SCRIPTS, script) if name)
    # So that no text in the data can end the element that holds them.
    content = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    filled = {
        "title": html.escape(title),
        "style": folder.joinpath("page.css").read_text(encoding="utf-8"),
        "body": body,
        "data": content,
        "script": scripts,
    }
    text = folder.joinpath("page.html").read_text(encoding="utf-8")
    head, *parts = text.split("{{")
    return head + "".join(filled[name] + rest for name, _, rest in (part.partition("}}") for part in parts))


def make_live(page: str, version: str) -> str:
    """A page for a server that tells at /version which one it has: where that is another, the page is loaded anew."""
    follow = importlib.resources.files(__package__).joinpath("live.js").read_text(encoding="utf-8")
    head, _, rest = page.partition("default-src 'none';")
    body, _, end = rest.rpartition("</body>")
    told = json.dumps(version).replace("<", "\\u003c")
    script = f"<script>\nconst VERSION = {told};\n{follow}</script>\n"
    return f"{head}default-src 'none'; connect-src 'self';{body}{script}</body>{end}"


def make_notice(text: str) -> str:
    """A page that says one thing."""
    return document("EIGEN", element("main", element("p", text, class_="note")), {}, script=None)
