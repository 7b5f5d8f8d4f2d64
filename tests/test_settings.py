"""Settings, presets, and the command line made from them."""

import copy
import dataclasses
import functools
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import fork_kinds  # noqa: F401  # which has the operator "swap"
import optax
import pytest
from commands_data import leave_process_alone, places, refused, with_values
from refusals import refuses

from eigen_jax.config import Config, is_config, name_of, settings_of
from eigen_jax.config import describe as describe_config
from eigen_jax.data import DataConfig
from eigen_jax.data.types import Found
from eigen_jax.errors import ConfigError, EigenError
from eigen_jax.fitness import Limited, Penalised, accuracy
from eigen_jax.genome import GenomeSpec
from eigen_jax.losses import LOSSES
from eigen_jax.platforms import GPU
from eigen_jax.search import SearchConfig
from eigen_jax.store.records import as_json
from eigen_jax.store.run_files import FORMER_SETTINGS
from eigen_jax.strategies import EvolutionConfig
from eigen_jax.teacher import TeacherConfig
from eigen_jax.training import OPTIMIZERS, TrainConfig
from experiments import command_line, describe, draw, evaluate, landmarks, presets, report, retrain, runner
from experiments.benchmark import __main__ as benchmark
from experiments.chaos import __main__ as chaos
from experiments.command_line import parse
from experiments.commands import BAD_INPUT
from experiments.presets import DEFAULT_PRESET, PRESETS
from experiments.reproduce import __main__ as reproduce_command
from experiments.settings import FLAGS, FitnessConfig, Machine, Settings, flag, flag_of

Options = dict[str, Any]

# Settings that say how the machine is used, but for the number of devices.
MACHINE: Options = {"executor": "ray", "workers": 27, "worker_cpus": 28.0, "worker_gpus": 0.5, "threads": 29}
MACHINE |= {
    "ray_address": "10.0.0.1:6379",
    "device_memory": 0.75,
    "save_every": 30.0,
    "time_limit": 31.0,
    "log": ("csv",),
}

FITNESS: Options = {"fitness": "accuracy-flops", "penalty_weight": 0.5, "limits": ("loss=2", "memory=1e9")}

NO_OPTIMIZER = f"there is no optimizer 'sdg'; did you mean sgd? choose from {', '.join(OPTIMIZERS)}"
CHOICES = {
    "plain": Settings(),
    "other": with_values(
        Settings(),
        {"t1": 7, "flip": False, "data_dir": Path("/data"), "decay_steps": (), "run_dir": Path("runs/other")},
    ),
}


def read(*argv: str) -> Settings:
    with mock.patch.dict(command_line.PRESETS, cifar10=CHOICES), mock.patch.dict(DEFAULT_PRESET, cifar10="plain"):
        return parse(argv, program="prog", dataset="cifar10")


def in_place(settings: Settings) -> Settings:
    """The settings as they are read: with absolute paths."""
    places = {each.name: each.of(settings) for each in FLAGS.values() if each.is_place}
    return with_values(settings, {name: place.absolute() for name, place in places.items() if place})


def plain_sgd(config: TrainConfig) -> optax.GradientTransformation:
    """An optimizer of the user's own."""
    return optax.sgd(config.learning_rate)


