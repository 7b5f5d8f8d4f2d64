"""Training a teacher into a folder, from which it goes on and is loaded.

teacher.json          what it is and how good it became; see `eigen_jax.teacher.record`
member-0/training/    the newest states of a member in training; gone when it is finished
member-0/network/     the variables of a finished member
member-1/ ...
"""

import dataclasses
import functools
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from eigen_jax import surroundings
from eigen_jax.data import Dataset, Images
from eigen_jax.errors import first_line
from eigen_jax.layers import count_flops
from eigen_jax.resumable import Care, train_resumably
from eigen_jax.store import checkpoint
from eigen_jax.store.checkpoint import CheckpointError
from eigen_jax.teacher.config import TeacherConfig, TeacherError
from eigen_jax.teacher.densenet import DenseNet
from eigen_jax.teacher.ensemble import Ensemble, make_ensemble
from eigen_jax.teacher.record import TEACHER, DataRecord, EnsembleRecord, MemberRecord, TeacherRecord, read_teacher
from eigen_jax.training import DivergedError, Programs, Training, abstract_state, accuracy, predict

PyTree = Any

_logger = logging.getLogger(__name__)


class TeacherObserver:
    """Told of everything that happens, in order. This one ignores it all: override what matters.

    Members are numbered from 0. Each is told of as finished once a call, also where it was finished before.
    """

    def teacher_started(self, *, config: TeacherConfig, steps: int) -> None:
        """Training starts, or goes on; each member takes `steps` steps in all."""

    def member_started(self, *, member: int, step: int) -> None:
        """A member starts, or goes on from this step."""

    def training_progress(self, *, member: int, step: int, until: int, loss: float, steps_per_second: float) -> None:
        """A member is on its way to step `until`."""

    def member_finished(self, *, member: int, record: MemberRecord) -> None:
        """A member is trained, evaluated and saved."""

    def teacher_finished(self, *, record: EnsembleRecord) -> None:
        """All members are, and the ensemble is evaluated."""


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

    Where another process trains it, that one is waited for. Only the training part of the data is trained on;
    validation and test accuracy are measured and recorded. Training that was stopped, by whatever, goes on to the
    same bits as if it never had been, where the device computes deterministically. The folder, its own, is made
    where it is missing; for `devices` see `TrainConfig`; `care` says when to save a member and when to stop.

    Raises:
        StoppedError: it was asked to stop; the same call goes on.
        TeacherError: the folder cannot be written, is damaged or holds something else, such as a teacher of other
            data; or training diverged.
        CheckpointError: a member cannot be saved.
    """
    folder, observer, care, data = Path(folder), observer or TeacherObserver(), care or Care(), DataRecord.of(dataset)
    record = _find(config, data, folder)
    if record is None or record.ensemble is None:
        tell = functools.partial(_logger.info, "another process trains the teacher in %s; waiting for it", folder)
        with TEACHER.opened(folder, should_stop=care.should_stop, on_wait=tell), Programs() as programs:
            if record := _find(config, data, folder):
                surroundings.warn_of_others(record.surroundings, what="teacher")
            else:
                record = TeacherRecord(config=config, data=data, surroundings=surroundings.describe())
                TEACHER.write(folder, record)
            if record.ensemble is None:
                return _Fitting(config, dataset, folder, observer, devices, care, programs).finish(record)
    # Without the lock, so that any number of processes can read a finished teacher.
    ensemble = _load(folder, record)
    for member, each in enumerate(record.members):
        observer.member_finished(member=member, record=each)
    observer.teacher_finished(record=record.ensemble)
    return ensemble


def load_ensemble(folder: str | Path, dataset: Dataset) -> Ensemble:
    """Loads the teacher in a folder; TeacherError: it is missing, unfinished, damaged, or trained on other data."""
    folder = Path(folder)
    record = read_teacher(folder)
    record.check_is_of(DataRecord.of(dataset), folder=folder)
    if record.ensemble is None:
        trained = f"{len(record.members)} of its {record.config.members} members are trained"
        raise TeacherError(f"the teacher in {folder} is unfinished: {trained}; go on with its training")
    return _load(folder, record)


def _find(config: TeacherConfig, data: DataRecord, folder: Path) -> TeacherRecord | None:
    """The record of the teacher asked for; None where there is none yet. TeacherError: it is damaged, or another's."""
    record = read_teacher(folder) if TEACHER.is_in(folder) else None
    if record is not None:
        record.check_is_of(data, config, folder=folder)
    return record


