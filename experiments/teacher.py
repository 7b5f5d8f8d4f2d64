"""Trains a teacher, evaluates it and saves it; the same command goes on with one that was interrupted.

    python -m experiments.teacher --dataset cifar10                     # the paper's: for a GPU
    python -m experiments.teacher --dataset digits                      # minutes on two cores
    python -m experiments.teacher --dataset cifar10 --preset small --data-dir PATH

A search, whose settings these are, trains its teacher in the same way where --teacher-dir has none yet.
"""

import dataclasses
import functools
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.filesize import decimal

from eigen_jax.data import Dataset, join_validation
from eigen_jax.resumable import Care
from eigen_jax.search import TeacherFlops, training_flops
from eigen_jax.store.locks import ShouldStop, never
from eigen_jax.teacher import (
    Ensemble,
    EnsembleRecord,
    LogitsLayout,
    MemberRecord,
    Questions,
    TeacherConfig,
    TeacherObserver,
    cache_logits,
    forward_flops,
    read_logits,
    train_ensemble,
)
from eigen_jax.training import Teacher
from experiments.command_line import parse
from experiments.commands import command, held_off, make_console
from experiments.process import configure, device_bytes, load_data
from experiments.progress import LiveBars, duration, pace
from experiments.settings import Settings


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Trains the teacher of a data set."""
    about = (__doc__ or "").partition("\n")[0]
    settings = configure(parse(argv, program="python -m experiments.teacher --dataset NAME", about=about))
    dataset = load_data(settings)
    with held_off() as should_stop:
        train_teacher(settings, dataset, make_console(), should_stop)
    print(f"teacher's folder     {settings.teacher_dir}")


def prepare_teacher(
    settings: Settings, dataset: Dataset, console: Console, should_stop: ShouldStop = never
) -> Teacher | None:
    """Whom networks mimic, ready to be asked, trained where it is not there yet; None where nobody is mimicked.

    Where the final training is on validation images too, it knows them, as examples that follow the training images.
    """
    if settings.teacher == "none":
        return None
    joined = settings.search.final_on == "train+validation"
    images = join_validation(dataset).train_images if joined else dataset.train_images
    train, layout = settings.search.train, _layout(settings, dataset)
    if (path := settings.teacher_logits) is not None:
        logits = read_logits(path, layout, num_examples=images.shape[0], device_bytes=device_bytes(settings))
        console.print(f"Teacher for {dataset.name}: the logits in {path}", style="bold", soft_wrap=True)
        return logits
    ensemble = train_teacher(settings, dataset, console, should_stop)
    questions = Questions(teacher=ensemble, images=images, layout=layout, batch_size=train.eval_batch_size)
    if settings.teacher == "live":
        rate = dataclasses.replace(questions, batch_size=train.batch_size).measure_rate()
        console.print(f"Live teacher: about {_step_cost(train.batch_size, rate)}", style="bold", soft_wrap=True)
        return ensemble
    with TeacherConsole(console) as observer:
        return cache_logits(
            questions,
            data_fingerprint=dataset.fingerprint,
            cache_dir=settings.data.cache_folder(),
            device_bytes=device_bytes(settings),
            on_start=functools.partial(observer.caching_started, questions, train.batch_size),
            on_progress=observer.caching_progress,
            should_stop=should_stop,
        )


def teacher_flops(settings: Settings, dataset: Dataset) -> TeacherFlops:
    """What whoever is mimicked takes of a budget, whatever of it is at hand; logits from a file take nothing."""
    if settings.teacher == "none" or settings.teacher_logits is not None:
        return TeacherFlops()
    config, (count, *shape) = settings.teacher_config(), dataset.train_images.shape
    forward = forward_flops(config, (shape[0], shape[1], shape[2]), dataset.num_classes)
    training = training_flops(forward, config.steps(count) * config.batch_size)
    if settings.teacher == "live":
        return TeacherFlops(once=training, per_image=forward)
    if settings.search.final_on == "train+validation":
        count += dataset.validation_images.shape[0]
    return TeacherFlops(once=training + forward * count * _layout(settings, dataset).stored_views.size)


def _layout(settings: Settings, dataset: Dataset) -> LogitsLayout:
    train, views = settings.search.train, settings.teacher_views
    return LogitsLayout(pad=train.pad, flip=train.flip, views=views, num_classes=dataset.num_classes)


def train_teacher(settings: Settings, dataset: Dataset, console: Console, should_stop: ShouldStop = never) -> Ensemble:
    """Trains the teacher, or finds it, with progress on the screen; raises as `train_ensemble`."""
    with TeacherConsole(console) as observer:
        return train_ensemble(
            settings.teacher_config(),
            dataset,
            settings.teacher_dir,
            observer=observer,
            devices=settings.machine.devices,
            care=Care(save_every=settings.machine.save_every, should_stop=should_stop),
        )


def _step_cost(batch_size: int, rate: float) -> str:
    return f"{1_000 * batch_size / rate:,.3g} ms more for each training step of {batch_size} images"


def describe_cost(questions: Questions, rate: float) -> str:
    """What a cache of logits takes, for people; `rate` is in images a second."""
    (count, views, _), passes = questions.shape, questions.forward_passes
    what = f"{views} {'views' if views > 1 else 'view'} of {count:,} images, {passes:,} forward passes"
    return f"{what}, about {duration(max(1.0, passes / rate))}, {decimal(questions.bytes)}"


class TeacherConsole(LiveBars, TeacherObserver):
    """Prints the training of a teacher and the caching of its logits."""

    members: int  # of the teacher, and the steps of each, which its start tells
    steps: int
    caching_began: float

    def teacher_started(self, *, config: TeacherConfig, steps: int) -> None:
        self.members, self.steps = config.members, steps
        self.print(f"Teacher: {config.members} Wide-DenseNet-BC, {steps:,} training steps each", "bold")

    def member_started(self, *, member: int, step: int) -> None:
        if step:
            self.print(f"  member {member} goes on from step {step:,}")
        self.show(f"member {member}", step, self.steps, "preparing")

    def training_progress(self, *, member: int, step: int, until: int, loss: float, steps_per_second: float) -> None:
        left = until - step + (self.members - 1 - member) * until
        detail = f"{pace(loss, steps_per_second)}, {duration(left / steps_per_second)} left for all members"
        self.show(f"member {member}", step, until, f"{step:,}/{until:,}, {detail}")

    def member_finished(self, *, member: int, record: MemberRecord) -> None:
        took = duration(record.train_seconds + record.compile_seconds)
        self._print_accuracy(f"teacher's member {member}", record, f"{record.parameters:,} parameters, {took}")

    def teacher_finished(self, *, record: EnsembleRecord) -> None:
        self.bars.update(self.bar, visible=False)
        self._print_accuracy("teacher", record, f"{record.parameters:,} parameters")

    def caching_started(self, questions: Questions, batch_size: int, rate: float) -> None:
        """The logits of a teacher that answers for `rate` images a second are to be computed, not asked for live."""
        self.caching_began = self.clock()
        self.print(f"Teacher's logits, once for all networks: {describe_cost(questions, rate)}", "bold")
        live = f"--teacher live: about {_step_cost(batch_size, rate)}"
        if questions.layout.views == "all":
            center = dataclasses.replace(questions, layout=dataclasses.replace(questions.layout, views="center"))
            live = f"--teacher-views center: {describe_cost(center, rate)}; {live}"
        self.print(f"  instead of it, {live}", "dim")

    def caching_progress(self, done: int, total: int) -> None:
        """So many of all forward passes are done."""
        left = (self.clock() - self.caching_began) / done * (total - done)
        self.show("logits", done, total, f"{done:,}/{total:,}; about {duration(left)} left")
        if done == total:
            self.bars.update(self.bar, visible=False)

    def _print_accuracy(self, name: str, record: MemberRecord | EnsembleRecord, more: str) -> None:
        validation, test = 100 * record.validation_accuracy, 100 * record.test_accuracy
        self.print(f"{name:<20} {validation:5.1f} % of validation, {test:5.1f} % of test images; {more}")


if __name__ == "__main__":
    sys.exit(main())
