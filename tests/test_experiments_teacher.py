"""The teacher's command, and the teacher that a search gets from its settings."""

import functools
import io
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands_data import leave_process_alone, refused, with_values
from rich.console import Console
from teacher_data import make_teacher

from eigen_jax.data import apply_views, join_validation, load_dataset
from eigen_jax.errors import ConfigError
from eigen_jax.teacher import (
    CachedLogits,
    Ensemble,
    EnsembleRecord,
    LogitsLayout,
    MemberRecord,
    Questions,
    TeacherConfig,
    TeacherError,
    read_teacher,
)
from experiments import teacher
from experiments.command_line import parse
from experiments.presets import PRESETS
from experiments.settings import Settings
from experiments.teacher import TeacherConsole, prepare_teacher, train_teacher

TINY = (
    *("--dataset", "digits", "--preset", "smoke", "--teacher-members", "2", "--teacher-depth", "10"),
    *("--teacher-growth", "4", "--teacher-epochs", "1", "--teacher-batch-size", "400", "--eval-batch-size", "360"),
)
own_settings = pytest.fixture(leave_process_alone, autouse=True)


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> Settings:
    """Those of TINY, in folders of this module."""
    folder = tmp_path_factory.mktemp("teacher")
    tiny = parse(TINY, program="", about="")
    return with_values(tiny, {"teacher_dir": folder / "teacher", "cache_dir": folder / "cache"})


@pytest.fixture(scope="module")
def dataset(settings):
    return load_dataset(settings.data)


@pytest.fixture(scope="module")
def trained(settings, dataset) -> Ensemble:
    return train_teacher(settings, dataset, Console(file=io.StringIO()))


def prepare(settings, dataset, **changes):
    """The teacher, and what was shown."""
    shown = io.StringIO()
    console = Console(file=shown, highlight=False, width=200)
    return prepare_teacher(with_values(settings, changes), dataset, console), shown.getvalue()


