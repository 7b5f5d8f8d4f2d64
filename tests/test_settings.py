"""Settings, presets, and the command line made from them."""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest
from commands_data import leave_process_alone, places, refused
from refusals import refuses

from eigen_jax.data import DataConfig, Dataset
from eigen_jax.evolution import EvolutionConfig
from eigen_jax.genome import GenomeSpec
from eigen_jax.search import Care, SearchConfig
from eigen_jax.teacher import TeacherConfig
from eigen_jax.training import TrainConfig
from experiments import describe, draw, evaluate, retrain, runner
from experiments.benchmark import __main__ as benchmark
from experiments.chaos import __main__ as chaos
from experiments.command_line import parse
from experiments.presets import DEFAULT_PRESET, PRESETS
from experiments.reproduce import command as reproduce_command
from experiments.settings import Settings, SettingsError, flag, with_flags
from experiments.teaching import check_settings, teacher_config

Options = dict[str, Any]

# Settings that say how the machine is used, but for the number of devices.
MACHINE: Options = {"executor": "ray", "workers": 27, "worker_cpus": 28.0, "worker_gpus": 0.5, "threads": 29}
MACHINE |= {"ray_address": "10.0.0.1:6379", "save_every": 30.0, "time_limit": 31.0}

CHOICES = {
    "plain": Settings(),
    "other": Settings(t1=7, flip=False, data_dir=Path("/data"), decay_steps=(), run_dir=Path("runs/other")),
}


def read(*argv: str) -> Settings:
    return parse(argv, program="prog", presets=CHOICES, default="plain")


def in_place(settings: Settings) -> Settings:
    """The settings as they are read: with absolute paths."""
    places: Options = {name: place.absolute() for name, place in vars(settings).items() if isinstance(place, Path)}
    return dataclasses.replace(settings, **places)


def tiny_dataset() -> Dataset:
    """Zeros of 5 x 6 pixels and 2 channels, in 3 classes."""
    sizes = {"train": 30, "validation": 4, "test": 4}
    arrays: Options = {f"{part}_images": jnp.zeros((size, 5, 6, 2), jnp.float32) for part, size in sizes.items()}
    arrays |= {f"{part}_labels": jnp.zeros(size, jnp.int32) for part, size in sizes.items()}
    return Dataset(**arrays, num_classes=3, name="digits", fingerprint="0")


# --- Settings --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_the_paper_preset_is_section_4_1(name):
    settings = PRESETS[name]["paper"]
    stated: Options = {"population": 10, "primary_steps": 100, "secondary_steps": 10}
    stated |= {"t1": 5_000, "t2": 15_000, "t3": 5_000, "batch_size": 128, "momentum": 0.9, "weight_decay": 0.0005}
    stated |= {"learning_rate": 0.1, "decay_rate": 0.1, "decay_steps": (15_000, 20_000)}
    stated |= {"teacher": "cache", "mimicry_weight": 0.9, "temperature": 5.0}
    stated |= {"teacher_members": 4, "teacher_depth": 40, "teacher_growth": 60, "teacher_stem_stride": 1}
    stated |= {"validation_size": 5_000, "preprocessing": "gcn_zca", "pad": 4, "flip": True}
    assert {key: getattr(settings, key) for key in stated} == stated
    assert DEFAULT_PRESET[name] == "paper"
    assert settings.final_steps == settings.t1 + settings.t2 + settings.t3


def test_every_setting_reaches_the_library():
    """Each group is given to the settings, and looked for in what the library is configured with."""
    data: Options = {"validation_size": 2, "split_seed": 3, "preprocessing": "standardize"}
    data |= {"data_dir": Path("/data"), "cache_dir": Path("/cache")}
    search: Options = {"seed": 1, "t1": 4, "t2": 5, "t3": 6, "reevaluate": True, "final_steps": 22}
    search |= {"final_on": "train+validation"}
    genome: Options = {"capacity": 17, "channels": (18, 19), "kernels": (5,), "strides": (2,)}
    genome |= {"max_parameters": 20, "max_flops": 21}
    evolution: Options = {"primary_steps": 12, "secondary_steps": 13, "elitism": True, "saturation_gain": 0.0625}
    evolution |= {"saturation_window": 14, "max_primary_generations": 15, "max_secondary_generations": 16}
    evolution |= {"max_duplication_generations": 2, "max_repeats": 4, "extinguish_duplicates": True}
    images: Options = {"pad": 1, "flip": False, "eval_batch_size": 10}
    train: Options = {"batch_size": 7, "learning_rate": 0.25, "decay_steps": (8, 9), "decay_rate": 0.5}
    train |= {"momentum": 0.75, "weight_decay": 0.125, "mimicry_weight": 0.375, "temperature": 2.5}
    train |= {"dtype": "bfloat16", "devices": 7}
    teacher: Options = {"members": 5, "depth": 16, "growth": 23, "stem_stride": 2, "epochs": 24, "batch_size": 25}
    teacher |= {"learning_rate": 0.03125, "dtype": "bfloat16", "seed": 26}
    changed = Settings(
        **(data | search | genome | evolution | images | train),
        **{f"teacher_{name}": value for name, value in teacher.items()},
        **MACHINE,
        run_dir=Path("/run"),
        population=11,
        p=4,
        q=3,
        teacher="live",
        teacher_views="center",
        teacher_logits=Path("/logits.npy"),
        teacher_dir=Path("/teacher"),
    )
    fields, default = dataclasses.fields(Settings), Settings()
    assert [each.name for each in fields if getattr(changed, each.name) == getattr(default, each.name)] == []
    assert changed.data_config("cifar100") == DataConfig(name="cifar100", **data)
    assert changed.search_config(tiny_dataset()) == SearchConfig(
        **search,
        genome=GenomeSpec(**genome, input_shape=(5, 6, 2), num_classes=3),
        evolution=EvolutionConfig(**evolution, population_size=11, first_rank=4, second_rank=3),
        train=TrainConfig(**train, **images),
    )
    assert teacher_config(changed) == TeacherConfig(**teacher, **images)