def refused_box(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The words of the box in which tyro tells a mistake."""
    with pytest.raises(SystemExit) as caught:
        read(*argv)
    assert caught.value.code == BAD_INPUT
    out, error = capsys.readouterr()
    assert out == ""
    return plain(error)


def plain(text: str) -> str:
    """Without boxes and lines, in one line."""
    return " ".join(re.sub(r"[\u2500-\u257f]|-{5,}", " ", text).split())


# --- Settings --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_the_paper_preset_is_section_4_1(name):
    settings = PRESETS[name]["paper"]
    stated: Options = {"population": 10, "primary_steps": 100, "secondary_steps": 10}
    stated |= {"t1": 5_000, "t2": 15_000, "t3": 5_000, "batch_size": 128, "momentum": 0.9, "weight_decay": 0.0005}
    stated |= {"learning_rate": 0.1, "decay_rate": 0.1, "decay_steps": (15_000, 20_000), "final_steps": 25_000}
    stated |= {"teacher": "cache", "mimicry_weight": 0.9, "temperature": 5.0}
    stated |= {"teacher_members": 4, "teacher_depth": 40, "teacher_growth": 60, "teacher_stem_stride": 1}
    stated |= {"validation_size": 5_000, "preprocessing": "gcn_zca", "pad": 4, "flip": True}
    outcome = settings.outcome()
    assert {key: outcome[key] for key in stated} == stated
    assert settings.search == SearchConfig(final_steps=25_000)


# What has been added since, with the values that it had before.
LATER: Options = {"optimizer": "sgd", "loss": "cross-entropy", "decay_rates": (), "schedule": "constant"}
LATER |= {"max_children": 500, "sample_size": 3, "ahead": 4, "strategy": "eigen", "fitness": "accuracy"}
LATER |= {"kinds": ("conv", "concat", "pool"), "operators": ()}
LATER |= {"nesterov": False, "averaging": 0.0}
LATER |= {"budget": None, "final_share": 0.5, "secondary_from": 0.6, "duplication_from": 0.9}
LATER |= {"extinction": True, "redraws": 0, "min_flops_share": 0.0, "candidates": 1}
LATER |= {"source": "auto", "image_size": None, "test_size": None}
# SHA-256 of the outcomes of the older presets, but for those: run folders record them, are compared with them and named
# by them.
OLDER = ("paper", "small", "smoke")
OUTCOMES = "bed2122727fd50a19d5a0e695b05d076543b24854ac4bb670cc250997013063e"


def test_the_outcomes_that_name_run_folders_stay():
    older = {name: own for name, own in PRESETS.items() if name != "images"}
    outcomes = {name: {preset: own[preset].outcome() for preset in OLDER} for name, own in older.items()}
    for outcome in (outcome for own in outcomes.values() for outcome in own.values()):
        assert {name: outcome.pop(name) for name in LATER} == LATER
    assert as_json(LATER).items() <= FORMER_SETTINGS.items()
    assert hashlib.sha256(json.dumps(outcomes, sort_keys=True).encode()).hexdigest() == OUTCOMES


def configs_of(config: type[Config]) -> Iterator[type[Config]]:
    """A config and all those that are parts of it."""
    yield config
    for _, kind, _ in settings_of(config):
        if is_config(kind):
            yield from configs_of(kind)


def test_every_field_of_every_config_says_what_it_is():
    configs = list(configs_of(Settings))
    assert {
        DataConfig,
        SearchConfig,
        TrainConfig,
        EvolutionConfig,
        GenomeSpec,
        TeacherConfig,
        Machine,
        FitnessConfig,
    } < set(configs)
    for config in configs:
        assert [name for name, _, known in settings_of(config) if len(known.help) < 5] == []


def test_every_flag_has_a_name_of_its_own():
    names = [each.name for each in FLAGS.values()]
    assert len(set(names)) == len(names) == 94


def test_every_setting_reaches_the_library():
    """Each group is given to the settings, by the names of its flags, and looked for in the library's configs."""
    data: Options = {"validation_size": 2, "split_seed": 3, "preprocessing": "standardize"}
    data |= {"data_dir": Path("/data"), "cache_dir": Path("/cache")}
    data |= {"source": "csv", "image_size": 33, "test_size": 34}
    search: Options = {"seed": 1, "t1": 4, "t2": 5, "t3": 6, "reevaluate": True, "final_steps": 22}
    search |= {"final_on": "train+validation"}
    search |= {"budget": 1e9, "final_share": 0.25}
    genome: Options = {"capacity": 17, "channels": (18, 19), "kernels": (5,), "strides": (2,)}
    genome |= {"max_parameters": 420, "max_flops": 621, "kinds": ("pool", "depthwise"), "operators": ("swap",)}
    evolution: Options = {"primary_steps": 12, "secondary_steps": 13, "elitism": True, "saturation_gain": 0.0625}
    evolution |= {"saturation_window": 14, "max_primary_generations": 15, "max_secondary_generations": 16}
    evolution |= {"max_duplication_generations": 2, "max_repeats": 4, "extinguish_duplicates": True}
    evolution |= {"secondary_from": 0.5, "duplication_from": 0.75}
    evolution |= {"extinction": False, "redraws": 6, "min_flops_share": 0.25, "candidates": 5}
    evolution |= {"max_children": 30, "sample_size": 31, "ahead": 32}
    images: Options = {"pad": 1, "flip": False, "eval_batch_size": 10}
    recipe: Options = {"averaging": 0.96875, "nesterov": True}
    train: Options = {"batch_size": 7, "learning_rate": 0.25, "decay_steps": (8, 9), "decay_rate": 0.5}
    train |= {"momentum": 0.75, "weight_decay": 0.125, "mimicry_weight": 0.375, "temperature": 2.5}
    train |= {
        "dtype": "bfloat16",
        "devices": 7,
        "decay_rates": (10.0, 0.0),
        "schedule": "linear",
        "optimizer": plain_sgd,
        "loss": "squared-hinge",
    }
    teacher: Options = {"members": 5, "depth": 16, "growth": 23, "stem_stride": 2, "epochs": 24, "batch_size": 25}
    teacher |= {"learning_rate": 0.03125, "dtype": "bfloat16", "seed": 26}
    found = Found(image_shape=(32, 32, 3), num_classes=100, train=500)
    default = Settings(data=DataConfig(name="images", found=found))
    values: Options = data | search | genome | evolution | images | train | recipe | MACHINE | FITNESS
    values |= {f"teacher_{name}": value for name, value in teacher.items()}
    values |= {"run_dir": Path("/run"), "population": 11, "p": 4, "q": 3, "teacher": "live", "teacher_views": "center"}
    values |= {"teacher_logits": Path("/logits.npy"), "teacher_dir": Path("/teacher"), "strategy": "aging"}
    changed = with_values(default, values)
    assert [each.name for each in FLAGS.values() if each.of(changed) == each.of(default)] == []
    assert changed.data == DataConfig(name="images", found=found, **data)
    assert changed.search_config() == SearchConfig(
        **search,
        genome=GenomeSpec(**genome, num_classes=100),
        evolution=EvolutionConfig(**evolution, population_size=11, first_rank=4, second_rank=3),
        train=TrainConfig(**train, **images, **recipe),
    )
    assert changed.teacher_config() == TeacherConfig(**teacher, **images)
    assert changed.fitness.load() == Limited(Penalised("flops", 0.5), (("loss", 2.0), ("memory", 1e9)))


@pytest.mark.parametrize(("name", "shape"), [("digits", (8, 8, 1)), ("cifar10", (32, 32, 3))])
def test_the_search_space_is_that_of_the_data(name, shape):
    genome = PRESETS[name]["paper"].search_config().genome
    assert (genome.input_shape, genome.num_classes) == (shape, 10)


def test_a_run_does_not_depend_on_where_its_folders_are_or_how_the_machine_is_used():
    here = Settings()
    places = ("run_dir", "data_dir", "cache_dir", "teacher_dir", "teacher_logits")
    machine: Options = MACHINE | {"devices": 2}
    used = with_values(here, machine)
    assert here.outcome() == used.outcome()
    assert used.notes()["machine"] == machine
    elsewhere: Options = {name: Path("/elsewhere") / name for name in places}
    there = with_values(here, elsewhere)
    assert here.outcome() == there.outcome()
    assert there.notes()["folders"] == {name: f"/elsewhere/{name}" for name in places}
    assert here.notes()["folders"]["teacher_logits"] is None
    assert here.outcome() != with_values(here, {"seed": 1}).outcome()
    assert json.loads(json.dumps(here.outcome()))["t1"] == 5_000
    assert len(here.outcome()) == len(FLAGS) - len(places) - len(machine) - len(FITNESS) + 1


def test_a_run_is_of_its_fitness_by_the_name_that_says_all_of_it(tmp_path):
    assert Settings().fitness.load() == accuracy
    idle = with_values(Settings(), {"penalty_weight": 0.5})
    assert idle.outcome() == Settings().outcome()
    penalised = [with_values(Settings(), FITNESS | {"penalty_weight": weight}).outcome() for weight in (0.5, 0.25)]
    names = [
        f"accuracy - {weight} * log10(flops) where loss <= 2.0 and memory <= 1000000000.0" for weight in (0.5, 0.25)
    ]
    assert [each["fitness"] for each in penalised] == names
    (tmp_path / "lean.py").write_text("def fitness(measurement):\n    return -measurement.parameters\n")
    own = with_values(Settings(), {"fitness": f"{tmp_path}/lean.py:fitness", "limits": ("loss=2",)})
    assert re.fullmatch(r"lean:fitness [0-9a-f]{12} where loss <= 2\.0", own.outcome()["fitness"])
    own.check()


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ("--fitness precision", "there is no measurement 'precision'; choose from accuracy, balanced_accuracy, "),
        ("--fitness loss-flops", "--fitness is 'loss-flops'; a penalty is named SCORE-COST, as accuracy-parameters"),
        ("--limits latency", "--limits has 'latency'; it must be COST=NUMBER, each cost once, as latency=0.002"),
        ("--penalty-weight -1", "--penalty-weight is -1.0; it must be at least 0"),
        ("--fitness nothing.py:f", "--fitness: there is no file "),
    ],
)
def test_a_fitness_that_cannot_be_gets_one_line(argv, line):
    with pytest.raises(EigenError) as caught:
        read(*argv.split())
    assert caught.value.told(flag_of).startswith(line)