@dataclasses.dataclass(frozen=True)
class _Fitting:
    """A teacher in training."""

    config: TeacherConfig
    dataset: Dataset
    folder: Path
    observer: TeacherObserver
    devices: int
    care: Care
    programs: Programs

    def finish(self, record: TeacherRecord) -> Ensemble:
        """Trains the members that are not finished, and evaluates all together."""
        steps = self.config.steps(self.dataset.train_images.shape[0])
        self.observer.teacher_started(config=self.config, steps=steps)
        for member in range(self.config.members):
            if member == len(record.members):
                record = dataclasses.replace(record, members=(*record.members, self._train(member, steps)))
                TEACHER.write(self.folder, record)
            shutil.rmtree(_member_folder(self.folder, member) / "training", ignore_errors=True)
            self.observer.member_finished(member=member, record=record.members[member])
        ensemble = _load(self.folder, record)
        measured = EnsembleRecord(fingerprint=ensemble.fingerprint, **self._measure(ensemble.variables))
        TEACHER.write(self.folder, dataclasses.replace(record, ensemble=measured))
        self.observer.teacher_finished(record=measured)
        return ensemble

    def _train(self, member: int, steps: int) -> MemberRecord:
        """Trains one member from where it was left, evaluates it and saves its variables."""
        dataset, folder = self.dataset, _member_folder(self.folder, member)
        init_key, train_key = jax.random.split(jax.random.fold_in(jax.random.key(self.config.seed), member))
        config = dataclasses.replace(self.config.train_config(dataset.train_images.shape[0]), devices=self.devices)
        network = _network(self.config, dataset.num_classes)
        training = Training(key=train_key, init_key=init_key, dataset=dataset, network=network, config=config)
        self.observer.member_started(member=member, step=checkpoint.latest_step(folder / "training") or 0)

        def on_progress(step: int, loss: float, steps_per_second: float) -> None:
            at = {"member": member, "step": step, "until": steps}
            self.observer.training_progress(**at, loss=loss, steps_per_second=steps_per_second)

        care = dataclasses.replace(self.care, time_limit=None)
        try:
            state, seconds = train_resumably(
                training, steps, folder / "training", care=care, on_progress=on_progress, programs=self.programs
            )
            measured = self._measure([state.variables])
        except (DivergedError, jax.errors.JaxRuntimeError) as error:  # JAX's is a lack of memory
            raise TeacherError(f"member {member} of the teacher: {first_line(error)}") from None
        # One that a killed process saved before it was recorded is saved again.
        shutil.rmtree(folder / "network", ignore_errors=True)
        checkpoint.save(folder / "network", steps, {"variables": state.variables})
        return MemberRecord(steps=steps, train_seconds=seconds.training, compile_seconds=seconds.compiling, **measured)

    def _measure(self, members: Sequence[PyTree]) -> dict[str, Any]:
        """What is recorded of members with these variables: how large they are, and how good are their mean logits."""
        network = _network(self.config, self.dataset.num_classes)
        how: dict[str, Any] = {"batch_size": self.config.eval_batch_size, "programs": self.programs}

        def measure(images: Images, labels: Array) -> float:
            logits = [predict(variables, images, network=network, **how) for variables in members]
            return accuracy(np.mean(logits, axis=0), labels)

        return {
            "parameters": sum(leaf.size for variables in members for leaf in jax.tree.leaves(variables["params"])),
            "validation_accuracy": measure(self.dataset.validation_images, self.dataset.validation_labels),
            "test_accuracy": measure(self.dataset.test_images, self.dataset.test_labels),
        }


def forward_flops(config: TeacherConfig, image_shape: tuple[int, int, int], num_classes: int) -> int:
    """Those of asking all members about one image; raises TeacherError as a member does."""
    return config.members * count_flops(_network(config, num_classes), image_shape)


def _load(folder: Path, record: TeacherRecord) -> Ensemble:
    """The members of a record as they were saved; TeacherError: they are damaged, or not those that were measured."""
    config, data = record.config, record.data
    network = _network(config, data.classes)
    train_config = config.train_config(data.training_images)
    abstract = abstract_state(network=network, config=train_config, input_shape=data.image_shape).variables
    saved = [_member_folder(folder, member) / "network" for member in range(config.members)]
    try:
        variables = [checkpoint.restore(each, "variables", abstract=abstract) for each in saved]
    except CheckpointError as error:
        raise TeacherError(f"the teacher in {folder} is damaged: {error}") from None
    ensemble = make_ensemble([network] * config.members, variables)
    if record.ensemble is not None and record.ensemble.fingerprint != ensemble.fingerprint:
        problem = f"the weights in {folder} are not those that teacher.json tells of"
        raise TeacherError(f"{problem}; put the teacher's own files back")
    return ensemble


def _network(config: TeacherConfig, num_classes: int) -> DenseNet:
    shape = config.depth, config.growth, config.compression, config.stem_stride
    return DenseNet(num_classes, *shape, dtype=getattr(jnp, config.dtype))


def _member_folder(folder: Path, member: int) -> Path:
    return folder / f"member-{member}"
