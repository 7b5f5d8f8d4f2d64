"""The command that draws: which pictures it writes, and what it says of what it cannot draw."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from commands_data import found, refused
from report_data import reached

from eigen_jax import lineage
from eigen_jax.architecture import Architecture, Layer, count_parameters, to_json
from eigen_jax.lineage import Fate, Individual, Reference
from eigen_jax.store.run_files import write_settings
from experiments.draw import main

CONV = Layer(op="conv", inputs=(-1,), channels=16, kernel=3, stride=1)
ONE = Architecture(input_shape=(8, 8, 1), layers=(CONV,))
TWO = Architecture(input_shape=(8, 8, 1), layers=(CONV, dataclasses.replace(CONV, inputs=(0,))))


def individual(generation: int, phase: str, architecture: Architecture, fitness: float, **fields: Any) -> Individual:
    return Individual(
        generation=generation,
        index=0,
        phase=phase,
        operators=None,
        architecture=architecture,
        parameters=count_parameters(architecture, num_classes=7),
        flops=1,
        landmarks=reached(fitness),
        test_accuracy=fitness,
        fate=Fate.PARENT,
        **fields,
    )


FIRST = Reference(generation=0, index=0)
RECORD = (
    individual(0, "primary", ONE, 0.5, parents=()),
    individual(1, "duplication", TWO, 0.75, parents=(FIRST,), repeats=(2, 1, 1, 1)),
)
SAME = individual(1, "duplication", ONE, 0.75, parents=(FIRST,), repeats=(1, 1, 1, 1))


def write_run(folder: Path, best: Individual | None, record: tuple[Individual, ...] = RECORD) -> Path:
    result: dict[str, Any] = dict.fromkeys(("validation_accuracy", "search_test_accuracy", "test_accuracy", "mimicry"))
    result |= {"schema_version": 2, "generations": 2, "trained": 2, "network": best and found(best)}
    result |= {"seconds": {"search": 1.0, "final": 1.0}}
    write_settings(folder, {"settings": {}})
    lineage.append(folder / "lineage.jsonl", record)
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def test_a_genome_is_drawn_beside_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    genome = tmp_path / "genome.json"
    genome.write_text(to_json(TWO))
    assert main([str(genome), "--num-classes", "3"]) == 0
    png, svg = tmp_path / "genome.png", tmp_path / "genome.svg"
    assert capsys.readouterr().out == f"{png}\n{svg}\n"
    assert "3 classes" in svg.read_text()
    assert png.stat().st_size > 0


def test_a_genome_is_drawn_where_asked(tmp_path: Path) -> None:
    genome = tmp_path / "genome.json"
    genome.write_text(to_json(ONE))
    assert main([str(genome), "--output", str(tmp_path / "new" / "net.png")]) == 0
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["net.png", "net.svg"]


@pytest.mark.parametrize(
    ("best", "names"),
    [
        (None, ["progress"]),
        (RECORD[0], ["network", "pareto", "progress"]),
        (RECORD[1], ["duplication", "network", "pareto", "progress"]),
    ],
    ids=["nothing survived", "by mutation", "by duplication"],
)
def test_a_run_is_drawn_into_it(tmp_path: Path, best: Individual | None, names: list[str]) -> None:
    run = write_run(tmp_path, best)
    assert main([str(run)]) == 0
    pictures = run / "pictures"
    assert sorted(path.name for path in pictures.iterdir()) == [f"{n}.{end}" for n in names for end in ("png", "svg")]
    if best:
        # The record alone tells the number of classes.
        assert "7 classes" in (pictures / "network.svg").read_text()
        assert "Pareto front" in (pictures / "pareto.svg").read_text()
    if "duplication" in names:
        assert f"{tmp_path.name}: individual 1.0" in (pictures / "duplication.svg").read_text()


def test_who_repeats_no_block_is_drawn_as_no_duplicate(tmp_path: Path) -> None:
    assert main([str(write_run(tmp_path, SAME, (RECORD[0], SAME)))]) == 0
    assert {path.stem for path in (tmp_path / "pictures").iterdir()} == {"network", "pareto", "progress"}


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda folder: None, "no such"),
        (lambda folder: folder.mkdir(), "is no run folder: it has no lineage.jsonl"),
        (lambda folder: (folder.mkdir(), (folder / "photo").write_text("")), "is no run folder"),
        (lambda folder: folder.write_text("{"), "not valid JSON"),
        (lambda folder: folder.write_bytes(b"\xff"), "it is no text"),
    ],
    ids=["absent", "empty", "foreign", "malformed", "binary"],
)
def test_what_cannot_be_drawn_gets_one_line_and_exit_code_2(tmp_path, capsys, make, part):
    make(tmp_path / "source")
    line = refused(capsys, main, str(tmp_path / "source"))
    assert part in line.lower() or part in line


def test_a_result_that_names_no_individual_of_the_record_is_refused(tmp_path, capsys):
    run = write_run(tmp_path, individual(5, "primary", ONE, 0.5, parents=()))
    assert "no individual 5.0" in refused(capsys, main, str(run))


def test_a_wrong_command_line_gets_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, main, "x", "--num-classes", "0") == (
        "--num-classes: is '0'; it must be a whole number of at least 1; --help explains every setting"
    )
