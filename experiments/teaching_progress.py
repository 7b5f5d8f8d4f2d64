"""What the making of a teacher shows: lines of text, and on a terminal a live bar below them."""

import time
from collections.abc import Callable

from rich.console import Console
from rich.filesize import decimal

from eigen_jax.teacher import EnsembleRecord, LogitsCost, MemberRecord, TeacherConfig, TeacherObserver
from experiments.bars import LiveBars
from experiments.progress import duration


class TeacherConsole(LiveBars, TeacherObserver):
    """Prints the training of a teacher and the caching of its logits."""

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Makes an observer.

        Args:
            console: where to print.
            clock: seconds from any fixed time on.
        """
        super().__init__(console, clock=clock)
        self.bar = self.bars.add_task("", detail="", visible=False)
        self.caching_began = clock()
        self.members = 0
        self.steps = 0

    def teacher_started(self, *, config: TeacherConfig, steps: int) -> None:
        self.members, self.steps = config.members, steps
        self.print(f"Teacher: {config.members} Wide-DenseNet-BC, {steps:,} training steps each", "bold")

    def member_started(self, *, member: int, step: int) -> None:
        if step:
            self.print(f"  member {member} goes on from step {step:,}")
        self._show(f"member {member}", step, self.steps, "preparing")

    def training_progress(self, *, member: int, step: int, until: int, loss: float, steps_per_second: float) -> None:
        left = until - step + (self.members - 1 - member) * until
        detail = f"{step:,}/{until:,}, loss {loss:.3g}, {steps_per_second:,.3g} steps/s"
        detail += f"; about {duration(left / steps_per_second)} left for all members"
        self._show(f"member {member}", step, until, detail)

    def member_finished(self, *, member: int, record: MemberRecord) -> None:
        took = duration(record.train_seconds + record.compile_seconds)
        self._print_accuracy(f"teacher's member {member}", record, f"{record.parameters:,} parameters, {took}")

    def teacher_finished(self, *, record: EnsembleRecord) -> None:
        self.bars.update(self.bar, visible=False)
        self._print_accuracy("teacher", record, f"{record.parameters:,} parameters")

    def caching_started(self, cost: LogitsCost, rate: float) -> None:
        """The logits of a teacher that answers for `rate` images a second are to be computed."""
        self.caching_began = self.clock()
        self.print(f"Teacher's logits, once for all networks: {describe_cost(cost, rate)}", "bold")

    def caching_progress(self, done: int, total: int) -> None:
        """So many of all forward passes are done."""
        left = (self.clock() - self.caching_began) / done * (total - done)
        self._show("logits", done, total, f"{done:,}/{total:,}; about {duration(left)} left")
        if done == total:
            self.bars.update(self.bar, visible=False)

    def _print_accuracy(self, name: str, record: MemberRecord | EnsembleRecord, more: str) -> None:
        validation, test = 100 * record.validation_accuracy, 100 * record.test_accuracy
        self.print(f"{name:<20} {validation:5.1f} % of validation, {test:5.1f} % of test images; {more}")

    def _show(self, name: str, done: int, total: int, detail: str) -> None:
        self.bars.update(self.bar, description=name, completed=done, total=total, detail=detail, visible=True)
        self.print_plain(f"{name}: {detail}")


def describe_cost(cost: LogitsCost, rate: float) -> str:
    """What a cache of logits takes, for people; `rate` is in images a second."""
    took = duration(max(1.0, cost.forward_passes / rate))
    views = f"{cost.views} views" if cost.views > 1 else "1 view"
    return (
        f"{views} of {cost.images:,} images, {cost.forward_passes:,} forward passes, about {took},"
        f" {decimal(cost.bytes)}"
    )
