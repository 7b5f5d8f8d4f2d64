"""What the training of a teacher tells while it runs, for whoever shows it."""

from eigen_jax.teacher.config import TeacherConfig
from eigen_jax.teacher.record import EnsembleRecord, MemberRecord


class TeacherObserver:
    """Told of everything that happens, in order. This one ignores it all: override what matters.

    Members are numbered from 0. Each is told of as finished once a call, also where it was
    finished before.
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
