"""The commands as a user meets them: a whole search, continuing it, and one clear line for bad input."""

import contextlib
import importlib
import io
import json
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest
import requests

import eigen_jax
from eigen_jax import checkpoint, lineage
from eigen_jax.architecture import count_parameters
from eigen_jax.builder import Network
from eigen_jax.data.types import DatasetName
from eigen_jax.files import JSONError
from eigen_jax.lineage import Fate
from eigen_jax.search import load_network
from eigen_jax.teacher import read_teacher
from experiments import evaluate, runner
from experiments.compilation_cache import keep_compiled
from experiments.runner import BAD_INPUT, INTERRUPTED, USER_ERRORS, main

ROOT = Path(__file__).resolve().parents[1]

TINY = (
    *("--executor", "inline", "--preset", "smoke", "--population", "2", "--p", "2", "--capacity", "8"),
    "--seed=25",  # its first children have convolutions, so that there are blocks to duplicate
    *("--t1", "16", "--t2", "16", "--t3", "16", "--decay-steps"),
    *("--primary-steps", "3", "--secondary-steps", "2", "--channels", "4", "8", "--eval-batch-size", "360"),
    *("--max-primary-generations", "1", "--max-secondary-generations", "1", "--final-steps", "4"),
    *("--teacher-growth", "4", "--teacher-epochs", "1", "--teacher-batch-size", "400", "--teacher-views", "center"),
)


CACHE_SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_compilation_cache_max_size",
    "jax_persistent_cache_min_compile_time_secs",
)


@pytest.fixture(autouse=True)
def own_settings(monkeypatch) -> Iterator[None]:
    """Global settings of JAX as they were, and no logging set up, whatever the command does."""
    monkeypatch.setattr(runner, "configure_logging", lambda: None)
    before = cache_settings()
    yield
    for name, value in zip(CACHE_SETTINGS, before, strict=True):
        jax.config.update(name, value)


def cache_settings() -> list:
    return [getattr(jax.config, name) for name in CACHE_SETTINGS]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, str]:
    """The run folder of a whole tiny search, and what it showed."""
    folder, shown = tmp_path_factory.mktemp("search") / "run", io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(shown):
        patch.setattr(runner, "configure_logging", lambda: None)
        patch.setattr(runner, "keep_compiled", lambda cache_dir: None)
        assert main("digits", [*TINY, *places(folder.parent), "--run-dir", str(folder)]) == 0
    return folder, shown.getvalue()


def places(folder: Path) -> list[str]:
    """All folders of a run, in one that is the test's."""
    return [f"--{name}={folder / name}" for name in ("run-dir", "cache-dir", "teacher-dir")]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def complained(capsys, name: DatasetName, *argv: str) -> tuple[str, str]:
    """The line that bad input gets, and what was shown before."""
    capsys.readouterr()
    assert main(name, argv) == BAD_INPUT
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err.removeprefix("error: ").rstrip("\n"), captured.out


def refused(capsys, name: DatasetName, *argv: str) -> str:
    """The line that bad input gets, before anything is shown."""
    line, shown = complained(capsys, name, *argv)
    assert shown == ""
    return line


# --- A whole search --------------------------------------------------------------------------


def test_a_search_leaves_its_record_its_settings_and_its_network(finished):
    folder, shown = finished
    individuals = lineage.read(folder / "lineage.jsonl")
    assert [(each.generation, each.index, each.phase) for each in individuals] == [
        (0, 0, "primary"),
        (0, 1, "primary"),
        (1, 0, "secondary"),
        (1, 1, "secondary"),
        (2, 0, "duplication"),
        (2, 1, "duplication"),
    ]
    content = json.loads((folder / "settings.json").read_text())
    expected = {"seed": 25, "t1": 16, "population": 2, "channels": [4, 8], "momentum": 0.9, "dataset": "digits"}
    assert {name: content["settings"][name] for name in expected} == expected
    assert content["folders"]["teacher_dir"] == str(folder.parent / "teacher-dir")
    assert read_teacher(folder.parent / "teacher-dir").ensemble is not None
    assert content["versions"]["jax"] == jax.__version__
    result = json.loads((folder / "result.json").read_text())
    architecture, variables = load_network(folder)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert parameters == count_parameters(architecture, num_classes=10)
    assert result["mimicry"] == {
        "teacher": content["settings"]["teacher_fingerprint"],
        "weight": 0.9,
        "temperature": 5.0,
    }
    lines = shown.split("\n")
    assert f"test accuracy        {100 * result['test_accuracy']:.1f} %" in lines
    assert f"test accuracy        {100 * result['search_test_accuracy']:.1f} % with the search's weights" in lines
    assert f"parameters           {parameters:,}" in lines
    assert f"run folder           {folder}" in lines


