"""Tables: numbers against NumPy's, the CSV as the csv module reads it, the Markdown by its structure."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from eigen_jax.report import (
    NOT_COMPARABLE,
    NOT_MEASURED,
    Column,
    Counted,
    Measured,
    Quoted,
    ReportError,
    Shared,
    Table,
    Unit,
    gain,
    measured,
    paper_cell,
    provenance_notes,
    to_csv,
    to_markdown,
    write_table,
)
from eigen_jax.report.tables import format_cell

ACCURACIES = {0: 0.9138888888888889, 1: 0.8972222222222223, 5: 0.9305555555555556}
SIZES = {0: 42_858, 1: 61_002, 5: 28_890}
COLUMNS = (
    Column(heading="phase"),
    Column(heading="test accuracy", unit=Unit.ACCURACY),
    Column(heading="test accuracy, paper", unit=Unit.ACCURACY),
    Column(heading="parameters", unit=Unit.PARAMETERS),
    Column(heading="search", unit=Unit.SECONDS),
)
TABLE = Table(
    caption="Table 2, digits",
    columns=COLUMNS,
    rows=(
        ("primary", Measured(values=ACCURACIES), Quoted(value=0.933), Measured(values=SIZES), NOT_MEASURED),
        ("both | more", Measured(values={0: 0.5}), NOT_COMPARABLE, NOT_MEASURED, Measured(values={0: 7_261.5})),
        ("another system", NOT_MEASURED, NOT_COMPARABLE, NOT_MEASURED, NOT_MEASURED),
    ),
    notes=("Seeds: 0, 1, 5",),
)


def test_mean_and_deviation_are_numpys() -> None:
    cell = Measured(values=ACCURACIES)
    values = np.array(list(ACCURACIES.values()))
    assert cell.mean == pytest.approx(np.mean(values), rel=1e-15)
    assert cell.deviation == pytest.approx(np.std(values, ddof=1), rel=1e-14)
    assert Measured(values={3: 0.25}).deviation is None


def test_a_csv_has_a_line_a_seed_and_the_aggregates_in_full() -> None:
    lines = list(csv.DictReader(io.StringIO(to_csv(TABLE))))
    accuracy, paper = "test accuracy (fraction)", "test accuracy, paper (fraction)"
    assert list(lines[0]) == ["statistic", "seed", "phase", accuracy, paper, "parameters", "search (s)"]
    first, second, third = ([line for line in lines if line["phase"] == str(row[0])] for row in TABLE.rows)
    assert [line["statistic"] for line in first] == ["value", "value", "value", "mean", "sd", "n", "quoted"]
    assert [line["seed"] for line in first] == ["0", "1", "5", "", "", "", ""]
    assert [float(line[accuracy]) for line in first[:3]] == list(ACCURACIES.values())
    assert [line["parameters"] for line in first[:3]] == ["42858", "61002", "28890"]
    for name, values in ((accuracy, ACCURACIES), ("parameters", SIZES)):
        assert float(first[3][name]) == pytest.approx(np.mean(list(values.values())), rel=1e-15)
        assert float(first[4][name]) == pytest.approx(np.std(list(values.values()), ddof=1), rel=1e-14)
        assert first[5][name] == "3"
    assert [line[paper] for line in first] == [""] * 6 + ["0.933"]
    assert {line["search (s)"] for line in first} == {NOT_MEASURED}
    assert [line["statistic"] for line in second] == ["value", "mean", "n"]
    assert [line["search (s)"] for line in second] == ["7261.5", "7261.5", "1"]
    assert [line["statistic"] for line in third] == ["none"]
    one = Measured(values={0: np.float64(0.1)})
    table = Table(caption="", columns=(Column(heading="x", unit=Unit.COUNT),), rows=((one,),))
    assert to_csv(table).splitlines()[1] == "value,0,0.1", "not as NumPy writes it"


def test_markdown_is_an_aligned_table_between_caption_and_notes() -> None:
    caption, table, notes = to_markdown(TABLE).split("\n\n")
    assert caption == "**Table 2, digits**"
    assert notes == "- Seeds: 0, 1, 5\n"
    lines = table.split("\n")
    assert len({len(line) for line in lines}) == 1
    rows = [[cell.strip() for cell in line.replace("\\|", "").strip("|").split("|")] for line in lines]
    assert rows[0] == ["phase", "test accuracy, %", "test accuracy, paper, %", "parameters", "search"]
    assert [cell[-1] for cell in rows[1]] == ["-", ":", ":", ":", ":"]
    # By hand: a mean of 91.3889 % and 44,250; deviations of 1.6667 points and 16,101.26.
    assert rows[2] == ["primary", "91.39 ± 1.67 (n = 3)", "93.3", "44,250 ± 16,101 (n = 3)", "not measured"]
    assert rows[3] == ["both  more", "50.0 (n = 1)", "not comparable", "not measured", "2.0 h (n = 1)"]


@pytest.mark.parametrize(
    ("values", "unit", "text"),
    [
        ([2_600_000], Unit.PARAMETERS, "2.6 M (n = 1)"),
        ([2_600_000, 2_800_000], Unit.PARAMETERS, "2.7 ± 0.1 M (n = 2)"),
        ([999_999], Unit.PARAMETERS, "999,999 (n = 1)"),
        ([1_076_544], Unit.FLOPS, "1.1 M (n = 1)"),
        ([2.345e9], Unit.FLOPS, "2.3 G (n = 1)"),
        ([59.04], Unit.SECONDS, "59.0 s (n = 1)"),
        ([120], Unit.SECONDS, "2.0 min (n = 1)"),
        ([87.4e-6], Unit.LATENCY, "87.4 µs (n = 1)"),
        ([5.65e-3, 5.75e-3], Unit.LATENCY, "5.7 ± 0.1 ms (n = 2)"),
        ([1.5], Unit.LATENCY, "1.5 s (n = 1)"),
        ([7_199], Unit.SECONDS, "120.0 min (n = 1)"),
        ([9_000, 10_800], Unit.SECONDS, "2.8 ± 0.4 h (n = 2)"),
        ([30], Unit.COUNT, "30 (n = 1)"),
        ([30, 31], Unit.COUNT, "30.5 ± 0.7 (n = 2)"),
        ([0.0125], Unit.GAIN, "+1.2 (n = 1)"),
        ([-0.01, -0.02], Unit.GAIN, "-1.50 ± 0.71 (n = 2)"),
        ([0.987], Unit.ACCURACY, "98.7 (n = 1)"),
    ],
)
def test_numbers_are_shown_in_their_units(values: list[float], unit: Unit, text: str) -> None:
    assert format_cell(Measured(values=dict(enumerate(values))), unit) == text


def test_what_all_seeds_share_is_one_number_without_spread() -> None:
    columns = (Column(heading="x"), Column(heading="teacher", unit=Unit.SECONDS), Column(heading="n", unit=Unit.COUNT))
    table = Table(caption="", columns=columns, rows=(("a", Shared(value=25.44), Measured(values={0: 1, 1: 2})),))
    assert "25.4 s, once for all seeds" in to_markdown(table)
    lines = list(csv.DictReader(io.StringIO(to_csv(table))))
    assert [(each["statistic"], each["teacher (s)"]) for each in lines] == [
        *(("value", ""), ("value", ""), ("mean", ""), ("sd", ""), ("n", ""), ("shared", "25.44"))
    ]


def test_seeds_without_a_value_are_left_out_and_a_gain_is_of_each_seed_over_itself() -> None:
    assert measured({0: 0.5, 1: None, 2: 0.75}) == Measured(values={0: 0.5, 2: 0.75})
    assert measured({0: None}) == measured({}) == NOT_MEASURED
    assert measured({0: None}, absent="none") == "none"
    cell = gain({0: 0.75, 1: 0.5, 2: None, 3: 0.9}, {1: 0.25, 0: 0.5, 2: 0.1, 4: 0.3})
    assert cell == Measured(values={0: 0.25, 1: 0.25})
    assert gain({0: 0.5}, {1: 0.5}) == NOT_MEASURED


def test_a_figure_of_the_paper_is_withheld_where_it_cannot_be_compared() -> None:
    assert paper_cell(0.946, comparable=True) == Quoted(value=0.946)
    assert paper_cell(0.946, comparable=False) == paper_cell(None, comparable=False) == NOT_COMPARABLE
    assert paper_cell(None, comparable=True) == "not in the paper"


def test_the_notes_tell_where_the_numbers_came_from() -> None:
    notes = provenance_notes(
        command="python -m experiments.table2 --dataset digits",
        machine="AMD EPYC, 2 cores",
        versions={"jax": "0.10.2", "flax": "0.12.8"},
        seeds=(0, 1, 2),
        compute={"search": 5_400.0, "final": 45.0, "teacher": None},
    )
    assert notes == (
        "Command: `python -m experiments.table2 --dataset digits`",
        "Machine: AMD EPYC, 2 cores",
        "Versions: jax 0.10.2, flax 0.12.8",
        "Seeds: 0, 1, 2",
        "Compute, all seeds together: search 90.0 min, final 45.0 s, teacher not measured",
    )


def test_both_files_are_written_as_a_whole_or_it_is_told(tmp_path: Path) -> None:
    stem = tmp_path / "new" / "table2.digits"
    paths = write_table(TABLE, stem)
    assert paths == (tmp_path / "new" / "table2.digits.csv", tmp_path / "new" / "table2.digits.md")
    assert [path.read_text(encoding="utf-8") for path in paths] == [to_csv(TABLE), to_markdown(TABLE)]
    assert sorted(stem.parent.iterdir()) == sorted(paths)
    with pytest.raises(ReportError, match=r"^cannot write [^\n]*$"):
        write_table(TABLE, paths[0] / "table")


@pytest.mark.parametrize("values", [{}, {0: float("nan")}, {0: float("inf")}, {0: True}, {0: "0.5"}])
def test_a_measurement_must_have_finite_numbers(values: dict) -> None:
    with pytest.raises(ReportError):
        Measured(values=values)


def test_a_table_must_have_a_cell_a_column_and_units_for_numbers() -> None:
    with pytest.raises(ReportError, match="row 0 has 1 cells; the table has 5 columns"):
        Table(caption="", columns=COLUMNS, rows=(("a",),))
    with pytest.raises(ReportError, match="'phase'"):
        Table(caption="", columns=COLUMNS[:1], rows=((Quoted(value=1.0),),))


def test_what_is_counted_has_no_spread_and_a_line_of_its_own() -> None:
    columns = (
        Column(heading="x"),
        Column(heading="parameters", unit=Unit.PARAMETERS),
        Column(heading="n", unit=Unit.COUNT),
    )
    table = Table(caption="", columns=columns, rows=(("a", Counted(value=17_046_760), Measured(values={0: 1})),))
    assert to_csv(table).splitlines()[1:] == [
        *("value,0,a,,1", "mean,,a,,1.0", "n,,a,,1"),
        "counted,,a,17046760,",
    ]
    assert "| 17.0 M |" in to_markdown(table).replace("  ", "")