def test_a_run_does_not_depend_on_where_its_folders_are_or_how_the_machine_is_used():
    here = Settings()
    places = ("run_dir", "data_dir", "cache_dir", "teacher_dir", "teacher_logits")
    machine: Options = MACHINE | {"devices": 2}
    used = dataclasses.replace(here, **machine)
    assert here.outcome() == used.outcome()
    assert used.notes()["machine"] == machine
    assert used.care() == Care(save_every=30.0, time_limit=31.0)
    elsewhere: Options = {name: Path("/elsewhere") / name for name in places}
    there = dataclasses.replace(here, **elsewhere)
    assert here.outcome() == there.outcome()
    assert there.notes()["folders"] == {name: f"/elsewhere/{name}" for name in places}
    assert here.notes()["folders"]["teacher_logits"] is None
    assert here.outcome() != Settings(seed=1).outcome()
    assert json.loads(json.dumps(here.outcome()))["t1"] == 5_000
    assert len(here.outcome()) == len(dataclasses.fields(Settings)) - len(places) - len(machine)


# What is said of values that cannot be, up to where others say as much.
REFUSED: dict[str, list[tuple[str, Any]]] = {
    "it must be at least 1 step": [("t1", 0), ("t2", -1), ("t3", 0)],
    "it must be at least 0": [
        *[("worker_cpus", -1.0), ("save_every", -1.0), ("time_limit", -1.0), ("final_steps", -1)],
        ("max_duplication_generations", -1),
    ],
    "it must be at least 1": [
        *[("workers", 0), ("threads", 0), ("devices", 0), ("population", 0), ("p", 0), ("q", -1), ("batch_size", 0)],
    ],
    "it must be at least 1 image": [("validation_size", 0)],
    "it must be at least 2": [("max_repeats", 1)],
    "it must be at most --population, which is 10": [("p", 11), ("q", 11)],
    "it must be at most 2147483647": [("final_steps", 1 << 31), ("primary_steps", 1 << 31)],
    "it must be from 0 to 1": [("mimicry_weight", 1.5), ("mimicry_weight", -0.5)],
    "it must be from 1 to 16,384 genes": [("capacity", 0)],
    "it must be finite and more than 0": [("learning_rate", -1.0), ("temperature", 0.0)],
    "it must be a whole number, or a fraction of one": [("worker_gpus", 0), ("worker_gpus", 1.5)],
    "it must be one of float32, bfloat16": [("dtype", "float16"), ("teacher_dtype", "float16")],
    "it must be 6 n + 4": [("teacher_depth", 11)],
    "it must be 1 or 2": [("teacher_stem_stride", 3)],
    "it must be ": [
        *[("eval_batch_size", 0), ("pad", -1), ("split_seed", -1), ("seed", 1 << 32), ("max_flops", 0)],
        *[("teacher_members", 0), ("teacher_growth", 0), ("teacher_epochs", -1), ("teacher_batch_size", 0)],
        *[("teacher_learning_rate", 0.0), ("teacher_seed", 1 << 32)],
    ],
    "": [("decay_steps", (3, 2)), ("kernels", (2,))],
}


@pytest.mark.parametrize(
    ("setting", "value", "message"), [(*each, message) for message, own in REFUSED.items() for each in own]
)
def test_a_value_that_cannot_be_is_named_as_on_the_command_line(setting, value, message):
    values: Options = {setting: value}
    with pytest.raises(SettingsError) as caught:
        check_settings("cifar10", Settings(**values))
    told = str(caught.value)
    # Those of a teacher get their names where the command tells of them.
    shown = with_flags(told) if setting.startswith("teacher") else told
    assert shown.startswith(f"{flag(setting)} is {value}; {message}")
    assert "\n" not in shown