def test_a_search_shows_every_individual_once(finished):
    folder, shown = finished
    rows = [line.split() for line in shown.split("\n")]
    for individual in lineage.read(folder / "lineage.jsonl"):
        name = f"{individual.generation}.{individual.index}"
        (row,) = [row for row in rows if row[:1] == [name] and "to" not in row and "at" not in row]
        assert row[1:3] == [str(len(individual.architecture.layers)), f"{individual.parameters:,}"]
        words = {Fate.PARENT: "parent", Fate.SURVIVED: "survived"}
        assert words.get(individual.fate, "extinct") in row


def test_compiled_programs_are_kept(tmp_path):
    keep_compiled(tmp_path)
    folder, most_bytes, least_seconds = cache_settings()
    assert folder == str(tmp_path / "compiled")
    assert 1 << 20 < most_bytes < 1 << 40
    assert least_seconds == 0


def test_a_cache_folder_that_cannot_be_written_is_a_warning(caplog, tmp_path):
    before = cache_settings()
    (tmp_path / "file").touch()
    keep_compiled(tmp_path / "file" / "cache")
    assert "cannot be written (Not a directory); going on without it" in caplog.text
    assert cache_settings() == before


def test_an_interrupted_search_says_how_to_go_on(capsys, monkeypatch, tmp_path):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run_search", interrupt)
    argv = [*TINY, "--teacher", "none", *places(tmp_path)]
    assert main("digits", argv) == INTERRUPTED
    expected = "interrupted; the same command goes on from what was saved last\n"
    assert capsys.readouterr().err == expected


