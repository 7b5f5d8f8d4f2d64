"""Settings, presets, and the command line made from them."""

import dataclasses
import json
from pathlib import Path

import jax.numpy as jnp
import pytest

from eigen_jax.data import DataConfig, Dataset
from eigen_jax.evolution import EvolutionConfig
from eigen_jax.genome import GenomeSpec
from eigen_jax.search import SearchConfig
from eigen_jax.training import TrainConfig
from experiments.command_line import parse
from experiments.presets import DEFAULT_PRESET, PRESETS
from experiments.settings import Settings, SettingsError, flag, with_flags

CHOICES = {
    "plain": Settings(),
    "other": Settings(t1=7, flip=False, data_dir=Path("/data"), decay_steps=(), run_dir=Path("runs/other")),
}


def read(*argv: str) -> Settings:
    return parse(argv, program="prog", presets=CHOICES, default="plain")


def tiny_dataset(num_train: int = 30) -> Dataset:
    """Zeros of 5 x 6 pixels and 2 channels, in 3 classes."""

    def part(size):
        return jnp.zeros((size, 5, 6, 2), jnp.float32), jnp.zeros(size, jnp.int32)

    (train, train_labels), (validation, validation_labels), (test, test_labels) = part(num_train), part(4), part(4)
    return Dataset(
        train_images=train,
        train_labels=train_labels,
        validation_images=validation,
        validation_labels=validation_labels,
        test_images=test,
        test_labels=test_labels,
        num_classes=3,
        name="digits",
        fingerprint="0",
    )


# --- Settings --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_the_paper_preset_is_section_4_1(name):
    settings = PRESETS[name]["paper"]
    stated = {
        "population": 10,
        "primary_steps": 100,
        "secondary_steps": 10,
        "t1": 5_000,
        "t2": 15_000,
        "t3": 5_000,
        "momentum": 0.9,
        "batch_size": 128,
        "learning_rate": 0.1,
        "decay_rate": 0.1,
        "decay_steps": (15_000, 20_000),
        "weight_decay": 0.0005,
        "validation_size": 5_000,
        "preprocessing": "gcn_zca",
        "pad": 4,
        "flip": True,
    }
    assert {key: getattr(settings, key) for key in stated} == stated
    assert DEFAULT_PRESET[name] == "paper"


def test_every_setting_reaches_the_library():
    changed = Settings(
        run_dir=Path("/run"),
        seed=1,
        reevaluate=True,
        data_dir=Path("/data"),
        cache_dir=Path("/cache"),
        validation_size=2,
        split_seed=3,
        preprocessing="standardize",
        pad=1,
        flip=False,
        t1=4,
        t2=5,
        t3=6,
        batch_size=7,
        learning_rate=0.25,
        decay_steps=(8, 9),
        decay_rate=0.5,
        momentum=0.75,
        weight_decay=0.125,
        eval_batch_size=10,
        population=11,
        primary_steps=12,
        secondary_steps=13,
        p=4,
        q=3,
        elitism=True,
        saturation_gain=0.0625,
        saturation_window=14,
        max_primary_generations=15,
        max_secondary_generations=16,
        capacity=17,
        channels=(18, 19),
        kernels=(5,),
        strides=(2,),
        max_parameters=20,
        max_flops=21,
    )
    unchanged = [
        field.name
        for field in dataclasses.fields(Settings)
        if getattr(changed, field.name) == getattr(Settings(), field.name)
    ]
    assert unchanged == []
    assert changed.data_config("cifar100") == DataConfig(
        name="cifar100",
        data_dir=Path("/data"),
        cache_dir=Path("/cache"),
        validation_size=2,
        split_seed=3,
        preprocessing="standardize",
    )
    assert changed.search_config(tiny_dataset()) == SearchConfig(
        seed=1,
        t1=4,
        t2=5,
        t3=6,
        reevaluate=True,
        genome=GenomeSpec(
            capacity=17,
            channels=(18, 19),
            kernels=(5,),
            strides=(2,),
            input_shape=(5, 6, 2),
            num_classes=3,
            max_parameters=20,
            max_flops=21,
        ),
        evolution=EvolutionConfig(
            population_size=11,
            primary_steps=12,
            secondary_steps=13,
            first_rank=4,
            second_rank=3,
            elitism=True,
            saturation_gain=0.0625,
            saturation_window=14,
            max_primary_generations=15,
            max_secondary_generations=16,
        ),
        train=TrainConfig(
            batch_size=7,
            learning_rate=0.25,
            decay_steps=(8, 9),
            decay_rate=0.5,
            momentum=0.75,
            weight_decay=0.125,
            pad=1,
            flip=False,
            eval_batch_size=10,
        ),
    )


