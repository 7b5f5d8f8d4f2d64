"""Budgets in training FLOPs, which depend on no machine: what training takes, and who is paid for.

An image that is trained on takes three times the FLOPs of its forward pass, as `count_flops` counts them: the backward
pass has as many again for the gradients of the maps, and for those of the weights. Evaluation is not counted.

The FLOPs of one training step of a network, a whole batch, are called its price here.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import jax

from eigen_jax.errors import ConfigError
from eigen_jax.networks import AnyNetwork, count_flops
from eigen_jax.search.candidates import candidates_of
from eigen_jax.search.config import SearchConfig
from eigen_jax.search.states import States
from eigen_jax.strategies import Strategy
from eigen_jax.training import Programs

_MOST_STEPS = 2**31 - 1  # which a training counts on the device


class BudgetError(ConfigError):
    """A budget that does not pay for the least that a run takes."""


def training_flops(forward: int, images: int) -> int:
    """Those of training on images, of a network whose forward pass takes `forward` FLOPs an image."""
    return 3 * forward * images


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherFlops:
    """What mimicry takes besides the training of those who mimic."""

    once: int = 0  # training the teacher and computing its logits, also where they are at hand already
    per_image: int = 0  # asking it live, for each image that a network is trained on


def price(network: AnyNetwork, *, config: SearchConfig, teacher: TeacherFlops) -> int:
    """Training FLOPs of one step of a network, with those of a teacher that is asked live."""
    images = config.train.batch_size
    forward = count_flops(network, num_classes=config.genome.num_classes, in_training=True)
    return training_flops(forward, images) + teacher.per_image * images


def expected_flops(prices: Sequence[int], landmarks: Sequence[int], quota: Sequence[int]) -> int:
    """Those of a generation where all train to the first landmark, and the dearest `quota` of them on to each next."""
    dearest = sorted(prices, reverse=True)
    numbers = itertools.accumulate((len(dearest), *quota), min)
    spans = itertools.pairwise((0, *landmarks))
    return sum((until - start) * sum(dearest[:number]) for number, (start, until) in zip(numbers, spans, strict=True))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """A budget, and how the teacher, the search and the final training share it; `best` is a price, 0 for nobody's."""

    total: int
    teacher: int
    final_share: float
    final_steps: int | None

    @classmethod
    def of(cls, config: SearchConfig, teacher: TeacherFlops) -> "Budget | None":
        """The budget of a search; None where it has none."""
        if config.budget is None:
            return None
        share, steps = config.final_share, config.final_steps
        return cls(total=int(config.budget), teacher=teacher.once, final_share=share, final_steps=steps)

    def kept(self, best: int) -> int:
        """What is kept for the final training."""
        return int(self.final_share * self.total) if self.final_steps is None else self.final_steps * best

    def share(self, spent: int, best: int) -> float:
        """Which share of the search's part is spent, at most 1."""
        part = self.total - self.teacher - self.kept(best)
        return min(1.0, spent / part) if part > 0 else 1.0

    def final_until(self, spent: int, best: int) -> int:
        """How many steps the final training takes, with what the search has left."""
        left = max(0, self.total - self.teacher - spent) // best
        return min(left, _MOST_STEPS if self.final_steps is None else self.final_steps)

    def begins(self, spent: int, best: int, due: Sequence[int], *, expected: int, most: int) -> bool:
        """Whether a generation of these prices is paid for.

        The search's part must pay for what it is `expected` to take, and the whole budget for the `most` that it can.
        """
        least = self._step(max(best, *due))
        return self._pays_for(spent + expected + self.kept(best)) and self._pays_for(spent + most + least)

    def number_ahead(self, spent: int, best: int, due: Sequence[int], ahead: Sequence[int], until: int) -> int:
        """How many of `ahead`, prices in their order, may be trained to step `until`, their only landmark, before time.

        They are those that are sure to be paid for when they are due, whoever is the best by then, so that nothing is
        spent on anybody who never is.
        """
        taken, dearest = spent + sum(due) * until, max(best, *due)
        for number, each in enumerate(ahead):
            taken, dearest = taken + each * until, max(dearest, each)
            if not self._pays_for(taken + max(self.kept(dearest), self._step(dearest))):
                return number
        return len(ahead)

    def _step(self, dearest: int) -> int:
        """The least that a final training takes."""
        return 0 if self.final_steps == 0 else dearest

    def _pays_for(self, flops: int) -> bool:
        return flops <= self.total - self.teacher


def check_budget(
    config: SearchConfig, strategy: Strategy, teacher: TeacherFlops, *, programs: Programs | None = None
) -> None:
    """Raises BudgetError where a budget does not pay for teacher, first generation and a step of final training.

    The first generation is bred for it, by the program that `programs`, those of the search, then have.
    """
    if (budget := Budget.of(config, teacher)) is None:
        return
    if budget.teacher >= budget.total:
        rule = (
            "{budget} is {:.3g}; the teacher alone takes {:.3g} training FLOPs: raise it, or choose a smaller teacher"
        )
        raise BudgetError(SearchConfig, rule, config.budget, budget.teacher)
    breeding_key, key, _ = search_keys(config)
    state = States(strategy=strategy, key=breeding_key, has_budget=True, programs=programs).first()
    children = candidates_of(strategy, strategy.population(state), key, known={})
    due = [price(each.architecture, config=config, teacher=teacher) for each in children if not each.place.generation]
    landmarks = strategy.landmarks(config.landmarks)
    expected, most = expected_flops(due, landmarks, strategy.quota(state)), sum(due) * landmarks[-1]
    if due and not budget.begins(0, 0, due, expected=expected, most=most):
        part = max(0, budget.total - budget.teacher - budget.kept(0))
        rule = (
            "{budget} is {:.3g}, of which the search has {:.3g}; its first generation takes about {:.3g} training FLOPs"
        )
        rule += ", and {:.3g} at most: raise it, or make landmarks, population or networks smaller"
        raise BudgetError(SearchConfig, rule, config.budget, part, expected, most)


def search_keys(config: SearchConfig) -> jax.Array:
    """[3] keys: of breeding, of the training of individuals, and of the final training."""
    return jax.random.split(jax.random.key(config.seed), 3)
