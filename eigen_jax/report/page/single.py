"""The page of one run: what it found, how it got there, and what made it."""

import collections
import json
from collections.abc import Mapping
from typing import Any

from eigen_jax.architecture import count_flops, count_parameters
from eigen_jax.lineage import Fate
from eigen_jax.report.files import ReportError
from eigen_jax.report.landmarks import study_landmarks
from eigen_jax.report.layout import TIMES
from eigen_jax.report.page import tested
from eigen_jax.report.page.data import page_data, phase_name
from eigen_jax.report.page.html import (
    Markup,
    chart,
    document,
    element,
    facts,
    grid,
    join,
    percent,
    scrollable,
    section,
    table,
)
from eigen_jax.report.page.run import Run
from eigen_jax.report.summary import PhaseSummary, summarise_phases
from eigen_jax.report.tables import Cell, Column, Shared, Table, Unit, format_flops, format_parameters, format_seconds

_LINKS = {
    "progress": "Progress",
    "tree": "Family tree",
    "costs": "Costs",
    "landmarks": "Landmarks",
    "network": "Network",
    "confusion": "Confusion",
    "mistakes": "Mistakes",
    "settings": "Settings",
}


def make_page(run: Run) -> str:
    """The HTML of a page that shows a run, finished or not; what there is nothing of is left out."""
    sections = {"overview": _overview(run)}
    if run.individuals:
        sections |= {"progress": _progress(run), "tree": _tree(), "costs": _costs(), "landmarks": _landmarks(run)}
    if run.shown:
        sections["network"] = _network(run)
    if run.confusion:
        sections["confusion"] = tested.confusion(run, run.confusion)
    if run.mistakes is not None:
        sections["mistakes"] = tested.mistakes(run)
    sections["settings"] = _settings(run)
    links = [element("a", text, href=f"#{name}") for name, text in _LINKS.items() if name in sections]
    top = element("header", element("h1", run.name), element("p", status(run)))
    body = join([top, element("nav", *links, aria_label="Sections"), element("main", *sections.values())])
    return document(f"{run.name}: EIGEN", body, page_data(run), script="page.js")


def status(run: Run) -> str:
    """How far a run is, in words."""
    what = "search" if run.is_search else "training of a given network"
    about = f"{what.capitalize()} on {run.settings.get('dataset', 'unknown data')}"
    if run.result is None:
        generations = len({each.generation for each in run.individuals})
        done = (
            f" {generations} {'generation is' if generations == 1 else 'generations are'} recorded."
            if run.is_search
            else ""
        )
        return f"{about}. It has not finished: it is under way, or was interrupted and goes on with its command.{done}"
    if run.result.network is None:
        return f"{about}. It has finished, and no network survived."
    cause = run.result.final_cause
    failed = f" The final training failed, and the weights are those of the search: {cause}." if cause else ""
    return f"{about}. It has finished.{failed}"


def key_numbers(run: Run) -> dict[str, str]:
    """What a run came to, by name, for people."""
    told: dict[str, str | None] = {}
    result, best = run.result, run.best
    if result:
        told["test accuracy"] = None if result.test_accuracy is None else percent(result.test_accuracy)
        mirrored = result.mirrored_test_accuracy
        told["test accuracy, with mirror images"] = None if mirrored is None else percent(mirrored)
    if best and best.accuracy is not None:
        told["best validation accuracy"] = percent(best.accuracy)
        if not run.is_of_accuracy and best.end and best.end.fitness:
            told["its fitness"] = ", ".join(f"{each:.4g}" for each in best.end.fitness)
    if run.shown and run.num_classes:
        counts = {"num_classes": run.num_classes}
        told["parameters"] = format_parameters(count_parameters(run.shown, **counts))
        told["FLOPs an image"] = format_flops(count_flops(run.shown, **counts))
    if run.individuals:
        told["networks trained"] = f"{sum(each.same_as is None for each in run.individuals):,}"
        told["generations"] = f"{len({each.generation for each in run.individuals}):,}"
    flops = [each.training_flops for each in run.individuals]
    if result and result.training_flops:
        told["training FLOPs, all"] = format_flops(result.training_flops.total)
    elif flops and None not in flops:
        told["training FLOPs so far"] = format_flops(sum(filter(None, flops)))
    seconds = sum(each.seconds_compiling + each.seconds_training for each in run.individuals)
    told["compiling and training, all networks"] = format_seconds(seconds) if run.individuals else None
    told["time of the final training"] = (
        format_seconds(result.seconds.final) if result and result.seconds.final else None
    )
    told["seed"] = str(run.settings["seed"]) if "seed" in run.settings else None
    return {name: value for name, value in told.items() if value is not None}


def _overview(run: Run) -> Markup:
    notes = [element("p", note, class_="note") for note in run.notes]
    return section("overview", "At a glance", facts(key_numbers(run)), *notes)


def _progress(run: Run) -> Markup:
    caption = f"The best {run.fitness} so far, and every network where it was measured last"
    phases = summarise_phases(run.individuals)
    return section("progress", "Progress", chart("progress-chart", caption), table(_phases(run, phases)))