def test_a_batch_must_be_a_multiple_of_the_devices():
    with pytest.raises(SettingsError, match=r"^--batch-size is 128; it must be a multiple of --devices, which is 3"):
        Settings(devices=3).check("cifar10")


@pytest.mark.parametrize(
    "argv",
    [
        *("--t1 0", "--teacher-depth 11", "--teacher nobody", "--mimicry-weight 1.5", "--temperature 0"),
        *("--final-on test", "--final-steps -1", "--max-repeats 1"),
    ],
)
def test_settings_are_checked_before_the_data_are_loaded(argv, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(runner, "load_dataset", lambda config: pytest.fail("the data were loaded"))
    option, value = argv.split()
    line = refused(capsys, functools.partial(runner.main, "cifar10"), option, value, *places(tmp_path))
    assert line.startswith(f"{option} is ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("batch_size is 9; it must be", "--batch-size is 9; it must be"),
        ("first_rank (p) is 9; at most population_size, which is 4", "--p is 9; at most --population, which is 4"),
        ("/runs/x: q was 0 and is now 1, pad was 4", "/runs/x: --q was 0 and is now 1, --pad was 4"),
        ("/data/seed is no folder", "/data/seed is no folder"),
        ("cannot read batch_size", "cannot read batch_size"),
        ("the decay_rate_x is 3", "the decay_rate_x is 3"),
    ],
)
def test_only_names_with_a_value_become_flags(message, shown):
    assert with_flags(message) == shown


@pytest.mark.parametrize("name", PRESETS)
def test_the_presets_can_be(name):
    assert list(PRESETS[name]) == ["paper", "small", "smoke"]
    for preset, settings in PRESETS[name].items():
        check_settings(name, settings)
        assert (settings.dtype, settings.teacher_dtype) == ("float32", "float32")
        assert settings.run_dir == Path("runs") / f"{name}-{preset}"
        assert settings.teacher_dir == Path("runs") / f"{name}-{preset}-teacher"
        assert settings.decay_steps[-1] < settings.t1 + settings.t2 + settings.t3


# --- Command line ----------------------------------------------------------------------------


def test_without_arguments_the_default_preset_holds():
    assert read() == in_place(CHOICES["plain"])


def test_settings_are_changes_to_a_preset_in_any_order():
    expected = dataclasses.replace(in_place(CHOICES["other"]), seed=3, learning_rate=0.5)
    assert read("--preset", "other", "--seed", "3", "--learning-rate", "5e-1") == expected
    assert read("--seed=3", "--learning-rate=0.5", "--preset=other") == expected


def test_values_of_every_type_are_read():
    settings = read(
        *("--run-dir", "runs/a b", "--data-dir", "/d", "--channels", "8", "16", "--decay-steps", "--no-flip"),
        *("--elitism", "--preprocessing", "standardize", "--weight-decay", "0", "--max-flops", "3_000"),
    )
    assert (settings.run_dir, settings.data_dir) == (Path.cwd() / "runs" / "a b", Path("/d"))
    assert (settings.channels, settings.decay_steps) == ((8, 16), ())
    assert (settings.flip, settings.elitism, settings.preprocessing) == (False, True, "standardize")
    assert (settings.weight_decay, settings.max_flops) == (0.0, 3_000)
    assert isinstance(settings.weight_decay, float)


