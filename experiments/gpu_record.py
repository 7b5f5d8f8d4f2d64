"""Makes the search of the preset `gpu` and the benchmark of training steps, and writes one record of both.

    python -m experiments.gpu_record --dataset cifar10 --data-dir PATH
    python -m experiments.gpu_record --dataset cifar10 --stop-after 540    # saves and ends; the same command goes on

The settings are those of a search; another --preset can be named. Killed or stopped, the same command goes on. Beside
the run folder, RUN_DIR-record then holds record.json and record.md: versions, device, settings, times over all parts of
the run, accuracies, the network, the phases, and training steps beside PyTorch's, where that is installed.
"""

import contextlib
import dataclasses
import math
import multiprocessing
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import jax

from eigen_jax.errors import EigenError
from eigen_jax.report import summary
from eigen_jax.store import files
from eigen_jax.store.locks import StoppedError
from eigen_jax.store.records import RecordFile, Seconds, as_json, to_fields, write_json
from eigen_jax.store.run_files import RESULT, read_settings
from experiments.benchmark import ours, steps
from experiments.benchmark.measuring import Plan, Row, table
from experiments.command_line import Parser, parse, positive
from experiments.commands import command, held_off, show
from experiments.machine import describe_machine, describe_versions, has_gpu
from experiments.process import configure, keep_freed_memory, worker_environments
from experiments.progress import duration, percent
from experiments.runner import search
from experiments.settings import Settings

_PROGRAM = "python -m experiments.gpu_record"
_ABOUT = (
    "Makes a search and the benchmark of training steps, and writes one record of both. --stop-after SECONDS: saves"
)
_ABOUT += " and ends after so many; the same command goes on."
_TICK = 5.0  # seconds between two notes of the time
_HARDWARE = "hardware"


class RecordError(EigenError):
    """A folder that cannot hold a record, or of which a file is damaged."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parts:
    """The content of parts.json."""

    seconds: tuple[Seconds, ...] = ()  # on the wall, of each start of the command that searched


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """The content of benchmark.json, which is written as its parts are measured."""

    peak: dict[str, float] = dataclasses.field(default_factory=dict)  # FLOP/s by dtype
    rows: dict[str, list[Row]] = dataclasses.field(default_factory=dict)  # by network, and of the hardware


_ADVICE = "remove the folder, which loses the times before, or choose another --run-dir"
_OF_RECORD: Any = {"place": "record's folder", "schema_version": 1, "error": RecordError, "advice": _ADVICE}
PARTS = RecordFile(name="parts.json", kind=Parts, **_OF_RECORD)
MEASURED = RecordFile(name="benchmark.json", kind=Measured, **_OF_RECORD)


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Searches, measures and writes the record, each where it is not done yet."""
    began, argv = time.monotonic(), sys.argv[1:] if argv is None else argv
    parser = Parser(add_help=False)
    parser.add_argument("--stop-after", type=positive)
    for name, default in (("--dataset", "cifar10"), ("--preset", "gpu")):
        parser.add_argument(name, default=default)
    given, rest = parser.parse_known_args(argv)
    settings = parse([f"--dataset={given.dataset}", f"--preset={given.preset}", *rest], program=_PROGRAM, about=_ABOUT)
    stop_at = math.inf if given.stop_after is None else began + given.stop_after
    folder = settings.run_dir.with_name(f"{settings.run_dir.name}-record")
    with PARTS.opened(folder, patience=0):
        if RESULT.is_in(settings.run_dir):
            then = read_settings(settings.run_dir)
            then.check_same(as_json(settings.outcome()), path=settings.run_dir, partly=True)
            settings = configure(settings)
        else:
            with _timed(folder, began):
                settings = configure(settings)
                search(settings, stop_at=stop_at)
        told = f"{_PROGRAM} {shlex.join(argv)}"
        # Written at once, and again with every network that is measured: a benchmark that is cut off has said so far.
        text = _write(folder, settings, told, MEASURED.read(folder) if MEASURED.is_in(folder) else Measured())
        for measured in _measure(folder, stop_at):
            text = _write(folder, settings, told, measured)
    show(f"{text}\n{folder / 'record.md'}")


def _write(folder: Path, settings: Settings, told: str, measured: Measured) -> str:
    """Writes the record, and gives it as Markdown."""
    record = _describe(settings, PARTS.read(folder), measured) | {"command": told}
    text = _as_text(record, measured)
    with files.told_as(RecordError, folder):
        write_json(folder / "record.json", record)
        files.write(folder / "record.md", text)
    return text