# What is said of values that cannot be, up to where others say as much.
REFUSED: dict[str, list[tuple[str, Any]]] = {
    "it must be at least 0": [
        *[("worker_cpus", -1.0), ("save_every", -1.0), ("time_limit", -1.0), ("final_steps", -1)],
        ("max_duplication_generations", -1),
    ],
    "it must be at least 1": [
        *[("workers", 0), ("threads", 0), ("devices", 0), ("p", 0), ("q", -1), ("batch_size", 0)],
        *[("t1", 0), ("t2", -1), ("t3", 0), ("validation_size", 0)],
    ],
    "it must be from 1 to 10,000": [("population", 0)],
    "it must be from 2 to 16": [("max_repeats", 1)],
    "it must be at most --population, which is 10": [("p", 11), ("q", 11)],
    "it must be at most 2,147,483,647": [("final_steps", 1 << 31), ("primary_steps", 1 << 31)],
    "it must be from 0 to 1": [("mimicry_weight", 1.5), ("mimicry_weight", -0.5)],
    "it must be from 1 to 16,384": [("capacity", 0)],
    "it must be more than 0": [("learning_rate", -1.0), ("temperature", 0.0), ("worker_gpus", 0.0)],
    "it must be a whole number, or a fraction of one": [("worker_gpus", 1.5)],
    "it must be 6 n + 4": [("teacher_depth", 11)],
    "it must be from 1 to 2": [("teacher_stem_stride", 3)],
    "it must be ": [
        *[("eval_batch_size", 0), ("pad", -1), ("split_seed", -1), ("seed", 1 << 32), ("max_flops", 0)],
        *[("teacher_members", 0), ("teacher_growth", 0), ("teacher_epochs", -1), ("teacher_batch_size", 0)],
        *[("teacher_learning_rate", 0.0), ("teacher_seed", 1 << 32)],
    ],
    "it must be at least 0 and less than 1": [("averaging", 1.0)],
    "": [("decay_steps", (3, 2)), ("kernels", (2,)), ("channels", ()), ("channels", (8, 8)), ("strides", (3,))],
}


