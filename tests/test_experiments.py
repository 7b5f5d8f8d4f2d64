"""The commands as a user meets them: a whole search, continuing it, and one clear line for bad input."""

import functools
import importlib
import json
import pkgutil
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import jax
import pytest
from commands_data import (
    SEARCH,
    SEED,
    TRAINING,
    contents,
    finished_search,
    float_dtypes,
    leave_process_alone,
    places,
    ran,
    refused,
    search_argv,
    watch_dtypes,
)
from odd_names import ODD_NAMES

import eigen_jax
from eigen_jax import lineage
from eigen_jax.data import DataConfig
from eigen_jax.data.decoding import ColourError, SkippedError
from eigen_jax.errors import ConfigError, EigenError
from eigen_jax.networks import count_parameters
from eigen_jax.search import RunFolderError, SearchResult, load_network
from eigen_jax.store import checkpoint
from eigen_jax.store.checkpoint import CheckpointError
from eigen_jax.store.locks import StoppedError
from eigen_jax.store.run_files import RunSeconds
from eigen_jax.teacher import read_teacher
from eigen_jax.training import DivergedError
from experiments import describe, evaluate, process, retrain, runner, teacher
from experiments.benchmark import __main__ as benchmark
from experiments.commands import BAD_INPUT, INTERRUPTED, command
from experiments.presets import PRESETS
from experiments.process import configure, environment, keep_compiled, worker_environments
from experiments.reproduce import __main__ as reproduce_command
from experiments.runner import main
from experiments.settings import Machine, Settings, flag_of

CACHE_SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_compilation_cache_max_size",
    "jax_persistent_cache_min_compile_time_secs",
)
IDENTICAL = "logits               identical to those at the end of the run, to the last bit"

digits = functools.partial(main, "digits")
own_settings = pytest.fixture(leave_process_alone, autouse=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    return finished_search(tmp_path_factory)


def test_a_search_leaves_its_record_its_settings_and_its_network_and_shows_them(finished, capsys):
    folder, shown = finished / "run-dir", (finished / "shown").read_text().split("\n")
    individuals = lineage.read(folder / "lineage.jsonl")
    expected = [(0, 0, "primary"), (0, 1, "primary"), (1, 0, "duplication"), (1, 1, "duplication")]
    assert [(each.generation, each.index, each.phase) for each in individuals] == expected
    rows = [line.split() for line in shown]
    for individual in individuals:
        name = f"{individual.generation}.{individual.index}"
        (row,) = [row for row in rows if row[:1] == [name] and "to" not in row and "at" not in row]
        assert row[1:3] == [str(len(individual.architecture.layers)), f"{individual.parameters:,}"]
        assert individual.fate.value.partition("_")[0] in row
    content = json.loads((folder / "settings.json").read_text())
    chosen = {"seed": SEED, "t1": 4, "population": 2, "channels": [4, 8], "momentum": 0.9, "dataset": "digits"}
    assert {name: content["settings"][name] for name in chosen} == chosen
    assert content["folders"]["teacher_dir"] == str(finished / "teacher-dir")
    assert content["versions"]["jax"] == jax.__version__
    result = json.loads((folder / "result.json").read_text())
    architecture, variables = load_network(folder)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert parameters == count_parameters(architecture, num_classes=10)
    fingerprint = content["settings"]["teacher_fingerprint"]
    assert len(fingerprint) == 64
    assert result["mimicry"] == {"teacher": fingerprint, "weight": 0.9, "temperature": 5.0}
    reached = f"test accuracy        {100 * result['test_accuracy']:.1f} %"
    assert set(shown) >= {
        reached,
        f"test accuracy        {100 * result['search_test_accuracy']:.1f} % with the search's weights",
        f"parameters           {parameters:,}",
        f"run folder           {folder}",
    }
    assert evaluate.main([str(folder)]) == 0
    _, first, *scores, validation, logits = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in scores] == ["balanced", "macro-F1", *["confused"] * 5]
    assert [first, validation, logits] == [
        f"{reached} of 360 images",
        f"validation accuracy  {100 * result['final_validation_accuracy']:.1f} % of 237 images",
        IDENTICAL,
    ]