@contextlib.contextmanager
def _timed(folder: Path, began: float) -> Iterator[None]:
    """Notes every few seconds how long this part has taken, so that a kill loses no more than that."""
    before, ended = PARTS.read(folder) if PARTS.is_in(folder) else Parts(), threading.Event()

    def note() -> None:
        PARTS.write(folder, Parts(seconds=(*before.seconds, time.monotonic() - began)))

    def watch() -> None:
        while not ended.wait(_TICK):
            with contextlib.suppress(RecordError):  # which the last note tells
                note()

    note()
    watcher = threading.Thread(target=watch, name="parts", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        note()


def _measure(folder: Path, stop_at: float) -> Iterator[Measured]:
    """Measures the training steps of the networks that are not measured yet; raises Interrupted between two of them."""
    measured = MEASURED.read(folder) if MEASURED.is_in(folder) else Measured()
    plan = Plan() if has_gpu() else Plan(quick=True, rounds=5, seconds=2)
    with held_off(stop_at) as should_stop:
        for name in (_HARDWARE, *ours.benchmark_architectures()):
            if name in measured.rows:
                continue
            if should_stop():
                raise StoppedError("the benchmark was stopped between two networks")
            print(f"Training steps: {name}", flush=True)
            peak, rows = _in_own_process(_measure_one, name, measured.peak, plan)
            measured = Measured(peak=peak, rows={**measured.rows, name: rows})
            MEASURED.write(folder, measured)
            yield measured


def _measure_one(name: str, peak: Mapping[Any, float], plan: Plan) -> tuple[Mapping[Any, float], list[Row]]:
    if name == _HARDWARE:
        return steps.measure_peak(plan)
    return peak, list(steps.measure_network(name, ours.benchmark_architectures()[name], peak, plan))


def _in_own_process(function: Callable, *arguments: Any) -> Any:
    """Calls it where nothing was compiled before, and nothing is found that was."""
    spawn = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(1, mp_context=spawn, initializer=_set_up) as process:
            return process.submit(function, *arguments).result()
    except BrokenProcessPool as error:
        raise RecordError(f"the benchmark's process ended ({error}); the same command goes on") from None


def _set_up() -> None:
    keep_freed_memory()
    jax.config.update("jax_enable_compilation_cache", False)


def _describe(settings: Settings, parts: Parts, measured: Measured) -> dict[str, Any]:
    """What record.json says, but for the command."""
    result, individuals = summary.read_result(settings.run_dir), summary.read_record(settings.run_dir)
    workers = 1 if settings.machine.executor == "inline" else settings.machine.workers
    workers = workers or len(worker_environments(settings))
    seconds = {name: math.fsum(getattr(each, f"seconds_{name}") for each in individuals) for name in _OF_INDIVIDUALS}
    seconds |= {"wall": math.fsum(parts.seconds), "final_training": result.seconds.final or 0.0}
    phases = [
        {
            "phase": each.phase,
            "individuals": len(each.individuals),
            "trained": each.trained,
            "survived": sum(own.end is not None for own in each.individuals),
            "best, %": percent(each.best.accuracy if each.best else None),
            "its parameters": each.best.parameters if each.best else None,
        }
        for each in summary.summarise_phases(individuals)
    ]
    return {
        "machine": describe_machine() | {"runtime": jax.devices()[0].client.platform_version},
        "versions": describe_versions(),
        "settings": as_json(settings.outcome() | {"machine": dataclasses.asdict(settings.machine)}),
        "seconds": seconds,
        "seconds_of_parts": list(parts.seconds),
        "workers": workers,
        # Of a worker, on average; the final training, compiling included, is one process's.
        "share_training": (seconds["training"] / workers + seconds["final_training"]) / seconds["wall"],
        "result": to_fields(result),
        "phases": phases,
        "steps": [dataclasses.asdict(row) for rows in measured.rows.values() for row in rows],
    }


_OF_INDIVIDUALS = ("training", "compiling")  # seconds that a record has of each


def _as_text(record: Mapping[str, Any], measured: Measured) -> str:
    """The record as Markdown."""
    result, seconds, parts = record["result"], record["seconds"], record["seconds_of_parts"]
    flops, network = result.get("training_flops"), result["network"] or {}
    facts = {
        "test accuracy": f"{percent(result['test_accuracy'])} %",
        "validation accuracy in the search": f"{percent(result['validation_accuracy'])} %",
        "parameters": f"{network.get('parameters', 0):,}",
        "FLOPs an image": f"{network.get('flops', 0):,}",
        "networks trained": f"{result['trained']} in {result['generations']} generations",
        "training FLOPs": f"{flops['total']:.3g}" if flops else "not recorded",
        "wall time, final training included": f"{duration(seconds['wall'])}; parts of the run: {len(parts)}",
        "in training steps": f"{percent(record['share_training'])} % of it, of each of {record['workers']} workers",
        "final training": duration(seconds["final_training"]),
        **{f"{name}, all workers": duration(seconds[name]) for name in _OF_INDIVIDUALS},
        **record["machine"],
        **record["versions"],
    }
    rows = [row for rows in measured.rows.values() for row in rows]
    networks = dict.fromkeys(row.what for row in rows if row not in measured.rows.get(_HARDWARE, ()))
    best = [_best(what, [row for row in rows if row.what == what]) for what in networks]
    tables = [
        _markdown(["", ""], [[name, " ".join(str(value).split())] for name, value in facts.items()]),
        _markdown(list(record["phases"][0]), [list(map(str, phase.values())) for phase in record["phases"]]),
        _markdown(["training step", "PyTorch's best", "ours", "ratio"], best),
    ]
    told = f"Command: `{record['command']}`. record.json holds all settings.\n"
    return "\n\n".join(["# A search, and training steps beside PyTorch's", *tables, f"```\n{table(rows)}\n```", told])


def _best(what: str, rows: Sequence[Row]) -> list[str]:
    """The fastest way of PyTorch to take a step of a network, the fastest of ours, and the ratio of their times."""
    timed = sorted((row.values["ms"], row.method) for row in rows if "ms" in row.values)
    found = [[each for each in timed if each[1].startswith(who)][:1] for who in (("PyTorch", "torch.compile"), "ours")]
    cells = [f"{each[0][0]:.3g} ms ({each[0][1]})" if each else "not measured" for each in found]
    theirs, own = found
    return [what, *cells, f"{own[0][0] / theirs[0][0]:.2f}" if own and theirs else "-"]


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows))


if __name__ == "__main__":
    sys.exit(main())
