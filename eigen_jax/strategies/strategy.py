"""The seam between what breeds and selects, a strategy, and what trains and records, the search.

Dimension letters, here and in every strategy: P slots of a population, L landmarks, M objectives, O operators of the
search space, R parents of a child, H halvings of the image.
"""

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import struct
from jax import Array

from eigen_jax.architecture import Architecture, decode
from eigen_jax.errors import ConfigError
from eigen_jax.genome import GenomeSpec, operator_names
from eigen_jax.strategies.config import EvolutionConfig

State = Any  # of a strategy: a pytree of arrays, without keys
Genomes = Any  # of one individual, or with leading axes of several: a pytree of arrays, by default a `Genome`
NONE = -1  # as a generation or an index: nobody


@struct.dataclass
class Population:
    """Those who are measured now, and those who may be trained ahead where there is room."""

    genomes: Genomes  # [P, ...]
    places: Array  # [P, 2] int32, generation and index in the record, ascending; NONE: the slot is empty
    parents: Array  # [P, R, 2] int32, places of whom each descends from; NONE: of nobody, such as global pooling
    operators: Array  # [P, O] int32, how often each operator made it
    repeats: Array  # [P, H + 1] int32, how often each block of the parent stands; 1 unless by gene duplication


@dataclasses.dataclass(frozen=True, kw_only=True)
class Strategy(abc.ABC):
    """How a search breeds and selects: static and hashable, its methods pure and, but for the names, traceable.

    A search begins with `init`. The individuals of `population(state)` whose place names the current generation
    (the number of steps taken so far) are trained to each of the `landmarks` in turn; after each but the last those
    go on who `survives`; `step` gives the next state. Individuals of later generations are trained ahead to their
    first landmark, as far as places are free, and count as unmeasured until they are due.

    Fitness is [P, L, M] float32, more is better; -inf where nothing is measured. A failure is never measured again.

    A genome that is no layer graph, or says more than one, is told to the host by `space`, `operator_names`, `decode`,
    `training`, `identities` and `ancestors`, none of which is traced.
    """

    num_landmarks: ClassVar[int] = 1  # L
    max_objectives: ClassVar[int | None] = 1  # the most objectives that it compares; None: any number
    within_population: ClassVar[tuple[str, ...]] = ()  # the settings that are at most the population's size
    reevaluates: ClassVar[bool] = False  # whether equal individuals are trained again each, whatever the settings say

    spec: GenomeSpec
    config: EvolutionConfig = dataclasses.field(default_factory=EvolutionConfig)
    objectives: int = 1  # M

    def __post_init__(self) -> None:
        if self.max_objectives is not None and self.objectives > self.max_objectives:
            rule = "{fitness} gives {} numbers, and {} compares {}; choose {strategy} nsga2, or another {fitness}"
            raise ConfigError(None, rule, self.objectives, type(self).__name__, self.max_objectives)
        for name in self.within_population:
            if (value := getattr(self.config, name)) > self.config.population_size:
                rule = f"{{{name}}} is {{}}; it must be at most {{population_size}}, which is {{}}"
                raise ConfigError(EvolutionConfig, rule, value, self.config.population_size)

    @classmethod
    def space(cls, spec: GenomeSpec) -> GenomeSpec:
        """The search space that it breeds in where a run's settings name `spec`; raises ConfigError for none."""
        return spec

    def genesis(self) -> State:  # noqa: B027  # not needed by a strategy with an `init` of its own
        """The state of which a step, with a fitness of which nothing is measured, gives the first population."""

    def population(self, state: State) -> Population:
        return state.population

    @abc.abstractmethod
    def step(self, key: Array, state: State, fitness: Array) -> State:
        """What follows on a generation; `key` is that of the next one."""

    def spend(self, state: State, share: Array) -> State:
        """Told before each `step` of a search that has a budget: which share of its part is spent, [] float32, 0 to 1.

        Gives a state of the structure that it gave before the first step. By default it is of no interest.
        """
        return state

    def is_done(self, state: State) -> Array:
        """Whether the search is over; [] bool. By default, once nobody is bred any more."""
        return (self.population(state).places == NONE).all()

    def init(self, key: Array) -> State:
        """The first population, bred with the key of generation 0."""
        state = self.genesis()
        return self.step(key, state, self.unmeasured(state))

    def unmeasured(self, state: State) -> Array:
        """The fitness of a population of which nothing is measured."""
        slots = len(self.population(state).places)
        return jnp.full((slots, self.num_landmarks, self.objectives), -jnp.inf, jnp.float32)

    def landmarks(self, steps: Sequence[int]) -> tuple[int, ...]:
        """The training steps after which an individual is measured, L, of those of the search's configuration."""
        return tuple(steps[-self.num_landmarks :])

    def survives(self, state: State, fitness: Array, landmark: int) -> Array:
        """Who trains on after a landmark, [P] bool; by default, all who are measured there."""
        return jnp.isfinite(fitness[:, landmark]).all(axis=1)

    def spares(self, state: State) -> bool:
        """Whether all who are measured train on to the end; then no less is taken over from an equal architecture."""
        return True

    def quota(self, state: State) -> tuple[int, ...]:
        """About how many train on after each landmark but the last, L - 1; for the time left."""
        return (len(self.population(state).places),) * (self.num_landmarks - 1)

    def threshold(self, state: State, fitness: Array, landmark: int) -> Array:
        """What `survives` asks of the first objective, for the record; [] float32, -inf for nothing."""
        return jnp.asarray(-jnp.inf, jnp.float32)

    def phase(self, state: State) -> str:
        """The stage of the search that a state is in, in one word; for the record."""
        return type(self).__name__.lower()

    def title(self, state: State) -> str:
        return self.phase(state)

    def operator_names(self) -> tuple[str, ...]:
        """The operators that `Population.operators` counts, O."""
        return operator_names(self.spec)

    def decode(self, genome: Genomes) -> Architecture:
        """The network of one individual."""
        return decode(genome, spec=self.spec)

    def training(self, genome: Genomes) -> Mapping[str, Any]:
        """The fields of `TrainConfig`, none that changes what a step costs, in which an individual's is another."""
        return {}

    def identities(self, genome: Genomes) -> tuple[int, ...] | None:
        """Of each layer of `decode(genome)`, in its order, and of the classifier, whose weights it has.

        Where the first parent has a layer of the same number, training starts from its weights, if all of them are of
        the same shapes. None: an individual is trained from scratch, and inherits and bequeaths nothing.
        """
        return None

    def ancestors(self, state: State) -> Array:
        """The places, [A, 2] int32 or NONE, of whom children that are not bred yet may inherit weights."""
        return jnp.full((0, 2), NONE, jnp.int32)