def test_the_same_command_goes_on_where_it_was(finished, tmp_path, capsys):
    copied = shutil.copytree(finished, tmp_path / "copied")
    assert digits([*search_argv(copied), *places(copied), "--log", "csv", "csv"]) == 0
    whom, run, *_ = capsys.readouterr().out.splitlines()
    assert whom == f"Teacher for digits: the logits in {copied / 'logits.npy'}"
    assert run == f"Run folder {copied / 'run-dir'}, going on after 2 generations"
    record, now = ((folder / "run-dir" / "lineage.jsonl").read_bytes() for folder in (finished, copied))
    assert now == record
    # How the machine is used, logs included, is no part of what the run is.
    test_accuracy = json.loads((copied / "run-dir" / "result.json").read_text())["test_accuracy"]
    logged = (copied / "run-dir" / "logs" / "curves.csv").read_text()
    assert logged == f"of,quantity,step,value\nsearch,test_accuracy,2,{test_accuracy}\n"


def cache_settings() -> list:
    return [getattr(jax.config, name) for name in CACHE_SETTINGS]


def test_compiled_programs_are_kept_and_a_cache_folder_that_cannot_be_written_is_a_warning(caplog, tmp_path):
    before = cache_settings()
    (tmp_path / "file").touch()
    keep_compiled(tmp_path / "file" / "cache")
    assert "cannot be written (Not a directory); going on without it" in caplog.text
    assert cache_settings() == before
    try:
        keep_compiled(tmp_path)
        folder, most_bytes, least_seconds = cache_settings()
    finally:
        for name, value in zip(CACHE_SETTINGS, before, strict=True):
            jax.config.update(name, value)
    assert (folder, least_seconds) == (str(tmp_path / "compiled"), 0)
    assert 1 << 20 < most_bytes < 1 << 40