def _phases(run: Run, phases: tuple[PhaseSummary, ...]) -> Table:
    unit = Unit.ACCURACY if run.is_of_accuracy else Unit.NUMBER
    columns = (
        Column(heading="phase"),
        *(Column(heading=each, unit=Unit.COUNT) for each in ("individuals", "trained", "extinct", "failed")),
        Column(heading=f"best {run.fitness}", unit=unit),
        Column(heading="training FLOPs", unit=Unit.FLOPS),
        Column(heading="time", unit=Unit.SECONDS),
    )
    return Table(caption="The phases", columns=columns, rows=tuple(_phase(each) for each in phases))


def _phase(phase: PhaseSummary) -> tuple[Cell, ...]:
    fates = collections.Counter(each.fate for each in phase.individuals)
    flops = [each.training_flops for each in phase.individuals]
    best = phase.best.end.fitness if phase.best and phase.best.end else None
    return (
        phase_name(phase.phase),
        *map(_count, (len(phase.individuals), phase.trained, fates[Fate.EXTINCT], fates[Fate.FAILED])),
        Shared(value=best[0]) if best else "none",
        "not recorded" if None in flops else Shared(value=sum(filter(None, flops))),
        Shared(value=phase.seconds),
    )


def _count(number: int) -> Cell:
    return Shared(value=number)


def _tree() -> Markup:
    hint = (
        "Generations stand side by side; a line leads from a parent to its child. Choose an individual by a click"
        " or by arrow keys to see its ancestors, its network and its learning curve."
    )
    key = element("ul", id_="fates", class_="legend")
    shown = element("section", id_="individual", aria_label="The individual that is chosen")
    everyone = element("details", element("summary", "All individuals as a table"), element("div"), id_="everyone")
    plot = scrollable(element("div", id_="tree-plot"), "Family tree")
    return section("tree", "Family tree", element("p", hint, class_="hint"), key, plot, shown, everyone)


def _costs() -> Markup:
    caption = (
        "Validation accuracy against what networks cost, of all that were measured to the end, and the Pareto front"
    )
    return section("costs", "Accuracy and costs", chart("costs-chart", caption))


def _landmarks(run: Run) -> Markup:
    early = [f"T{number}" for number in range(1, len(run.steps))]
    parts: list[Markup] = []
    if early:
        told = "What networks reached at each early landmark, and the threshold that they had to meet there"
        agreement = "What networks had at an early landmark, and what they came to in the end"
        charts = chart("thresholds-chart", told), chart("agreement-chart", agreement)
        parts.append(element("div", *charts, class_="pair"))
    else:
        parts.append(
            element("p", "All networks are measured once, at the end; nobody goes extinct early.", class_="note")
        )
    try:
        parts += map(table, study_landmarks({run.name: run.individuals}).values())
    except ReportError as error:
        parts.append(element("p", f"The rank agreement cannot be told yet: {error}.", class_="note"))
    failures = collections.Counter(each.cause for each in run.individuals if each.cause)
    if failures:
        columns = Column(heading="why networks failed"), Column(heading="individuals", unit=Unit.COUNT)
        rows = tuple((cause, _count(count)) for cause, count in failures.most_common())
        parts.append(table(Table(caption="Failures", columns=columns, rows=rows)))
    heading = "Landmarks: did extinction take the right ones?" if early else "What ranks networks"
    return section("landmarks", heading, *parts)


def _network(run: Run) -> Markup:
    heading = "The network found" if run.is_search else "The network"
    if run.result is None and run.is_search:
        heading = "The best network so far"
    which = f"Individual {run.best.reference}. " if run.best else ""
    size = f" {TIMES} ".join(map(str, run.shown.input_shape)) if run.shown else ""
    text = element("p", f"{which}It takes images of {size} and tells {run.num_classes or 'unknown'} classes apart.")
    return section("network", heading, text, element("div", id_="network-plot"))


def _settings(run: Run) -> Markup:
    parts: list[Markup] = []
    if run.command:
        words = (part for word in run.command.split(" ") for part in (element("span", word), " "))
        code = element("pre", element("code", *words), tabindex=0)
        parts += [element("p", "The command that makes it again:"), code]
    for heading, values in (
        ("Settings", run.settings),
        ("Versions", run.versions),
        ("Machine", run.machine),
        ("Folders", run.folders),
    ):
        if values:
            parts.append(_values(heading, values))
    return section("settings", "Settings, versions, machine", *parts)


def _values(heading: str, values: Mapping[str, Any]) -> Markup:
    rows = [[element("th", name, scope="row"), element("td", shown(value))] for name, value in values.items()]
    return element("details", element("summary", heading), grid(heading, (), rows, class_="values"))


def shown(value: Any) -> str:
    """A setting for people."""
    if isinstance(value, float):
        return f"{value:.12g}"
    return value if isinstance(value, str) else json.dumps(value)