def test_the_command_trains_evaluates_and_saves(settings, trained, capsys):
    record = read_teacher(settings.teacher_dir)
    folders = ("--teacher-dir", str(settings.teacher_dir), "--cache-dir", str(settings.data.cache_dir))
    assert teacher.main([*TINY, *folders]) == 0
    shown = capsys.readouterr().out
    assert record.ensemble is not None
    measured: list[MemberRecord | EnsembleRecord] = [*record.members, record.ensemble]
    for each in measured:
        assert f"{100 * each.validation_accuracy:.1f} % of validation" in shown
        assert f"{100 * each.test_accuracy:.1f} % of test images; {each.parameters:,} parameters" in shown
    assert str(settings.teacher_dir) in shown


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ((), "--dataset is missing"),
        (("--dataset", "digits", "--teacher-depth", "11"), "--teacher-depth is 11; it must be 6 n + 4"),
        (("--dataset", "digit"), "there is no data set 'digit'; did you mean digits? choose from"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_done(argv, message, capsys):
    assert message in refused(capsys, teacher.main, *argv)


def test_the_folder_of_another_teacher_is_refused_in_terms_of_the_command(settings, trained, capsys):
    tiny = functools.partial(refused, capsys, teacher.main, *TINY, f"--cache-dir={settings.data.cache_dir}")
    own, new = (f"--teacher-dir={folder}" for folder in (settings.teacher_dir, settings.data.cache_dir / "new"))
    message = tiny(own, "--teacher-growth", "5", "--teacher-learning-rate", "0.2")
    assert "--teacher-growth was 4 and is now 5, --teacher-learning-rate was 0.1 and is now 0.2" in message
    assert "--flip" not in message
    message = tiny(own, "--teacher-dtype", "bfloat16")
    assert "--teacher-dtype was 'float32' and is now 'bfloat16'; choose another folder" in message
    message = tiny(own, "--split-seed", "1")
    assert "was trained on other data: fingerprint of preprocessing, split and images was" in message
    message = tiny(new, "--teacher-batch-size", "5000")
    assert "--teacher-batch-size is 5000; the training set has only 1200 images" in message


def test_the_teacher_has_the_crops_and_flips_of_its_students(settings):
    config = with_values(settings, {"pad": 3, "flip": True, "teacher_seed": 7, "seed": 1}).teacher_config()
    assert (config.pad, config.flip, config.seed) == (3, True, 7)
    assert (config.members, config.depth, config.growth, config.epochs, config.batch_size) == (2, 10, 4, 1, 400)
    assert PRESETS["cifar10"]["paper"].teacher_config() == TeacherConfig()


def test_without_mimicry_there_is_no_teacher(settings, dataset):
    assert prepare(settings, dataset, teacher="none", teacher_dir=Path("/nowhere")) == (None, "")


def test_a_live_teacher_is_the_ensemble_and_its_cost_is_told(settings, dataset, trained):
    live, shown = prepare(settings, dataset, teacher="live")
    assert live.fingerprint == trained.fingerprint
    assert "Live teacher: about " in shown
    assert "ms more for each training step of 64 images" in shown


@pytest.mark.parametrize("final_on", ["train", "train+validation"])
def test_cached_logits_are_of_all_images_that_are_trained_on(settings, dataset, trained, final_on):
    cached, shown = prepare(settings, dataset, teacher="cache", final_on=final_on)
    assert isinstance(cached, CachedLogits)
    whole = join_validation(dataset).train_images
    images = whole if final_on == "train+validation" else dataset.train_images
    assert cached.logits.shape == (len(images), 9, 10)  # 3 x 3 crops at a padding of 1
    examples = jnp.array([0, 5, len(images) - 1])
    views = jnp.array([0, 8, 16])
    seen = apply_views(images[examples], views, pad=1)
    expected = jax.jit(lambda *asked: trained(*asked))(examples, views, seen)
    np.testing.assert_allclose(cached(examples, views, seen), expected, rtol=2**-10, atol=1e-4)
    cost = f"9 views of {len(images):,} images, {9 * len(images):,} forward passes, about "
    assert cost in shown
    assert "--teacher-views center: 1 view of" in shown
    assert shown.index(cost) < shown.index("--teacher live: about ")
    again, shown = prepare(settings, dataset, teacher="cache", final_on=final_on)
    assert again.fingerprint == cached.fingerprint
    assert "forward passes" not in shown


def test_a_file_of_logits_is_mimicked_without_a_trained_teacher(settings, dataset, tmp_path):
    count = dataset.train_images.shape[0]
    array = np.random.default_rng(0).normal(size=(count, 10)).astype(np.float32)
    np.save(tmp_path / "logits.npy", array)
    changes = {"teacher_logits": tmp_path / "logits.npy", "teacher_dir": tmp_path / "none"}
    whom, shown = prepare(settings, dataset, teacher="cache", **changes)
    assert str(tmp_path / "logits.npy") in shown
    examples = jnp.array([3, count - 1])
    np.testing.assert_array_equal(whom(examples, jnp.array([4, 0]), jnp.zeros((2, 8, 8, 1))), array[[3, count - 1]])
    assert not (tmp_path / "none").exists()
    for kind in ("live", "none"):
        with pytest.raises(ConfigError, match=f"teacher is '{kind}', and teacher_logits is a file; leave one out"):
            with_values(settings, {"teacher": kind, **changes}).check()
    with pytest.raises(ConfigError, match="mimicry_weight is 0, so nobody would be mimicked; use --teacher none"):
        with_values(settings, {"mimicry_weight": 0}).check()
    with pytest.raises(TeacherError, match=r"for these data it must be \[1437, 18, 10\]"):
        prepare(settings, dataset, teacher="cache", final_on="train+validation", **changes)


def test_progress_says_the_time_left_of_all_members():
    shown, now = io.StringIO(), [0.0]
    console = Console(file=shown, highlight=False, width=200)
    accuracies: dict[str, Any] = {"validation_accuracy": 0.5, "test_accuracy": 0.25}
    member = MemberRecord(**accuracies, parameters=4_000, steps=1_000, train_seconds=60.0, compile_seconds=5.0)
    ensemble = EnsembleRecord(parameters=12_000, validation_accuracy=0.75, test_accuracy=1.0, fingerprint="x")
    with TeacherConsole(console, clock=lambda: now[0]) as observer:
        observer.teacher_started(config=TeacherConfig(members=3), steps=1_000)
        observer.member_started(member=1, step=200)
        now[0] = 11.0
        observer.training_progress(member=1, step=250, until=1_000, loss=1.5, steps_per_second=5.0)
        now[0] = 12.0
        observer.training_progress(member=1, step=300, until=1_000, loss=1.4, steps_per_second=5.0)
        observer.member_finished(member=1, record=member)
        observer.teacher_finished(record=ensemble)
        layout, images = LogitsLayout(num_classes=10, pad=4, flip=True), jnp.zeros((100, 1))
        observer.caching_started(
            Questions(teacher=make_teacher(), images=images, layout=layout), batch_size=64, rate=100.0
        )
        now[0] = 24.0
        observer.caching_progress(5_400, 16_200)
    assert shown.getvalue().splitlines() == [
        "Teacher: 3 Wide-DenseNet-BC, 1,000 training steps each",
        "  member 1 goes on from step 200",
        # 750 steps of this member and 1,000 of the one after it, at 5 a second.
        "  member 1: 250/1,000, loss 1.5, 5.0 steps/s, 5 min 50 s left for all members",
        "teacher's member 1    50.0 % of validation,  25.0 % of test images; 4,000 parameters, 1 min 5 s",
        "teacher               75.0 % of validation, 100.0 % of test images; 12,000 parameters",
        "Teacher's logits, once for all networks: 162 views of 100 images, 16,200 forward passes, about 2 min 42 s,"
        " 324.0 kB",
        "  instead of it, --teacher-views center: 2 views of 100 images, 200 forward passes, about 2 s, 4.0 kB;"
        " --teacher live: about 640 ms more for each training step of 64 images",
        "  logits: 5,400/16,200; about 24 s left",
    ]