def test_a_run_does_not_depend_on_where_its_folders_are():
    here, there = Settings(), Settings(run_dir=Path("/a"), data_dir=Path("/b"), cache_dir=Path("/c"))
    assert here.outcome() == there.outcome()
    assert here.outcome() != Settings(seed=1).outcome()
    assert json.loads(json.dumps(here.outcome()))["t1"] == 5_000
    assert len(here.outcome()) == len(dataclasses.fields(Settings)) - 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"t1": 0}, "--t1 is 0; "),
        ({"t2": -1}, "--t2 is -1; "),
        ({"t3": 0}, "--t3 is 0; "),
        ({"population": 0}, "--population is 0; "),
        ({"p": 0}, "--p is 0; "),
        ({"q": 11}, "--q is 11; it must be at most --population, which is 10"),
        ({"batch_size": 0}, "--batch-size is 0; "),
        ({"eval_batch_size": 0}, "--eval-batch-size is 0; "),
        ({"decay_steps": (3, 2)}, "--decay-steps is (3, 2); "),
        ({"pad": -1}, "--pad is -1; "),
        ({"validation_size": 0}, "--validation-size is 0; "),
        ({"split_seed": -1}, "--split-seed is -1; "),
        ({"seed": 1 << 32}, "--seed is 4294967296; "),
        ({"capacity": 0}, "--capacity is 0; "),
        ({"kernels": (2,)}, "--kernels is (2,); "),
        ({"max_flops": 0}, "--max-flops is 0; "),
        ({"primary_steps": 1 << 31}, "--primary-steps is 2147483648; it must be at most 2147483647"),
    ],
)
def test_a_value_that_cannot_be_is_named_as_on_the_command_line(values, message):
    with pytest.raises(SettingsError) as caught:
        Settings(**values).check("cifar10")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


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
        settings.check(name)
        assert settings.run_dir == Path("runs") / f"{name}-{preset}"
        assert settings.decay_steps[-1] < settings.t1 + settings.t2 + settings.t3


# --- Command line ----------------------------------------------------------------------------


def test_without_arguments_the_default_preset_holds():
    assert read() == CHOICES["plain"]


def test_settings_are_changes_to_a_preset_in_any_order():
    expected = dataclasses.replace(CHOICES["other"], seed=3, learning_rate=0.5)
    assert read("--preset", "other", "--seed", "3", "--learning-rate", "5e-1") == expected
    assert read("--seed=3", "--learning-rate=0.5", "--preset=other") == expected


def test_values_of_every_type_are_read():
    settings = read(
        *("--run-dir", "runs/a b", "--data-dir", "/d", "--channels", "8", "16", "--decay-steps", "--no-flip"),
        *("--elitism", "--preprocessing", "standardize", "--weight-decay", "0", "--max-flops", "3_000"),
    )
    assert (settings.run_dir, settings.data_dir) == (Path("runs/a b"), Path("/d"))
    assert (settings.channels, settings.decay_steps) == ((8, 16), ())
    assert (settings.flip, settings.elitism, settings.preprocessing) == (False, True, "standardize")
    assert (settings.weight_decay, settings.max_flops) == (0.0, 3_000)
    assert isinstance(settings.weight_decay, float)


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
    assert "mirror half of the training images (paper: yes) [no]" in help
    folders = 3  # the run's, the data's and the cache's: the paper has no value for them
    assert help.count("(paper: ") == len(dataclasses.fields(Settings)) - folders
