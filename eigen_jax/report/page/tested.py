"""What a page says of the test images: which classes are taken for which, and the pictures that are most wrong."""

from collections.abc import Iterator, Sequence

from eigen_jax.report.page.html import Markup, element, grid, percent, section
from eigen_jax.report.page.run import Run

_CONFUSIONS = 10  # the most frequent that are told one by one
_MOST_WRITTEN = 20  # classes of which the table has numbers, not colours alone
_SMALL = 96  # pixels: smaller pictures are shown pixel by pixel


def confusion(run: Run, matrix: Sequence[Sequence[int]]) -> Markup:
    """The section of the confusion matrix, [K][K], rows true classes."""
    names, is_small = [run.class_name(label) for label in range(len(matrix))], len(matrix) <= _MOST_WRITTEN
    heads = [element("td"), *(element("th", element("span", name), scope="col") for name in (*names, "found"))]
    rows = [
        [element("th", name, scope="row"), *_cells(name, names, row, is_small), element("td", _share(row[place], row))]
        for place, (name, row) in enumerate(zip(names, matrix, strict=True))
    ]
    told = f"{sum(map(sum, matrix)):,} test images: rows are their classes, columns what the network takes them for"
    made = grid(told, heads, rows, class_="confusion" if is_small else "confusion dense")
    worst = element("div", element("h3", "Most often confused"), _most_confused(names, matrix))
    both = element("div", element("div", made), worst, class_="pair" if is_small else None)
    return section("confusion", "Confusion", both)


def _cells(name: str, names: Sequence[str], row: Sequence[int], is_small: bool) -> Iterator[Markup]:
    """Of one class: what its images are taken for; the shade is the share of them."""
    for other, count in zip(names, row, strict=True):
        title = None if is_small else f"{name} taken for {other}: {count:,}"
        shade = f"--share:{count / sum(row):.3f}" if count else None
        yield element("td", (count or None) if is_small else None, style=shade, title=title if count else None)


def _share(right: int, row: Sequence[int]) -> str:
    return percent(right / sum(row)) if any(row) else "none"


def _most_confused(names: Sequence[str], matrix: Sequence[Sequence[int]]) -> Markup:
    pairs = [(count, one, other) for one, row in enumerate(matrix) for other, count in enumerate(row) if count]
    wrong = sorted((pair for pair in pairs if pair[1] != pair[2]), key=lambda pair: -pair[0])
    told = [
        element("li", f"{names[one]} taken for {names[other]}: {count:,} of {sum(matrix[one]):,}")
        for count, one, other in wrong[:_CONFUSIONS]
    ]
    return element("ol", *told) if told else element("p", "Nothing is confused.")


def mistakes(run: Run) -> Markup:
    """The section of the pictures that the network gets most wrong."""
    pictures = []
    for mistake in run.mistakes or ():
        label, taken = run.class_name(mistake.label), run.class_name(mistake.taken_for)
        told = f"{label}, taken for {taken} ({percent(mistake.probability)})"
        width, height = mistake.size
        picture = element("img", src=mistake.picture, alt=told, width=width, height=height)
        small = "small" if max(mistake.size) < _SMALL else None
        pictures.append(element("li", element("figure", picture, element("figcaption", told), class_=small)))
    told = "The pictures of the test set that the network gives their own class the least probability."
    content = element("ul", *pictures, class_="pictures") if pictures else element("p", "It gets all of them right.")
    return section("mistakes", "What it gets most wrong", element("p", told, class_="hint"), content)
