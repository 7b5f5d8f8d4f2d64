"""The teacher that settings ask for: trained where it is not there yet, and asked as they say."""

import contextlib
import dataclasses
import re
from collections.abc import Iterator

from jax import Array
from rich.console import Console

from eigen_jax.data import Dataset, join_validation
from eigen_jax.data.types import DatasetName
from eigen_jax.resumable import Care
from eigen_jax.store.locks import ShouldStop, never
from eigen_jax.teacher import (
    CachedLogits,
    Ensemble,
    LogitsCost,
    LogitsLayout,
    MappedLogits,
    TeacherConfig,
    TeacherError,
    cache_logits,
    logits_cost,
    measure_rate,
    read_logits,
    train_ensemble,
)
from eigen_jax.training import Teacher
from experiments.settings import Settings, SettingsError
from experiments.teaching_progress import TeacherConsole, describe_cost

# Fields of `TeacherConfig` that are settings under the name teacher_*.
_SET = ("members", "depth", "growth", "stem_stride", "epochs", "batch_size", "learning_rate", "dtype", "seed")
_VALUED_FIELD = re.compile(rf"(?<![\w-])({'|'.join(_SET)})(?= (?:is|was) )")


def teacher_config(settings: Settings) -> TeacherConfig:
    """The teacher that settings ask for; it sees the same crops and flips as its students.

    Raises:
        SettingsError: a value that no teacher can be made with.
    """
    try:
        return TeacherConfig(
            **{name: getattr(settings, f"teacher_{name}") for name in _SET},
            pad=settings.pad,
            flip=settings.flip,
            eval_batch_size=settings.eval_batch_size,
        )
    except TeacherError as error:
        raise SettingsError(_as_settings(str(error))) from None


def check_settings(name: DatasetName, settings: Settings) -> None:
    """Checks all that can be checked before the data are loaded.

    Raises:
        SettingsError: a value that cannot be.
    """
    settings.check(name)
    teacher_config(settings)
    if settings.teacher != "none" and settings.mimicry_weight == 0:
        raise SettingsError("mimicry_weight is 0, so nobody would be mimicked; use --teacher none")
    if settings.teacher != "cache" and settings.teacher_logits is not None:
        raise SettingsError(f"teacher is {settings.teacher!r}, and teacher_logits is a file; leave one out")


def prepare_teacher(
    name: DatasetName, settings: Settings, dataset: Dataset, console: Console, should_stop: ShouldStop = never
) -> Teacher | None:
    """Whom networks mimic, ready to be asked; None where nobody is mimicked.

    Trains the teacher where it is not there yet, and says what asking it costs before it is asked.
    Where the final training is on validation images too, the teacher knows them, as examples that
    follow the training images.

    Args:
        name: of the data set.
        settings: what is asked for.
        dataset: the data, with the validation images apart.
        console: where progress is shown.
        should_stop: whether to save and to leave.

    Raises:
        StoppedError: it was asked to stop.
        SettingsError: settings that contradict each other, or of which no teacher can be made.
        TeacherError: the teacher cannot be trained or read, or belongs to other data.
    """
    if settings.teacher == "none":
        return None
    layout = LogitsLayout(
        num_classes=dataset.num_classes, pad=settings.pad, flip=settings.flip, views=settings.teacher_views
    )
    joined = settings.final_on == "train+validation"
    images = join_validation(dataset).train_images if joined else dataset.train_images
    if settings.teacher_logits is not None:
        return _read_file(name, settings, layout, images, console)
    ensemble = train_teacher(settings, dataset, console, should_stop)
    if settings.teacher == "live":
        _tell_live_cost(ensemble, settings, layout, images, console)
        return ensemble
    return _cache(ensemble, settings, layout, dataset.fingerprint, images, console, should_stop)


def train_teacher(settings: Settings, dataset: Dataset, console: Console, should_stop: ShouldStop = never) -> Ensemble:
    """Trains the teacher, or finds it, with progress on the screen.

    Raises:
        StoppedError: it was asked to stop, and is saved.
        SettingsError: no teacher can be made of the settings.
        TeacherError: it cannot be trained, or its folder belongs to another one.
    """
    config = teacher_config(settings)
    with TeacherConsole(console) as observer, _errors_name_settings():
        return train_ensemble(
            config,
            dataset,
            settings.teacher_dir,
            observer=observer,
            devices=settings.devices,
            care=Care(save_every=settings.save_every, should_stop=should_stop),
        )


def _read_file(
    name: DatasetName, settings: Settings, layout: LogitsLayout, images: Array, console: Console
) -> CachedLogits | MappedLogits:
    path = settings.teacher_logits
    assert path is not None
    logits = read_logits(path, layout, num_examples=images.shape[0])
    console.print(f"Teacher for {name}: the logits in {path}", style="bold", soft_wrap=True)
    return logits


def _cache(
    ensemble: Ensemble,
    settings: Settings,
    layout: LogitsLayout,
    data_fingerprint: str,
    images: Array,
    console: Console,
    should_stop: ShouldStop,
) -> CachedLogits | MappedLogits:
    with TeacherConsole(console) as observer:

        def on_start(cost: LogitsCost, rate: float) -> None:
            observer.caching_started(cost, rate)
            live = f"--teacher live: about {_step_cost(settings, rate)}"
            if layout.views == "all":
                center = logits_cost(cost.images, dataclasses.replace(layout, views="center"))
                live = f"--teacher-views center: {describe_cost(center, rate)}; {live}"
            observer.print(f"  instead of it, {live}", "dim")

        return cache_logits(
            ensemble,
            images,
            layout,
            data_fingerprint=data_fingerprint,
            cache_dir=settings.cache_folder(),
            batch_size=settings.eval_batch_size,
            on_start=on_start,
            on_progress=observer.caching_progress,
            should_stop=should_stop,
        )


def _tell_live_cost(
    ensemble: Ensemble, settings: Settings, layout: LogitsLayout, images: Array, console: Console
) -> None:
    rate = measure_rate(ensemble, images, layout, batch_size=settings.batch_size)
    console.print(f"Live teacher: about {_step_cost(settings, rate)}", style="bold", soft_wrap=True)


def _step_cost(settings: Settings, rate: float) -> str:
    seconds = settings.batch_size / rate
    return f"{1_000 * seconds:,.3g} ms more for each training step of {settings.batch_size} images"


@contextlib.contextmanager
def _errors_name_settings() -> Iterator[None]:
    try:
        yield
    except TeacherError as error:
        raise TeacherError(_as_settings(str(error))) from None


def _as_settings(message: str) -> str:
    """A message of the library, with the fields of `TeacherConfig` named as their settings are."""
    return _VALUED_FIELD.sub(r"teacher_\1", message)
