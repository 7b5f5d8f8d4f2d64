"""A budget for people: what it is for, how much of it is spent, and how long the rest takes here."""

from collections.abc import Callable

from eigen_jax.search import Budget


def describe_budget(budget: Budget) -> str:
    """How a budget is shared."""
    kept = f"{budget.kept(0):.3g}" if budget.final_steps is None else f"{budget.final_steps:,} steps"
    mimicry = f"the teacher takes {budget.teacher:.3g}, " if budget.teacher else ""
    return f"Budget {budget.total:.3g} training FLOPs: {mimicry}the final training keeps {kept}"


class Spending:
    """How fast a budget is spent by this process and its workers."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.began: tuple[float, int] | None = None  # when, and what was spent before
        self.told: int | None = None  # per cent

    def tell(self, budget: Budget, spent: int) -> tuple[str, float | None] | None:
        """What is told when individuals have spent so much, and the seconds that the rest takes here, once it is known.

        None until another per cent of the budget is spent.
        """
        percent, now = 100 * (budget.teacher + spent) // budget.total, self.clock()
        began, before = self.began = self.began or (now, spent)
        if percent == self.told:
            return None
        self.told = percent
        left, took, done = budget.total - budget.teacher - spent, now - began, spent - before
        text = f"budget {budget.total:.3g} training FLOPs: {percent} % spent"
        return text, left * took / done if took and done else None