@pytest.mark.parametrize(
    ("setting", "value", "message"), [(*each, message) for message, own in REFUSED.items() for each in own]
)
def test_a_value_that_cannot_be_is_named_as_on_the_command_line(setting, value, message):
    texts = map(str, value) if isinstance(value, tuple) else [str(value)]
    with pytest.raises(ConfigError) as caught:
        read(flag(setting), *texts)
    shown = caught.value.told(flag_of)
    assert shown.startswith(f"{flag(setting)} is {value}; {message}")
    assert "\n" not in shown


@pytest.mark.parametrize(
    ("config", "field", "value", "line"),
    [
        (SearchConfig, "t1", 0, "t1 is 0; it must be at least 1"),
        (EvolutionConfig, "first_rank", 0, "first_rank is 0; it must be at least 1"),
        (TrainConfig, "dtype", "float16", "dtype is 'float16'; it must be one of float32, bfloat16"),
        (TrainConfig, "momentum", float("nan"), "momentum is nan; it must be a finite number"),
        (TrainConfig, "batch_size", True, "batch_size is True; it must be a whole number"),
        (TrainConfig, "flip", 1, "flip is 1; it must be True or False"),
        (TrainConfig, "optimizer", 5, "optimizer is 5; it must be a name or a function"),
        (TrainConfig, "optimizer", "sdg", NO_OPTIMIZER),
        (TrainConfig, "loss", "hinge", f"there is no loss 'hinge'; choose from {', '.join(LOSSES)}"),
        (TrainConfig, "schedule", "cosine", "schedule is 'cosine'; it must be one of constant, linear, one-cycle"),
        (GenomeSpec, "channels", [8], "channels is [8]; it must be a tuple"),
        (GenomeSpec, "channels", (8, 0), "channels is (8, 0); it must be from 1 to 4,096, each"),
    ],
)
def test_from_python_a_value_that_cannot_be_is_named_as_its_field(config, field, value, line):
    with refuses(ConfigError, line):
        config(**{field: value})