def test_no_compiled_programs_are_kept_beside_files_of_a_user_without_a_name(caplog, tmp_path, nobody):
    before = cache_settings()
    keep_compiled(tmp_path)
    assert cache_settings() == before
    assert f"cache folder {tmp_path} has files of a user or a group without a name" in caplog.text
    kept = {name.upper() for name in CACHE_SETTINGS}
    assert kept.isdisjoint(environment(Settings(data=DataConfig(cache_dir=tmp_path))))


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("jax_default_prng_impl", "rbg", "JAX_DEFAULT_PRNG_IMPL=rbg is set aside: a search would take another course"),
        ("jax_threefry_partitionable", False, "JAX_THREEFRY_PARTITIONABLE=False is set aside: a search would take"),
        ("jax_random_seed_offset", 5, "JAX_RANDOM_SEED_OFFSET=5 is set aside: a search would take another course"),
        ("jax_enable_x64", True, "JAX_ENABLE_X64=True is set aside: a search would take another course with it"),
        ("jax_debug_infs", True, "JAX_DEBUG_INFS=True is set aside: in a search, infinity stands for"),
    ],
)
def test_switches_with_which_a_search_would_be_another_are_set_aside_with_a_warning(
    caplog, tmp_path, name, value, line
):
    settings = Settings(data=DataConfig(cache_dir=tmp_path), run_dir=tmp_path / "run")
    before = getattr(jax.config, name)
    jax.config.update(name, value)
    try:
        configure(settings)
        assert getattr(jax.config, name) == before
        (told,) = caplog.messages
        assert told.startswith(line)
        configure(settings)
    finally:
        jax.config.update(name, before)
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(
    ("environment", "raised", "told"),
    [
        ({"JAX_PLATFORMS": "cuda"}, AssertionError(), " with JAX_PLATFORMS=cuda; leave that out, or set"),
        (
            {"JAX_PLATFORMS": "rocm", "CUDA_VISIBLE_DEVICES": "7"},
            RuntimeError("no rocm (set JAX_PLATFORMS='' to choose)\nat all"),
            " with JAX_PLATFORMS=rocm and CUDA_VISIBLE_DEVICES=7 (no rocm); leave that out, or set",
        ),
        ({}, RuntimeError("broken"), " (broken); set"),
    ],
)
def test_without_a_device_every_command_ends_with_one_line_before_anything_else_is_done(
    capsys, monkeypatch, tmp_path, environment, raised, told
):
    for name in ("JAX_PLATFORMS", "JAX_PLATFORM_NAME", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(jax, "devices", Mock(side_effect=raised))
    for module in (evaluate, retrain, teacher, reproduce_command):
        monkeypatch.setattr(module, "configure", configure)
    training = ["--dataset", "digits", "--preset", "smoke", *places(tmp_path)]
    line = f"JAX finds no device{told} JAX_PLATFORMS=cpu to compute on the CPU"
    for main_of, argv in (
        (digits, ["--preset", "smoke", *places(tmp_path)]),
        (retrain.main, ["genome.json", *training]),
        (teacher.main, training),
        (evaluate.main, [str(tmp_path)]),
        (benchmark.main, ["--quick"]),
        (
            reproduce_command.main,
            ["table2", *training[:4], f"--runs-dir={tmp_path / 'runs'}", f"--cache-dir={tmp_path / 'cache'}"],
        ),
    ):
        assert refused(capsys, main_of, *argv) == line
    assert list(tmp_path.iterdir()) == []


def test_a_nan_that_jax_was_told_to_look_for_is_shown_with_its_place(capsys):
    @command
    def train() -> None:
        raise FloatingPointError("invalid value (nan) encountered in log")

    assert train() == BAD_INPUT
    *traceback, line = capsys.readouterr().err.splitlines()
    assert line.startswith("error: invalid value (nan) encountered in log; the traceback above says where. Without")
    assert any("in train" in each for each in traceback)


@pytest.mark.parametrize(
    ("named", "places_of_workers"), [("4,5,6", ["4", "5"]), ("GPU-1a", ["GPU-1a"]), (None, ["0", "1"])]
)
def test_a_worker_is_started_on_each_gpu_that_is_there(monkeypatch, named, places_of_workers):
    """CUDA ends the list of those that it shows at the first that is not there."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "local_device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    environments = worker_environments(Settings())
    assert [each["CUDA_VISIBLE_DEVICES"] for each in environments] == places_of_workers
    assert not any("XLA_CLIENT_MEM_FRACTION" in each for each in environments)
    many = Settings(machine=Machine(workers=9, worker_gpus=0.5))
    with pytest.raises(ConfigError) as caught:
        worker_environments(many)
    held = 2 * len(places_of_workers)
    assert caught.value.told(flag_of) == (
        f"--workers is 9; with --worker-gpus 0.5, the GPUs of this machine hold {held}"
    )


def test_workers_that_share_a_gpu_leave_some_of_its_memory(monkeypatch):
    """To the driver a tenth, and to CUDA, which takes its own for each process, a tenth of each part."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "local_device_count", lambda: 1)
    for name in ("CUDA_VISIBLE_DEVICES", "XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"):
        monkeypatch.delenv(name, raising=False)
    environments = worker_environments(PRESETS["cifar10"]["gpu"])
    assert [each["CUDA_VISIBLE_DEVICES"] for each in environments] == ["0"] * 12
    fractions = [float(each["XLA_CLIENT_MEM_FRACTION"]) for each in environments]
    assert fractions == pytest.approx([0.81 / 12] * 12, abs=1e-3)
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.05")  # JAX takes one of the two variables
    assert "XLA_CLIENT_MEM_FRACTION" not in worker_environments(PRESETS["cifar10"]["gpu"])[0]


def test_an_interrupted_search_says_how_to_go_on(capsys, monkeypatch, tmp_path):
    kept: list[Path] = []
    monkeypatch.setattr(runner, "run_search", Mock(side_effect=KeyboardInterrupt))
    monkeypatch.setattr(process, "keep_compiled", kept.append)
    assert digits([*SEARCH, "--teacher", "none", *places(tmp_path)]) == INTERRUPTED
    assert capsys.readouterr().err == "interrupted; the same command goes on from what was saved last\n"
    assert kept == [tmp_path / "cache-dir"]


def test_a_search_that_found_no_network_says_so_in_its_exit_code(capsys, monkeypatch, tmp_path):
    nothing: Any = dict.fromkeys(("test_accuracy", "network", "mimicry"))
    nobody = SearchResult(generations=2, trained=6, seconds=RunSeconds(search=1.0, final=None), **nothing)
    monkeypatch.setattr(runner, "run_search", Mock(return_value=nobody))
    line = refused(capsys, digits, *SEARCH, "--teacher", "none", *places(tmp_path))
    assert line == "no network survived all landmarks; train longer or lower the learning rate, in a new run folder"


@pytest.mark.slow  # test_evaluate has a training in bfloat16
def test_a_search_in_bfloat16_keeps_float32_and_evaluates_to_the_same_logits(tmp_path, capsys, monkeypatch):
    computed_in = watch_dtypes(monkeypatch)
    argv = (
        *(*SEARCH, f"--seed={SEED}", "--max-duplication-generations", "0", "--dtype", "bfloat16"),
        *("--teacher-dtype", "bfloat16", "--teacher-growth", "4", "--teacher-epochs", "1"),
        *("--teacher-batch-size", "400", "--teacher-views", "center"),
    )
    assert digits([*argv, *places(tmp_path)]) == 0
    assert computed_in == {"bfloat16"}
    folder, teacher = tmp_path / "run-dir", read_teacher(tmp_path / "teacher-dir")
    assert json.loads((folder / "result.json").read_text())["dtype"] == "bfloat16"
    assert teacher.config.dtype == "bfloat16"
    assert teacher.ensemble is not None
    saved = [
        load_network(folder)[1],
        checkpoint.restore(folder / "checkpoints", "variables"),
        {**checkpoint.restore(folder / "final", "state"), "step": None},
        *(checkpoint.restore(path, "variables") for path in (tmp_path / "teacher-dir").glob("member-*/network")),
    ]
    assert [float_dtypes(tree) for tree in saved] == [{"float32"}] * 4
    capsys.readouterr()
    assert evaluate.main([str(folder)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == IDENTICAL


def test_a_run_folder_of_other_settings_is_left_alone(finished, capsys):
    folder = finished / "run-dir"
    before = contents(folder)
    argv = [*search_argv(finished), *places(finished)]
    for changes, told in (
        (("--t1", "3", "--q", "1"), "--q was 2 and is now 1, --t1 was 4 and is now 3"),
        (("--mimicry-weight", "0.5"), "--mimicry-weight was 0.9 and is now 0.5"),
    ):
        line = refused(capsys, digits, *argv, *changes)
        assert line == f"{folder} belongs to a run with other settings: {told}; choose another folder"
    line = refused(capsys, digits, *SEARCH, "--teacher", "none", *places(finished))
    assert "--teacher was 'cache' and is now 'none'" in line
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--batch-size", "1201"], "--batch-size is 1201; it must be at most 1200, the images to train on"),
        (
            ["--validation-size", "1437"],
            "--validation-size is 1437 of 1437 training images; with 10 classes on both sides it must be from 11"
            " to 1426",
        ),
    ],
)
def test_a_setting_that_cannot_be(capsys, tmp_path, argv, message):
    assert refused(capsys, digits, "--preset", "smoke", *places(tmp_path), *argv) == message
    assert not (tmp_path / "run-dir").exists()


def test_bad_data_are_refused_and_a_hostile_pickle_does_nothing(capsys, tmp_path):
    folder, proof = tmp_path / "data" / "cifar-10-batches-py", tmp_path / "proof"
    folder.mkdir(parents=True)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"):
        # As the pickle of a call would be: os.system("touch ...").
        (folder / name).write_bytes(f"cos\nsystem\n(S'touch {proof}'\ntR.".encode())
    paper = ("--preset=paper", *places(tmp_path))
    line = refused(capsys, functools.partial(main, "cifar10"), f"--data-dir={folder.parent}", *paper)
    assert line.startswith(f"{folder}/data_batch_1")
    assert "os.system" in line
    assert not proof.exists()
    (tmp_path / "file").write_bytes(b"\x1f\x8b\x08 truncated")
    line = refused(capsys, functools.partial(main, "cifar100"), f"--data-dir={tmp_path / 'file'}", *paper)
    assert line.startswith(f"{tmp_path / 'file'} cannot be read (EOFError); ")
    assert not (tmp_path / "run-dir").exists()


def test_the_errors_of_the_package_have_one_base():
    modules = [importlib.import_module(each.name) for each in pkgutil.walk_packages(eigen_jax.__path__, "eigen_jax.")]
    raised = {
        value
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Exception) and value.__module__.startswith("eigen_jax")
        if not name.startswith("_")
    }
    assert raised >= {CheckpointError, ConfigError, DivergedError, RunFolderError}
    # Whoever asked for the stop knows of it, and nothing is wrong; a picture that is skipped is counted.
    assert {error for error in raised if not issubclass(error, EigenError)} == {StoppedError, SkippedError, ColourError}


