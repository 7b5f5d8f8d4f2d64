"""The page of several runs beside each other: what they came to, and at what cost."""

from collections.abc import Sequence
from typing import Any

from eigen_jax.report.page.data import spending
from eigen_jax.report.page.html import Markup, chart, document, element, grid, join, section
from eigen_jax.report.page.run import Run
from eigen_jax.report.page.single import key_numbers, shown, status
from eigen_jax.store.run_files import FORMER_SETTINGS


def make_comparison(runs: Sequence[Run]) -> str:
    """The HTML of a page that compares runs, finished or not."""
    searches = [run for run in runs if run.individuals]
    sections = [section("results", "Results", _table("Results of the runs", runs, [_results(run) for run in runs]))]
    if searches:
        caption = f"The best {_fitness(searches)} so far"
        sections.insert(0, section("progress", "Progress", chart("comparison-chart", caption)))
    differing = _differences(runs)
    if any(differing):
        sections.append(section("settings", "Where their settings differ", _table("Settings", runs, differing)))
    names = ", ".join(run.name for run in runs)
    top = element("header", element("h1", f"{len(runs)} runs"), element("p", names))
    body = join([top, element("main", *sections)])
    return document(f"{names}: EIGEN", body, _data(searches), script="comparison.js")


def _fitness(runs: Sequence[Run]) -> str:
    kinds = {run.fitness for run in runs}
    return kinds.pop() if len(kinds) == 1 else "fitness, of each run its own"


def _data(runs: Sequence[Run]) -> dict[str, Any]:
    return {
        "fitness": _fitness(runs) if runs else "",
        "isAccuracy": all(run.is_of_accuracy for run in runs),
        "runs": [
            {
                "name": run.name,
                "generations": [each.generation for each in run.individuals],
                **spending(run.individuals),
            }
            for run in runs
        ],
    }


def _results(run: Run) -> dict[str, str]:
    return {"status": status(run), **key_numbers(run)}


def _differences(runs: Sequence[Run]) -> list[dict[str, str]]:
    """Of each run, the settings in which they differ."""
    names = dict.fromkeys(name for run in runs for name in run.settings)
    told = [{name: run.settings.get(name, FORMER_SETTINGS.get(name)) for name in names} for run in runs]
    differing = [name for name in names if any(each[name] != told[0][name] for each in told)]
    return [{name: shown(each[name]) for name in differing if each[name] is not None} for each in told] * bool(
        differing
    )


def _table(label: str, runs: Sequence[Run], columns: Sequence[dict[str, str]]) -> Markup:
    """A column a run, a row each of what is told of them."""
    names = dict.fromkeys(name for column in sorted(columns, key=len, reverse=True) for name in column)
    heads = [element("td"), *(element("th", run.name, scope="col") for run in runs)]
    rows = [
        [element("th", name, scope="row"), *(element("td", column.get(name, "-")) for column in columns)]
        for name in names
    ]
    return grid(label, heads, rows, class_="values")