def test_an_error_cannot_name_a_setting_that_there_is_not_and_survives_the_way_from_a_worker():
    with pytest.raises(KeyError, match="batchsize"):
        ConfigError(TrainConfig, "{batchsize} is {}", 3)
    error = copy.copy(ConfigError(TrainConfig, "{devices} is {}", "{odd}"))  # as pickling does
    assert (str(error), error.told(flag_of)) == ("devices is {odd}", "--devices is {odd}")


def test_a_batch_must_be_a_multiple_of_the_devices():
    with pytest.raises(ConfigError) as caught:
        read("--devices", "3")
    assert caught.value.told(flag_of) == "--batch-size is 128; it must be a multiple of --devices, which is 3"


@pytest.mark.parametrize(
    "argv",
    [
        *("--t1 0", "--teacher-depth 11", "--mimicry-weight 1.5", "--temperature 0", "--mimicry-weight 0"),
        *("--final-steps -1", "--max-repeats 1"),
    ],
)
def test_settings_are_checked_before_the_data_are_loaded(argv, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(runner, "load_data", lambda settings: pytest.fail("the data were loaded"))
    option, value = argv.split()
    line = refused(
        capsys, functools.partial(runner.main, "cifar10"), "--preset=paper", option, value, *places(tmp_path)
    )
    assert line.startswith(f"{option} is ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", PRESETS)
def test_the_presets_can_be(name):
    known = {"digits": ["paper", "small", "smoke"], "images": ["hour", "small", "smoke"]}
    assert list(PRESETS[name]) == known.get(name, ["paper", "evening", "hour", "small", "smoke", "gpu"])
    for preset, settings in PRESETS[name].items():
        if name == "images":
            found = Found(image_shape=(64, 64, 3), num_classes=3, train=400)
            settings = dataclasses.replace(settings, data=dataclasses.replace(settings.data, found=found))
        settings.check()
        assert settings.data.name == name
        dtype = "bfloat16" if preset == "gpu" else "float32"
        assert (settings.search.train.dtype, settings.ensemble.dtype) == (dtype, "float32")
        assert settings.run_dir == Path("runs") / f"{name}-{preset}"
        assert settings.teacher_dir == Path("runs") / f"{name}-{preset}-teacher"
        assert settings.search.train.decay_steps[-1] <= settings.search.landmarks[-1]


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_small_budgets_are_of_all_images_and_their_figures_the_issues(name):
    assert (PRESETS[name]["evening"].search.budget, PRESETS[name]["hour"].search.budget) == (7e14, 2.3e14)
    for preset in ("evening", "hour", "gpu"):
        assert PRESETS[name][preset].data.validation_size == 5_000


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_the_preset_of_a_gpu_needs_one_training_program_a_network(name):
    settings = PRESETS[name]["gpu"]
    assert [each % GPU.steps_per_call for each in settings.search.landmarks] == [0, 0, 0]
    assert settings.machine.worker_gpus == 1 / 12
    assert settings.search.train.eval_batch_size == settings.search.train.batch_size, "convolutions are tried once"


@pytest.mark.parametrize(
    ("name", "has_gpu", "preset"),
    [
        ("cifar10", False, "evening"),
        ("cifar100", False, "evening"),
        ("cifar100", True, "paper"),
        ("digits", False, "small"),
    ],
)
def test_without_a_gpu_months_of_work_must_be_asked_for(monkeypatch, capsys, name, has_gpu, preset):
    monkeypatch.setattr(presets, "finds_gpu", lambda: has_gpu)
    settings = parse([], program="prog", dataset=name)
    assert settings == in_place(PRESETS[name][preset])
    told = "Preset evening, since JAX finds no GPU (paper, where it finds one); --preset NAME chooses\n"
    assert capsys.readouterr() == (told if preset == "evening" else "", "")
    assert parse(["--preset", "paper"], program="prog", dataset=name) == in_place(PRESETS[name]["paper"])
    assert capsys.readouterr() == ("", "")


# --- Command line ----------------------------------------------------------------------------


def test_without_arguments_the_default_preset_holds():
    assert read() == in_place(CHOICES["plain"])


def test_settings_are_changes_to_a_preset_in_any_order():
    expected = with_values(in_place(CHOICES["other"]), {"seed": 3, "learning_rate": 0.5})
    assert read("--preset", "other", "--seed", "3", "--learning-rate", "5e-1") == expected
    assert read("--seed=3", "--learning-rate=0.5", "--preset=other") == expected


def test_values_of_every_type_are_read():
    settings = read(
        *("--run-dir", "runs/a b", "--data-dir", "/d", "--channels", "8", "16", "--decay-steps", "--no-flip"),
        *("--elitism", "--preprocessing", "standardize", "--weight-decay", "0", "--max-flops", "3_000"),
        *("--kinds", "pool", "depthwise", "--operators", "--nesterov", "--averaging", "0.95"),
    )
    train = settings.search.train
    assert (settings.run_dir, settings.data.data_dir) == (Path.cwd() / "runs" / "a b", Path("/d"))
    assert (settings.search.genome.channels, train.decay_steps) == ((8, 16), ())
    assert (settings.search.genome.kinds, settings.search.genome.operators) == (("pool", "depthwise"), ())
    assert (train.flip, settings.search.evolution.elitism, settings.data.preprocessing) == (False, True, "standardize")
    assert (train.nesterov, train.averaging) == (True, 0.95)
    assert (train.weight_decay, settings.search.genome.max_flops) == (0.0, 3_000)
    assert isinstance(train.weight_decay, float)


def test_an_optimizer_is_named_or_loaded_from_a_file_and_told_by_a_name_that_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", "")
    (tmp_path / "own_optimizer.py").write_text("import optax\n\n\ndef plain(config):\n    return optax.sgd(0.5)\n")
    settings = read("--optimizer", f"{tmp_path / 'own_optimizer.py'}:plain", "--decay-rates", "10", "0")
    assert settings.search.train.optimizer is sys.modules["own_optimizer"].plain
    assert settings.search.train.decay_rates == (10.0, 0.0)
    assert json.loads(json.dumps(settings.outcome()))["optimizer"].startswith("own_optimizer:plain ")
    assert read("--optimizer", "sgd").outcome()["optimizer"] == "sgd"
    with mock.patch.dict(CHOICES, plain=with_values(CHOICES["plain"], {"optimizer": plain_sgd})):
        assert read().outcome()["optimizer"] == name_of(plain_sgd)
        assert read().search.train.optimizer is plain_sgd
    with refuses(ConfigError, NO_OPTIMIZER):
        read("--optimizer", "sdg")
    with pytest.raises(EigenError, match=r"^--optimizer: .*own_optimizer.py has no 'other'; it has "):
        read("--optimizer", f"{tmp_path / 'own_optimizer.py'}:other")


def test_a_number_of_a_preset_that_need_not_be_given_is_taken_back(capsys):
    with mock.patch.dict(CHOICES, plain=with_values(CHOICES["plain"], {"final_steps": 9, "budget": 1e9})):
        assert read().search.final_steps == 9
        search = read("--final-steps", "none", "--budget", "none").search
    assert (search.final_steps, search.budget) == (None, None)
    assert read("--workers", "none", "--budget", "2.3e14").search.budget == 2.3e14
    assert "--t1: is 'none'; it must be a whole number" in refused_box(capsys, "--t1", "none")


def test_a_config_is_described_by_all_its_fields_and_functions_by_their_names():
    plain = SearchConfig(seed=3)
    assert describe_config(plain) == dataclasses.asdict(plain)
    own = dataclasses.replace(plain, train=TrainConfig(optimizer=plain_sgd))
    train = describe_config(plain)["train"] | {"optimizer": name_of(plain_sgd)}
    assert describe_config(own) == describe_config(plain) | {"train": train}


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
    "landmarks": (landmarks.main, ["RUN", "--output"]),
    "report": (report.main, ["RUN", "--output", "--data-dir", "--cache-dir"]),
    "chaos": (chaos.main, ["--folder"]),
    "benchmark": (benchmark.main, ["--json", "--search"]),
    "reproduce": (reproduce_command.main, ["--runs-dir", "--output"]),
}