def test_a_mistake_of_the_program_is_not_hidden(monkeypatch, tmp_path):
    monkeypatch.setattr(runner, "run_search", Mock(side_effect=ValueError("a defect")))
    with pytest.raises(ValueError, match="a defect"):
        digits([*SEARCH, "--teacher", "none", *places(tmp_path)])


@pytest.mark.parametrize(("module", "preset"), [("cifar10", "evening"), ("cifar100", "evening"), ("digits", "small")])
def test_each_command_has_its_help_and_its_exit_code(monkeypatch, capsys, module, preset):
    assert ran(monkeypatch, module, "--help") == 0
    shown, error = capsys.readouterr()
    text = " ".join(shown.split())
    known = "paper, small, smoke" if module == "digits" else "paper, evening, hour, small, smoke, gpu"
    assert text.startswith(f"usage: python -m experiments.{module} [-h] [OPTIONS]")
    assert known in text
    assert f"(default: runs/{module}-{preset})" in text
    assert error == ""
    assert ran(monkeypatch, module, "--preset", "nothing") == BAD_INPUT
    assert capsys.readouterr() == ("", f"error: there is no preset 'nothing'; choose from {known}\n")


@pytest.mark.slow  # of checkpoints, which are what names are hardest for, test_checkpoint has a quick one
@pytest.mark.parametrize("names", [ODD_NAMES[first::4] for first in range(4)])
def test_a_search_is_killed_goes_on_and_is_evaluated_under_any_path(names, tmp_path, monkeypatch, capsys):
    """Folders in one another, named from where they lie, so that the path begins like the first name."""
    monkeypatch.chdir(tmp_path)
    argv = (
        *(*SEARCH, f"--seed={SEED}", "--teacher-growth", "4", "--teacher-epochs", "1", "--teacher-members", "1"),
        *("--teacher-batch-size", "400", "--teacher-views", "center", *places(folder := Path(*names))),
    )
    with monkeypatch.context() as patch:
        patch.setattr(lineage, "append", Mock(side_effect=KeyboardInterrupt))
        assert digits(argv) == INTERRUPTED
    assert digits(argv) == 0
    run = f"./{folder}/run-dir"
    assert evaluate.main([run]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == IDENTICAL
    assert describe.main([f"{run}/network/genome.json"]) == 0
    again = (*TRAINING, "--teacher=none", *places(folder), f"--run-dir={folder / 'again'}")
    assert retrain.main([f"{run}/network/genome.json", *again]) == 0
    assert evaluate.main([f"./{folder}/again"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == IDENTICAL


@pytest.mark.slow  # in this process: test_the_same_command_goes_on_where_it_was
def test_the_same_command_in_a_new_process_is_quiet(finished, tmp_path):
    copied = shutil.copytree(finished, tmp_path / "copied")
    command = [sys.executable, "-m", "experiments.digits", *search_argv(copied), *places(copied)]
    root = Path(__file__).resolve().parents[1]
    ended = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert f"Run folder {copied / 'run-dir'}, going on after 2 generations" in ended.stdout.splitlines()
    record = "run-dir/lineage.jsonl"
    assert (copied / record).read_bytes() == (finished / record).read_bytes()