def test_paths_are_absolute_from_where_they_are_read_and_their_home_is_the_users(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    places = [f"--{name}-dir=~/{name}" for name in ("run", "data", "cache", "teacher")]
    settings = read(*places, "--teacher-logits", "../up/~x")
    monkeypatch.chdir("/")
    folders = {f"{name}_dir": str(tmp_path / "home" / name) for name in ("run", "data", "cache", "teacher")}
    assert settings.notes()["folders"] == folders | {"teacher_logits": f"{tmp_path}/../up/~x"}


NO_HOME = "is '~nobody-here/x', and that home folder is not known; write the path out, or ./~ for a name that begins so"
COMMANDS = {
    "evaluate": (evaluate.main, ["run_dir", "--data-dir", "--cache-dir", "--logits"]),
    "draw": (draw.main, ["source", "--output"]),
    "describe": (describe.main, ["genome"]),
    "chaos": (chaos.main, ["--folder"]),
    "benchmark": (benchmark.main, ["--json", "--search"]),
    "reproduce": (reproduce_command.main, ["--runs-dir", "--output"]),
    "digits": (
        functools.partial(runner.main, "digits"),
        ["--run-dir", "--data-dir", "--cache-dir", "--teacher-dir", "--teacher-logits"],
    ),
}


@pytest.mark.parametrize(
    ("command", "option"), [(main, option) for main, options in COMMANDS.values() for option in options]
)
def test_every_path_of_every_command_may_start_in_a_home_folder(capsys, command, option):
    argv = [f"{option}=~nobody-here/x"] if option.startswith("-") else ["~nobody-here/x"]
    assert refused(capsys, command, *argv).startswith((f"{option}: {NO_HOME}", f"{option} {NO_HOME}"))


def test_the_network_to_be_trained_may_be_in_a_home_folder(capsys):
    assert refused(capsys, retrain.main, "~nobody-here/x", "--dataset", "digits") == f"GENOME {NO_HOME}"


def test_a_path_that_is_empty_or_starts_from_a_folder_that_is_gone_is_refused(tmp_path, monkeypatch):
    with refuses(SettingsError, "--run-dir is empty; it must be a path"):
        read("--run-dir", "")
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with refuses(
        SettingsError, "--run-dir is 'x', and the folder that it starts from, where you are, is gone; go to another one"
    ):
        read("--run-dir", "x")


def test_a_user_without_a_home_folder_gets_the_help_and_is_asked_for_a_cache_folder(
    capsys, tmp_path, monkeypatch, nobody
):
    leave_process_alone(monkeypatch)
    Settings()  # as presets are made, when a command is imported
    with pytest.raises(SystemExit) as caught:
        read("--help")
    assert caught.value.code == 0
    assert "by default $XDG_CACHE_HOME/eigen_jax, else ~/.cache/eigen_jax" in " ".join(capsys.readouterr().out.split())
    assert refused(capsys, functools.partial(runner.main, "digits"), "--run-dir", str(tmp_path / "run")) == (
        "--cache-dir is not given, and there is no home folder to make one in; name a folder that can be written,"
        " or set XDG_CACHE_HOME to one"
    )
    assert list(tmp_path.iterdir()) == []
    assert read("--cache-dir", str(tmp_path)).notes()["folders"]["cache_dir"] == str(tmp_path)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--preset", "plian"], "there is no preset 'plian'; did you mean plain? choose from plain, other"),
        (["--preset", "x"], "there is no preset 'x'; choose from plain, other"),
        (["--poplation", "3"], "there is no setting '--poplation'; did you mean --population? --help shows them all"),
        (["--batch_size", "3"], "there is no setting '--batch_size'; did you mean --batch-size? --help shows them all"),
        (["--no-flips"], "there is no setting '--no-flips'; did you mean --no-flip? --help shows them all"),
        (["--popul=3"], "there is no setting '--popul'; did you mean --population? --help shows them all"),
        (["--zzz", "3"], "there is no setting '--zzz'; --help shows them all"),
        (["3"], "'3' belongs to no setting; --help shows them all"),
        (["--t1", "abc"], "--t1 is 'abc'; it must be a whole number"),
        (["--t1", "1.5"], "--t1 is '1.5'; it must be a whole number"),
        (["--learning-rate", "fast"], "--learning-rate is 'fast'; it must be a finite number"),
        (["--learning-rate", "nan"], "--learning-rate is 'nan'; it must be a finite number"),
        (["--channels", "8", "x"], "--channels is 'x'; it must be a whole number"),
        (
            ["--preprocessing", "standardise"],
            "--preprocessing is 'standardise'; did you mean standardize? choose from gcn_zca, standardize",
        ),
        (["--dtype", "bf16"], "--dtype is 'bf16'; did you mean bfloat16? choose from float32, bfloat16"),
        (["--teacher", "nobody"], "--teacher is 'nobody'; choose from cache, live, none"),
        (["--final-on", "test"], "--final-on is 'test'; choose from train, train+validation"),
        (["--teacher-views", "centre"], "--teacher-views is 'centre'; did you mean center? choose from all, center"),
        (["--t1"], "--t1: expected one argument; --help explains every setting"),
    ],
)
def test_a_command_line_that_cannot_be_gets_one_line(argv, message):
    with pytest.raises(SettingsError) as caught:
        read(*argv)
    assert str(caught.value) == message


def test_the_help_explains_every_setting_with_the_values_of_the_preset(capsys):
    with pytest.raises(SystemExit) as caught:
        read("--help", "--preset", "other", "--seed", "5")
    assert caught.value.code == 0
    help = " ".join(capsys.readouterr().out.split())
    for field in dataclasses.fields(Settings):
        assert f" {flag(field.name)} " in help or f" {flag(field.name)}, " in help
    assert "T1: training steps to the first landmark (paper: 5,000) [7]" in help
    assert "mirror half of the training images (paper: not stated) [no]" in help
    # Places of the run, the data, the cache, the teacher and logits, and the use of the machine: the paper has no
    # value for them.
    assert "the p-th best at T1 sets the threshold there (paper: 5)" in help
    assert help.count("(paper: ") == len(dataclasses.fields(Settings)) - 5 - 9