def test_a_search_in_bfloat16_keeps_float32_and_evaluates_to_the_same_logits(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(runner, "keep_compiled", lambda cache_dir: None)
    monkeypatch.setattr(evaluate, "configure", lambda settings: settings)
    computed_in, apply = set(), Network.apply

    def watched_apply(network, *arguments, **options):
        computed_in.add(jax.numpy.dtype(network.dtype).name)
        return apply(network, *arguments, **options)

    monkeypatch.setattr(Network, "apply", watched_apply)
    # Batches of other sizes than those of the other searches here, so that every program is traced.
    sizes = ("--batch-size", "48", "--eval-batch-size", "240")
    argv = [*TINY, *places(tmp_path), *sizes, "--dtype", "bfloat16", "--teacher-dtype", "bfloat16"]
    assert main("digits", argv) == 0
    assert computed_in == {"bfloat16"}
    folder = tmp_path / "run-dir"
    assert json.loads((folder / "result.json").read_text())["dtype"] == "bfloat16"
    assert read_teacher(tmp_path / "teacher-dir").config.dtype == "bfloat16"
    saved = [
        load_network(folder)[1],
        checkpoint.restore(folder / "checkpoints", "variables"),
        {**checkpoint.restore(folder / "final", "state"), "step": None},
        *(checkpoint.restore(path, "variables") for path in (tmp_path / "teacher-dir").glob("member-*/network")),
    ]
    assert len(saved) == 4
    for tree in saved:
        kept = {
            str(leaf.dtype) for leaf in jax.tree.leaves(tree) if jax.numpy.issubdtype(leaf.dtype, jax.numpy.floating)
        }
        assert kept == {"float32"}
    capsys.readouterr()
    assert evaluate.main([str(folder)]) == 0
    same = "logits               identical to those at the end of the run, to the last bit"
    assert capsys.readouterr().out.splitlines()[-1] == same


# --- Run folders -----------------------------------------------------------------------------


def test_a_run_folder_of_other_settings_is_left_alone(finished, capsys):
    folder, _ = finished
    before = contents(folder)
    argv = [*TINY, *places(folder.parent), "--run-dir", str(folder)]
    line, _ = complained(capsys, "digits", *argv, "--t1", "3", "--q", "2")
    assert line == (
        f"{folder} belongs to a run with other settings: --q was 1 and is now 2, --t1 was 16 and is now 3;"
        " choose another folder"
    )
    line = refused(capsys, "digits", *argv, "--teacher", "none")
    assert line == (
        f"{folder} belongs to a run with other settings: --teacher was 'cache' and is now 'none'; choose another folder"
    )
    assert contents(folder) == before


def test_a_run_folder_that_cannot_be_written(capsys, tmp_path):
    (tmp_path / "file").write_text("mine")
    argv = [*TINY, "--teacher", "none", *places(tmp_path), "--run-dir", str(tmp_path / "file" / "run")]
    line = refused(capsys, "digits", *argv)
    assert line == f"cannot write the run folder {tmp_path}/file/run: Not a directory; choose one that can be written"
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_with_other_files_is_no_run_folder(capsys, tmp_path):
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    line = refused(capsys, "digits", *TINY, "--teacher", "none", *places(tmp_path), "--run-dir", str(folder))
    assert line == f"{folder} holds files but no settings.json, so it is no run folder; choose another"
    assert contents(folder) == {"notes.txt": b"mine"}


# --- Bad settings ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--preset", "smoky"], "there is no preset 'smoky'; did you mean smoke? choose from paper, small, smoke"),
        (["--poplation", "3"], "there is no setting '--poplation'; did you mean --population? --help shows them all"),
        (["--t1", "abc"], "--t1 is 'abc'; it must be a whole number"),
        (["--t1", "0"], "--t1 is 0; it must be at least 1 step"),
        (["--t2", "-5"], "--t2 is -5; it must be at least 1 step"),
        (["--t3", "0"], "--t3 is 0; it must be at least 1 step"),
        (["--p", "0"], "--p is 0; it must be at least 1"),
        (["--q", "-1"], "--q is -1; it must be at least 1"),
        (["--p", "3", "--population", "2"], "--p is 3; it must be at most --population, which is 2"),
        (["--q", "9"], "--q is 9; it must be at most --population, which is 4"),
        (["--population", "0"], "--population is 0; it must be at least 1"),
        (["--batch-size", "0"], "--batch-size is 0; it must be at least 1"),
        (["--batch-size", "1201"], "--batch-size is 1201; it must be at most 1200, the images to train on"),
        (["--validation-size", "0"], "--validation-size is 0; it must be at least 1 image"),
        (
            ["--validation-size", "1437"],
            "--validation-size is 1437 of 1437 training images; with 10 classes on both sides it must be from 11"
            " to 1426",
        ),
        (["--capacity", "0"], "--capacity is 0; it must be from 1 to 16,384 genes"),
        (["--learning-rate", "-1"], "--learning-rate is -1.0; it must be finite and more than 0"),
    ],
)
def test_a_setting_that_cannot_be(capsys, tmp_path, argv, message):
    folder = tmp_path / "run"
    common = ["--preset", "smoke", *places(tmp_path), "--run-dir", str(folder)]
    assert refused(capsys, "digits", *common, *argv) == message
    assert not folder.exists()


# --- Bad data --------------------------------------------------------------------------------


def test_no_data_and_no_network_names_three_ways_to_get_data(capsys, monkeypatch, tmp_path):
    def unreachable(*args, **kwargs):
        raise requests.ConnectionError("no route to host")

    monkeypatch.setattr(requests, "head", unreachable)
    monkeypatch.setattr(requests.Session, "request", unreachable)
    line = refused(capsys, "cifar100", "--run-dir", str(tmp_path / "run"), "--cache-dir", str(tmp_path / "cache"))
    assert line.startswith("no data for cifar100: ")
    for way in ("connect to the network", "give --data-dir", "run `python -m experiments.digits`"):
        assert way in line
    assert not (tmp_path / "run").exists()


def write_hostile(data: Path, proof: Path) -> str:
    folder = data / "cifar-10-batches-py"
    folder.mkdir()
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"):
        # As the pickle of a call would be: os.system("touch ...").
        (folder / name).write_bytes(f"cos\nsystem\n(S'touch {proof}'\ntR.".encode())
    return f"{folder}/data_batch_1"