@pytest.mark.parametrize(
    ("command", "option"), [(main, option) for main, options in COMMANDS.values() for option in options]
)
def test_every_path_of_every_command_may_start_in_a_home_folder(capsys, command, option):
    argv = [f"{option}=~nobody-here/x"] if option.startswith("-") else ["~nobody-here/x"]
    assert refused(capsys, command, *argv).startswith((f"{option}: {NO_HOME}", f"{option} {NO_HOME}"))


@pytest.mark.parametrize("option", [flag(each.name) for each in FLAGS.values() if each.is_place])
def test_every_path_of_the_settings_may_start_in_a_home_folder(capsys, option):
    assert f"{option}: {NO_HOME}" in refused_box(capsys, f"{option}=~nobody-here/x")


def test_the_network_to_be_trained_may_be_in_a_home_folder(capsys):
    assert refused(capsys, retrain.main, "~nobody-here/x", "--dataset", "digits").startswith(f"GENOME: {NO_HOME}")


def test_a_path_that_is_empty_or_starts_from_a_folder_that_is_gone_is_refused(tmp_path, monkeypatch, capsys):
    assert "--run-dir: is empty; it must be a path" in refused_box(capsys, "--run-dir", "")
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    gone = "--run-dir: is 'x', and the folder that it starts from, where you are, is gone; go to another one"
    assert gone in refused_box(capsys, "--run-dir", "x")


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
        (["--preset"], "--preset: expected one argument; --help explains every setting"),
        (["--batch_size=3"], "there is no setting '--batch_size'; did you mean --batch-size?"),
    ],
)
def test_a_preset_that_there_is_not_gets_one_line(argv, message):
    with refuses(EigenError, message):
        read(*argv)


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (["--poplation", "3"], "Unrecognized options: --poplation, 3 Perhaps you meant: --population N"),
        (["--no-flips"], "Unrecognized options: --no-flips Perhaps you meant: --flip, --no-flip"),
        (["--popul=3"], "Unrecognized options: --popul=3 "),
        (["--zzz", "3"], "Unrecognized options: --zzz, 3"),
        (["3"], "Unrecognized options: 3"),
        (["--teacher-momentum"], "Unrecognized options: --teacher-momentum"),
        (["--t1", "abc"], "--t1: is 'abc'; it must be a whole number"),
        (["--t1", "1.5"], "--t1: is '1.5'; it must be a whole number"),
        (["--workers", "many"], "--workers: is 'many'; it must be a whole number"),
        (["--learning-rate", "fast"], "--learning-rate: is 'fast'; it must be a finite number"),
        (["--learning-rate", "nan"], "--learning-rate: is 'nan'; it must be a finite number"),
        (["--time-limit", "inf"], "--time-limit: is 'inf'; it must be a finite number"),
        (["--channels", "8", "x"], "--channels: is 'x'; it must be a whole number"),
        (
            ["--preprocessing", "standardise"],
            "'standardise' for argument '--preprocessing'. Expected one of ('gcn",
        ),
        (["--dtype", "bf16"], "invalid choice 'bf16' for argument '--dtype'. Expected one of ('float32', 'bfloat16')"),
        (
            ["--teacher", "nobody"],
            "invalid choice 'nobody' for argument '--teacher'. Expected one of ('cache',",
        ),
        (["--final-on", "test"], "invalid choice 'test' for argument '--final-on'"),
        (["--teacher-views", "centre"], "invalid choice 'centre' for argument '--teacher-views'"),
        (["--t1"], "Missing value for argument '--t1'"),
    ],
)
def test_a_command_line_that_cannot_be_gets_a_short_box(argv, part, capsys):
    box = refused_box(capsys, *argv)
    assert part in box
    assert len(box) < 600


