"""Training a teacher into a folder, from which it goes on and is loaded.

teacher.json          what it is and how good it became; see `eigen_jax.teacher.record`
member-0/training/    the newest states of a member in training; gone when it is finished
member-0/network/     the variables of a finished member
member-1/ ...
"""

import contextlib
import dataclasses
import functools
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from eigen_jax import surroundings
from eigen_jax.data import Dataset
from eigen_jax.errors import first_line
from eigen_jax.resumable import Care, Training, train_resumably
from eigen_jax.store import checkpoint
from eigen_jax.store.checkpoint import CheckpointError
from eigen_jax.store.files import told_as
from eigen_jax.store.locks import LOCK, ShouldStop, held
from eigen_jax.teacher.config import TeacherConfig, TeacherError
from eigen_jax.teacher.densenet import DenseNet
from eigen_jax.teacher.ensemble import Ensemble, count_trainable, make_ensemble, measure_accuracy
from eigen_jax.teacher.observer import TeacherObserver
from eigen_jax.teacher.record import (
    TEACHER,
    DataRecord,
    EnsembleRecord,
    MemberRecord,
    TeacherRecord,
    holds_teacher,
    read_teacher,
)
from eigen_jax.training import DivergedError, Programs, TrainState, abstract_state, evaluate

PyTree = Any

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Fitting:
    """What stays the same while a teacher is trained."""

    config: TeacherConfig
    dataset: Dataset
    folder: Path
    observer: TeacherObserver
    devices: int
    care: Care
    programs: Programs

    @property
    def steps(self) -> int:
        """Of each member's training."""
        return self.config.epochs * self.config.steps_per_epoch(self.dataset.train_images.shape[0])

    def member_folder(self, member: int) -> Path:
        return _member_folder(self.folder, member)


def train_ensemble(
    config: TeacherConfig,
    dataset: Dataset,
    folder: str | Path,
    *,
    observer: TeacherObserver | None = None,
    devices: int = 1,
    care: Care | None = None,
) -> Ensemble:
    """Trains a teacher, goes on with one that is unfinished, or loads one that is finished.

    Where another process trains it, that one is waited for.

    Only the training part of the data is trained on; validation and test accuracy are measured and
    recorded. Training that was stopped, by whatever, goes on to the same bits as if it never had
    been, where the device computes deterministically.

    Args:
        config: the teacher.
        dataset: the data.
        folder: its own; made where it is missing.
        observer: told of what happens.
        devices: local devices that share each batch; see `TrainConfig`.
        care: when to save a member and when to stop.

    Raises:
        StoppedError: it was asked to stop; the same call goes on.
        TeacherError: the folder cannot be written, is damaged, or holds something else,
            such as a teacher of other data or of another configuration; or training diverged.
        CheckpointError: a member cannot be saved.
    """
    folder, observer, care, data = Path(folder), observer or TeacherObserver(), care or Care(), DataRecord.of(dataset)
    record = _read_own(config, data, folder)
    if record is None or record.ensemble is None:
        with _opened(folder, care.should_stop), Programs() as programs:
            record = _claim(config, data, folder)
            if record.ensemble is None:
                fitting = _Fitting(
                    config=config,
                    dataset=dataset,
                    folder=folder,
                    observer=observer,
                    devices=devices,
                    care=care,
                    programs=programs,
                )
                return _train(fitting, record)
    # Without the lock, so that any number of processes can read a finished teacher.
    ensemble = _load(folder, record, record.ensemble)
    for member, each in enumerate(record.members):
        observer.member_finished(member=member, record=each)
    observer.teacher_finished(record=record.ensemble)
    return ensemble


def load_ensemble(folder: str | Path, dataset: Dataset) -> Ensemble:
    """Loads a finished teacher.

    Args:
        folder: as given to `train_ensemble`.
        dataset: the data that it is to be asked about.

    Raises:
        TeacherError: there is none, it is unfinished or damaged, or was trained on other data.
    """
    folder = Path(folder)
    record = read_teacher(folder)
    record.check_is_for(DataRecord.of(dataset), folder=folder)
    if record.ensemble is None:
        raise TeacherError(
            f"the teacher in {folder} is unfinished: {len(record.members)} of its {record.config.members}"
            " members are trained; go on with its training"
        )
    return _load(folder, record, record.ensemble)


@contextlib.contextmanager
def _opened(folder: Path, should_stop: ShouldStop) -> Iterator[None]:
    """Makes the folder where it is missing, and keeps other processes out of it, when those in it are done."""
    tell = functools.partial(_logger.info, "another process trains the teacher in %s; waiting for it", folder)
    with contextlib.ExitStack() as stack:
        with told_as(TeacherError, f"the teacher's folder {folder}", "choose another"):
            folder.mkdir(parents=True, exist_ok=True)
            names = {entry.name for entry in folder.iterdir()}
            # A process killed before the record was whole has left these two at most.
            if not holds_teacher(folder) and names - {LOCK, "teacher.json.partial"}:
                raise TeacherError(f"{folder} holds files but no teacher.json, so it is no teacher's; choose another")
            stack.enter_context(held(folder / LOCK, should_stop=should_stop, on_wait=tell))
        yield


def _read_own(config: TeacherConfig, data: DataRecord, folder: Path) -> TeacherRecord | None:
    """The record of the teacher asked for, finished or not; None where there is none yet.

    Raises:
        TeacherError: it is damaged, or another teacher's.
    """
    if not holds_teacher(folder):
        return None
    record = read_teacher(folder)
    record.check_is_of(config, data, folder=folder)
    return record


