"""The command that writes the page: what it reads of run folders of all ages, and what it says of what it cannot."""

import tarfile
from pathlib import Path

import pytest
from commands_data import edit, leave_process_alone, refused, trained_network
from test_older_runs import RUNS
from test_report_page import data_of, sections_of

from eigen_jax.processor import ImageProcessor, save_processor
from experiments.report import main, read_run

own_settings = pytest.fixture(leave_process_alone, autouse=True)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    with tarfile.open(RUNS) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def page_of(*argv: str | Path) -> str:
    """The page that the command writes, where it says."""
    output = Path(argv[-1])
    assert main(list(map(str, argv))) == 0
    return output.read_text(encoding="utf-8")


@pytest.mark.parametrize("age", ["", "oldest-"])
def test_a_finished_search_of_any_age_has_a_page_with_its_test_images(runs, age, capsys):
    run, cache = runs / f"{age}finished" / "search", f"--cache-dir={runs / 'cache'}"
    assert main([str(run), cache]) == 0
    assert capsys.readouterr().out == f"{run / 'report.html'}\n"
    page = (run / "report.html").read_text(encoding="utf-8")
    assert sections_of(page) == [
        *("overview", "progress", "tree", "costs", "landmarks", "network", "confusion", "mistakes", "settings")
    ]
    data = data_of(page)
    assert len(data["individuals"]) == 8
    assert sum(map(sum, data["confusion"])) == 360
    # Of 360, 12.2 % are right, as `evaluate` says.
    assert sum(row[place] for place, row in enumerate(data["confusion"])) == 44
    assert page.count('src="data:image/png;base64,') == 24
    assert "experiments.digits</span> <span>--preset</span> <span>smoke" in page


@pytest.mark.parametrize("age", ["", "oldest-"])
def test_an_interrupted_search_has_a_page_without_them(runs, age, tmp_path):
    page = page_of(runs / f"{age}interrupted" / "search", "--output", tmp_path / "pages" / "page.html")
    assert "has not finished" in page
    assert "confusion" not in sections_of(page)


def test_the_training_of_a_given_network_has_a_page(tmp_path_factory, tmp_path):
    trained = trained_network(tmp_path_factory)
    cache = f"--cache-dir={tmp_path / 'cache'}"
    page = page_of(trained / "run-dir", cache, "--output", tmp_path / "page.html")
    assert sections_of(page) == ["overview", "network", "confusion", "mistakes", "settings"]
    assert "experiments.retrain" in page


def test_test_images_are_left_out_with_a_word_where_the_data_are_others(runs, tmp_path):
    run = runs / "finished" / "search"
    edit(run / "settings.json", lambda content: content["settings"].update(data_fingerprint="other"))
    page = page_of(run, f"--cache-dir={tmp_path / 'cache'}", "--output", tmp_path / "page.html")
    assert "test images is left out: " in page
    assert "was made with other data" in page
    assert "mistakes" not in sections_of(page)


def test_confusion_and_names_of_classes_are_those_of_the_run(runs, tmp_path):
    run = runs / "finished" / "search"
    matrix = [[1 if row == column else 0 for column in range(10)] for row in range(10)]
    edit(run / "result.json", lambda content: content.update(confusion=matrix))
    names = tuple(f"digit {i}" for i in range(10))
    processor = ImageProcessor(dataset="digits", image_shape=(8, 8, 1), class_names=names, preprocessor=None)
    save_processor(run / "network", processor)
    data = data_of(page_of(run, f"--cache-dir={tmp_path / 'cache'}", "--output", tmp_path / "page.html"))
    assert data["confusion"] == matrix
    assert data["classes"] == list(names)


def test_a_search_from_python_has_a_page_that_says_what_is_missing(runs, tmp_path):
    run = runs / "finished" / "search"

    def leave(content):
        settings = content["settings"]
        content["settings"] = {name: settings[name] for name in ("dataset", "data_fingerprint")} | {"seed": 2, "t1": 4}

    edit(run / "settings.json", leave)
    page = page_of(run, f"--cache-dir={tmp_path / 'cache'}", "--output", tmp_path / "page.html")
    assert "does not say how the data were prepared" in page
    assert "is not enough for a command that makes it again" in page
    assert '<th scope="row">t1</th><td>4</td>' in page


def test_several_runs_are_compared(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    finished, interrupted = runs / "finished" / "search", runs / "interrupted" / "search"
    assert main([str(finished), str(interrupted)]) == 0
    data = data_of((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert [each["name"] for each in data["runs"]] == ["finished/search", "interrupted/search"]


def test_a_search_that_has_just_begun_has_a_page(runs, tmp_path):
    run = runs / "interrupted" / "search"
    (run / "lineage.jsonl").unlink()
    assert sections_of(page_of(run, "--output", tmp_path / "page.html")) == ["overview", "settings"]
    assert read_run(run).notes[0].startswith("No generation is recorded")


def test_what_has_no_page_gets_one_line(runs, tmp_path, capsys):
    assert "absent is no run folder" in refused(capsys, main, str(tmp_path / "absent"))
    run = runs / "finished" / "search"
    wrong = tmp_path / "file" / "page.html"
    wrong.parent.write_text("")
    assert f"cannot write {wrong}: " in refused(capsys, main, str(runs / "interrupted" / "search"), f"--output={wrong}")
    edit(run / "result.json", lambda content: content.update(confusion=[[1, 2], [3]]))
    assert "is damaged (confusion is no square)" in refused(capsys, main, str(run))
    edit(run / "result.json", lambda content: content.update(confusion=[[-1]]))
    assert "result.json is damaged (" in refused(capsys, main, str(run))
    edit(run / "result.json", lambda content: content.pop("confusion"))
    (run / "lineage.jsonl").write_text("{}\n")
    assert "lineage.jsonl, line 1" in refused(capsys, main, str(run))
    assert not (run / "report.html").exists()