def test_the_help_explains_every_setting_with_the_values_of_the_preset(capsys):
    with pytest.raises(SystemExit) as caught:
        read("--help", "--preset", "other", "--seed", "5")
    assert caught.value.code == 0
    help = plain(capsys.readouterr().out)
    squeezed = help.replace(" ", "")  # lines are broken within numbers as well
    for (config, field), each in FLAGS.items():
        known = {name: known for name, _, known in settings_of(config)}[field]
        assert f" {flag(each.name)} " in help or f" {flag(each.name)}, " in help
        text = known.help + (f" (paper: {known.paper})" if each.is_of_outcome else "")
        assert text.replace(" ", "") in squeezed
    assert "T1: training steps to the first landmark (paper: 5,000) (default: 7)" in help
    assert "mirror half of the training images (paper: not stated) (default: False)" in help
    assert "the preset other; --preset NAME starts from another one: plain, other" in help
    # Places of the run, the data, the cache, the teacher and logits, and the use of the machine: the paper has no
    # value for them.
    assert squeezed.count("(paper:") == len(FLAGS) - 5 - 1 - len(MACHINE) - len(FITNESS)


def test_kinds_and_operators_of_the_users_own_are_loaded_from_their_files(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", "")
    examples = Path(__file__).resolve().parents[1] / "docs" / "examples"
    for name in ("new_layer_kind", "new_operator"):
        subprocess.run(["git", "apply", str(examples / f"{name}.diff")], cwd=tmp_path, check=True)
    settings = read(
        *("--kinds", "conv", "concat", "pool", f"{tmp_path / 'new_layer_kind.py'}:GATE"),
        *("--operators", f"{tmp_path / 'new_operator.py'}:SWAP"),
    )
    assert settings.search.genome.kinds == ("conv", "concat", "pool", "gate")
    assert settings.search.genome.operators == ("swap_neighbours",)
    with pytest.raises(EigenError, match=r"^--kinds: .*new_operator.py has no 'GATE'; it has "):
        read("--kinds", "conv", f"{tmp_path / 'new_operator.py'}:GATE")


def test_what_is_no_strategy_or_registers_nothing_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", "")
    text = "from eigen_jax.layer_kinds import KINDS\nimport dataclasses\nNUMBER = 3\n"
    text += "CONV = dataclasses.replace(KINDS.find('conv'), halves=False)\n"
    (tmp_path / "strange_things.py").write_text(text)
    for name in ("NUMBER", "CONV"):
        place = f"{tmp_path / 'strange_things.py'}:{name}"
        with refuses(EigenError, f"--kinds: {place} is no layer kind that its file registers"):
            read("--kinds", "conv", place)
        with refuses(EigenError, f"--strategy: {place} is no class that derives from eigen_jax.Strategy"):
            read("--strategy", place)