def _claim(config: TeacherConfig, data: DataRecord, folder: Path) -> TeacherRecord:
    """The record of the teacher asked for, which is written where there is none yet; raises as `_read_own`."""
    record = _read_own(config, data, folder)
    if record is None:
        record = TeacherRecord(config=config, data=data, surroundings=surroundings.describe())
        TEACHER.write(folder, record)
    else:
        surroundings.warn_of_others(record.surroundings, what="teacher")
    return record


def _train(fitting: _Fitting, record: TeacherRecord) -> Ensemble:
    """Trains the members that are not finished, and evaluates all together."""
    fitting.observer.teacher_started(config=fitting.config, steps=fitting.steps)
    for member in range(fitting.config.members):
        if member == len(record.members):
            record = dataclasses.replace(record, members=(*record.members, _train_member(fitting, member)))
            TEACHER.write(fitting.folder, record)
        shutil.rmtree(fitting.member_folder(member) / "training", ignore_errors=True)
        fitting.observer.member_finished(member=member, record=record.members[member])
    ensemble = _restore(fitting.folder, record)
    measured = _measure(fitting, ensemble)
    TEACHER.write(fitting.folder, dataclasses.replace(record, ensemble=measured))
    fitting.observer.teacher_finished(record=measured)
    return ensemble


def _train_member(fitting: _Fitting, member: int) -> MemberRecord:
    """Trains one member from where it was left, evaluates it and saves its variables."""
    config, dataset, until = fitting.config, fitting.dataset, fitting.steps
    init_key, train_key = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), member))
    training = Training(
        key=train_key,
        init_key=init_key,
        dataset=dataset,
        network=_network(config, dataset.num_classes),
        config=dataclasses.replace(config.train_config(dataset.train_images.shape[0]), devices=fitting.devices),
    )
    folder = fitting.member_folder(member)
    fitting.observer.member_started(member=member, step=checkpoint.latest_step(folder / "training") or 0)

    def on_progress(step: int, loss: float, steps_per_second: float) -> None:
        fitting.observer.training_progress(
            member=member, step=step, until=until, loss=loss, steps_per_second=steps_per_second
        )

    care = dataclasses.replace(fitting.care, time_limit=None)
    try:
        state, seconds = train_resumably(
            training, until, folder / "training", care=care, on_progress=on_progress, programs=fitting.programs
        )
        measure = functools.partial(
            evaluate,
            state,
            network=training.network,
            batch_size=config.eval_batch_size,
            programs=fitting.programs,
        )
        validation_accuracy = measure(dataset.validation_images, dataset.validation_labels)
        test_accuracy = measure(dataset.test_images, dataset.test_labels)
    except (DivergedError, jax.errors.JaxRuntimeError) as error:
        # A lack of memory is a runtime error of JAX.
        raise TeacherError(f"member {member} of the teacher: {first_line(error)}") from None
    _save_network(folder / "network", until, state)
    return MemberRecord(
        parameters=count_trainable(state.variables),
        steps=until,
        validation_accuracy=validation_accuracy,
        test_accuracy=test_accuracy,
        train_seconds=seconds.training,
        compile_seconds=seconds.compiling,
    )


def _save_network(path: Path, step: int, state: TrainState) -> None:
    # One that a killed process saved before it was recorded is saved again.
    shutil.rmtree(path, ignore_errors=True)
    checkpoint.save(path, step, {"variables": state.variables})


def _restore(folder: Path, record: TeacherRecord) -> Ensemble:
    """The members of a record, as they were saved."""
    network = _network(record.config, record.data.classes)
    abstract = abstract_state(
        network=network,
        config=record.config.train_config(record.data.training_images),
        input_shape=record.data.image_shape,
    ).variables
    try:
        variables = [
            checkpoint.restore(_member_folder(folder, member) / "network", "variables", abstract=abstract)
            for member in range(record.config.members)
        ]
    except CheckpointError as error:
        raise TeacherError(f"the teacher in {folder} is damaged: {error}") from None
    return make_ensemble([network] * record.config.members, variables)


def _measure(fitting: _Fitting, ensemble: Ensemble) -> EnsembleRecord:
    dataset = fitting.dataset
    measure = functools.partial(
        measure_accuracy, ensemble, batch_size=fitting.config.eval_batch_size, programs=fitting.programs
    )
    return EnsembleRecord(
        parameters=sum(map(count_trainable, ensemble.variables)),
        validation_accuracy=measure(dataset.validation_images, dataset.validation_labels),
        test_accuracy=measure(dataset.test_images, dataset.test_labels),
        fingerprint=ensemble.fingerprint,
    )


def _load(folder: Path, record: TeacherRecord, measured: EnsembleRecord) -> Ensemble:
    """The ensemble that was measured."""
    ensemble = _restore(folder, record)
    if ensemble.fingerprint != measured.fingerprint:
        raise TeacherError(
            f"the weights in {folder} are not those that teacher.json tells of; put the teacher's own files back"
        )
    return ensemble


def _network(config: TeacherConfig, num_classes: int) -> DenseNet:
    return DenseNet(
        num_classes=num_classes,
        depth=config.depth,
        growth=config.growth,
        compression=config.compression,
        stem_stride=config.stem_stride,
        dtype=getattr(jnp, config.dtype),
    )


def _member_folder(folder: Path, member: int) -> Path:
    return folder / f"member-{member}"