def test_a_hostile_pickle_is_refused_and_does_nothing(capsys, tmp_path):
    data, proof = tmp_path / "data", tmp_path / "proof"
    data.mkdir()
    file = write_hostile(data, proof)
    argv = ["--data-dir", str(data), "--run-dir", str(tmp_path / "run"), "--cache-dir", str(tmp_path / "cache")]
    line = refused(capsys, "cifar10", *argv)
    assert line.startswith(file)
    assert "os.system" in line
    assert not proof.exists()


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("cifar10", lambda data: None, "data folder {data} does not exist; "),
        ("cifar10", lambda data: data.mkdir(), "{data} does not hold CIFAR-10; "),
        (
            "cifar10",
            lambda data: (data / "cifar-100-python").mkdir(parents=True),
            "{data}/cifar-100-python holds CIFAR-100, not CIFAR-10; ",
        ),
        ("cifar100", lambda data: data.write_bytes(b"\x1f\x8b\x08 truncated"), "{data} cannot be read (EOFError); "),
        ("digits", lambda data: data.mkdir(), "data folder {data} is given, but the digits need none"),
    ],
)
def test_data_that_are_not_there(capsys, tmp_path, name, make, message):
    data, folder = tmp_path / "data", tmp_path / "run"
    make(data)
    argv = ["--data-dir", str(data), "--run-dir", str(folder), "--cache-dir", str(tmp_path / "cache")]
    assert refused(capsys, name, *argv).startswith(message.format(data=data))
    assert not folder.exists()


# --- What is caught --------------------------------------------------------------------------


def test_every_error_of_the_package_that_a_user_can_cause_is_caught():
    modules = [importlib.import_module(each.name) for each in pkgutil.walk_packages(eigen_jax.__path__, "eigen_jax.")]
    raised = {
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, ValueError) and value.__module__.startswith("eigen_jax")
    }
    # Each reader tells of unsound JSON as its own error, with the file's name.
    assert raised - {JSONError} == {error for error in USER_ERRORS if error.__module__.startswith("eigen_jax")}


def test_a_mistake_of_the_program_is_not_hidden(monkeypatch, tmp_path):
    def fail(*args, **kwargs):
        raise ValueError("a defect")

    monkeypatch.setattr(runner, "run_search", fail)
    with pytest.raises(ValueError, match="a defect"):
        main("digits", [*TINY, "--teacher", "none", *places(tmp_path)])


# --- As processes ----------------------------------------------------------------------------


def run_command(module: str, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"experiments.{module}", *argv], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_the_same_command_goes_on_where_it_was_and_is_quiet(finished):
    folder, _ = finished
    record = (folder / "lineage.jsonl").read_bytes()
    ended = run_command("digits", *TINY, *places(folder.parent), "--run-dir", str(folder))
    assert (ended.returncode, ended.stderr) == (0, "")
    teacher, ensemble, run, *_ = ended.stdout.splitlines()
    assert teacher.startswith("teacher's member 0 ")
    assert ensemble.startswith("teacher ")
    assert run == f"Run folder {folder}, going on after 3 generations"
    assert (folder / "lineage.jsonl").read_bytes() == record


def test_the_network_found_gives_the_same_logits_in_a_new_process(finished):
    folder, _ = finished
    result = json.loads((folder / "result.json").read_text())
    ended = run_command("evaluate", str(folder))
    assert (ended.returncode, ended.stderr) == (0, "")
    _, tested, validated, logits = ended.stdout.splitlines()
    assert tested == f"test accuracy        {100 * result['test_accuracy']:.1f} % of 360 images"
    reached = 100 * result["final_validation_accuracy"]
    assert validated == f"validation accuracy  {reached:.1f} % of 237 images"
    assert logits == "logits               identical to those at the end of the run, to the last bit"


def test_bad_input_ends_the_process_with_code_2():
    ended = run_command("digits", "--preset", "nothing")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "error: there is no preset 'nothing'; choose from paper, small, smoke\n"


@pytest.mark.parametrize(("module", "preset"), [("cifar10", "paper"), ("cifar100", "paper"), ("digits", "small")])
def test_each_command_has_its_help(module, preset):
    ended = run_command(module, "--help")
    assert (ended.returncode, ended.stderr) == (0, "")
    text = " ".join(ended.stdout.split())
    assert text.startswith(f"usage: python -m experiments.{module} [--preset {{paper,small,smoke}}]")
    assert f"[runs/{module}-{preset}]" in text
