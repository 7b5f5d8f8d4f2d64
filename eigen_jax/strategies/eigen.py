"""EIGEN: succession, extinction (Algorithm 1) and duplication, as pure functions of a population and its fitness.

Dimension letters are as in `strategy`, and G genes, S generations of a saturation window. Fitness is one number, NaN or
-inf for an individual that has none.
"""

import dataclasses
import enum
import functools
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array, lax

from eigen_jax.duplication import duplicates
from eigen_jax.genome import Genome, GenomeSpec, minimal_genome
from eigen_jax.strategies.breeding import bear, nobody
from eigen_jax.strategies.config import EvolutionConfig
from eigen_jax.strategies.strategy import NONE, Population, Strategy


class Phase(enum.IntEnum):
    """The stages of a search, in order."""

    PRIMARY = 0  # primary succession: leaps from the global-pooling network
    SECONDARY = 1  # secondary succession: small steps
    DUPLICATION = 2  # gene duplication: whole blocks of the fittest repeated
    CONVERGED = 3  # nothing is gained any more


@struct.dataclass
class Thresholds:
    """The fitness that an individual must reach at the two early landmarks; they never fall."""

    first: Array  # [] float32, v1, at T1
    second: Array  # [] float32, v2, at T1 + T2


@struct.dataclass
class Children:
    genomes: Genome  # [P, ...]
    steps: Array  # [P] int32, mutation steps drawn for the child; 0 in the duplication phase
    operators: Array  # [P, O] int32, how often each operator made it; 0 in the duplication phase
    repeats: Array  # [P, H + 1] int32, how often each block of the parent stands; 1 but in the duplication phase


@struct.dataclass
class EvolutionState:
    """A search between two generations: a plain pytree, without keys."""

    generation: Array  # [] int32, of the population
    phase: Array  # [] int32, a `Phase`
    phase_generation: Array  # [] int32, generations that the phase has completed
    population: Children
    thresholds: Thresholds
    parent: Genome  # the population's parent
    parent_id: Array  # [2] int32, its generation and index; NONE for the global-pooling network
    parent_fitness: Array  # [] float32, -inf for the global-pooling network
    best: Genome  # the fittest survivor so far
    best_id: Array  # [2] int32
    best_fitness: Array  # [] float32, -inf while there is none
    history: Array  # [S] float32, best_fitness after each of the phase's last S generations, newest last


@struct.dataclass
class BudgetedState(EvolutionState):
    """That of a search with a budget."""

    spent: Array  # [] float32, the share of it that is spent


@struct.dataclass
class Survival:
    thresholds: Thresholds  # as updated by this generation; -inf where none were applied
    survives_first: Array  # [P] bool
    survives_second: Array  # [P] bool
    survives: Array  # [P] bool, and has a fitness at the last landmark
    fittest: Array  # [] int32, the first of the fittest survivors; meaningless if there is none


def update_threshold(level: Array, fitness: Array, alive: Array, *, rank: int) -> Array:
    """Raises a threshold to the rank-th best fitness of the living (Eq. 1 with p, Eq. 2 with q); [] float32.

    It stays at `level`, [] float32, where fewer than `rank` of the fitness, [P] float32, are of the living and finite.
    """
    counted = jnp.where(alive & jnp.isfinite(fitness), fitness, -jnp.inf)
    ranked = jnp.sort(counted, descending=True)
    # With fewer than `rank` values, the rank-th is -inf and the maximum leaves the level as it was.
    return jnp.maximum(level, ranked[rank - 1]) if rank <= len(fitness) else level


def extinguish(level: Array, fitness: Array, alive: Array) -> Array:
    """Who lives on, [P] bool: the living whose fitness reaches the threshold, NaN never (Algorithm 1, lines 5, 8)."""
    return alive & (fitness >= level)


@functools.partial(jax.jit, static_argnames="config")
def survivors(state: EvolutionState, fitness: Array, *, config: EvolutionConfig) -> Survival:
    """Raises both thresholds and extinguishes (Algorithm 1, lines 3 to 9); of those spared, all that have a fitness."""
    spared, measured = spares(state, config=config), jnp.isfinite(fitness)

    def judge(level, landmark, alive, rank):
        values = fitness[:, landmark]
        level = jnp.where(spared, -jnp.inf, update_threshold(level, values, alive, rank=rank))
        return level, extinguish(level, values, alive & measured[:, landmark])

    first, survives_first = judge(state.thresholds.first, 0, is_child(state), config.first_rank)
    second, survives_second = judge(state.thresholds.second, 1, survives_first, config.second_rank)
    survives = survives_second & measured[:, 2]
    fittest = jnp.argmax(jnp.where(survives, fitness[:, 2], -jnp.inf)).astype(jnp.int32)
    return Survival(Thresholds(first, second), survives_first, survives_second, survives, fittest)


def spares(state: EvolutionState, *, config: EvolutionConfig) -> Array:
    """Whether no threshold applies: who is measured trains on to the end; [] bool."""
    spares_duplicates = (state.phase == Phase.DUPLICATION) & (not config.extinguish_duplicates)
    return spares_duplicates | (not config.extinction)


def is_child(state: EvolutionState) -> Array:
    """Which slots of a population hold children; [P] bool, the first ones.

    All, but in the duplication phase: there, slots for which no combination of blocks was left hold the parent, which
    is neither trained nor counted for a threshold.
    """
    return (state.phase != Phase.DUPLICATION) | (state.population.repeats > 1).any(axis=1)


def breed(key: Array, parent: Genome, most_steps: Array, *, spec: GenomeSpec, config: EvolutionConfig) -> Children:
    """Mutates a parent, [G] genes, into P children, each drawn as `bear` tells."""
    slots = config.population_size
    genomes, steps, trace = bear(key, parent, most_steps, slots=slots, spec=spec, config=config)
    return dataclasses.replace(_nobody(config, spec), genomes=genomes, steps=steps, operators=trace.counts)


def breed_duplicates(key: Array, parent: Genome, *, spec: GenomeSpec, config: EvolutionConfig) -> Children:
    """Repeats the blocks of a parent, [G] genes, by P different combinations; where fewer fit, see `is_child`."""
    most = config.max_repeats
    genomes, repeats = duplicates(key, parent, count=config.population_size, spec=spec, max_repeats=most)
    return dataclasses.replace(_nobody(config, spec), genomes=genomes, repeats=repeats)


def _nobody(config: EvolutionConfig, spec: GenomeSpec) -> Children:
    """[P] times the global-pooling network, made by nothing."""
    empty, steps = nobody(config.population_size, spec=spec), jnp.zeros(config.population_size, jnp.int32)
    return Children(genomes=empty.genomes, steps=steps, operators=empty.operators, repeats=empty.repeats)


def initial_state(key: Array, *, spec: GenomeSpec, config: EvolutionConfig) -> EvolutionState:
    """The first population, bred from the global-pooling network with the key of generation 0; thresholds at -inf."""
    nobody_survives = jnp.full((config.population_size, 3), -jnp.inf, jnp.float32)
    return evolution_step(key, genesis(spec=spec, config=config), nobody_survives, spec=spec, config=config)


def genesis(*, spec: GenomeSpec, config: EvolutionConfig) -> EvolutionState:
    """A generation before the first: the first population comes of a step like any other, by the same program."""
    ancestor, pooling = minimal_genome(spec), jnp.full(2, NONE, jnp.int32)
    before, nothing = jnp.asarray(NONE, jnp.int32), jnp.asarray(-jnp.inf, jnp.float32)
    return EvolutionState(
        generation=before,
        phase=jnp.asarray(Phase.PRIMARY, jnp.int32),
        phase_generation=before,
        population=_nobody(config, spec),
        thresholds=Thresholds(nothing, nothing),
        parent=ancestor,
        parent_id=pooling,
        parent_fitness=nothing,
        best=ancestor,
        best_id=pooling,
        best_fitness=nothing,
        history=jnp.full(config.saturation_window, -jnp.inf, jnp.float32),
    )


class _Contender(NamedTuple):
    genome: Genome  # [G] genes
    id: Array  # [2] int32
    fitness: Array  # [] float32


@functools.partial(jax.jit, static_argnames=("spec", "config"))
def evolution_step(
    key: Array, state: EvolutionState, fitness: Array, *, spec: GenomeSpec, config: EvolutionConfig
) -> EvolutionState:
    """One generation of Algorithm 1: extinction, selection, and the next population. Traced once in a search.

    `key` is that of the next generation; `fitness`, [P, 3] or [P, 3, 1] float32, that of the state's population at
    T1, T1 + T2 and T1 + T2 + T3, NaN or -inf where there is none.

    The next parent is the fittest survivor, or stays who it was where nobody survives (or, with elitism, nobody is
    fitter). In the duplication phase it is the fittest survivor so far; that phase is passed over where nothing has
    survived yet, or no combination of its blocks fits.
    """
    fitness = fitness[..., 0] if fitness.ndim == 3 else fitness
    survival = survivors(state, fitness, config=config)
    parent, best = _select(state, survival, fitness, config)
    stage = _next_stage(state, best.fitness, config)
    duplicating = (stage["phase"] == Phase.DUPLICATION) & jnp.isfinite(best.fitness)
    parent = _replace_if(duplicating, best, parent)
    most_steps = jnp.where(stage["phase"] == Phase.PRIMARY, config.primary_steps, config.secondary_steps)
    # Not a select: only one of the two breeders runs.
    population = lax.cond(
        duplicating,
        lambda: breed_duplicates(key, parent.genome, spec=spec, config=config),
        lambda: breed(key, parent.genome, most_steps, spec=spec, config=config),
    )
    passed_over = (stage["phase"] == Phase.DUPLICATION) & (population.repeats == 1).all()
    converged = {"phase": jnp.int32(Phase.CONVERGED), "phase_generation": jnp.int32(0), "history": -jnp.inf}
    return dataclasses.replace(
        state,
        **_replace_if(passed_over, converged, stage),
        generation=state.generation + 1,
        population=population,
        # Where none were applied, they stay.
        thresholds=jax.tree.map(jnp.maximum, state.thresholds, survival.thresholds),
        parent=parent.genome,
        parent_id=parent.id,
        parent_fitness=parent.fitness,
        best=best.genome,
        best_id=best.id,
        best_fitness=best.fitness,
    )


def _select(
    state: EvolutionState, survival: Survival, fitness: Array, config: EvolutionConfig
) -> tuple[_Contender, _Contender]:
    """The next parent of a succession, and the best so far."""
    parent = _Contender(state.parent, state.parent_id, state.parent_fitness)
    best = _Contender(state.best, state.best_id, state.best_fitness)
    anybody = survival.survives.any()
    fittest = _Contender(
        genome=jax.tree.map(lambda leaf: leaf[survival.fittest], state.population.genomes),
        id=jnp.stack([state.generation, survival.fittest]),
        fitness=jnp.where(anybody, fitness[survival.fittest, 2], -jnp.inf),
    )
    promoted = anybody & ((not config.elitism) | (fittest.fitness > parent.fitness))
    return _replace_if(promoted, fittest, parent), _replace_if(fittest.fitness > best.fitness, fittest, best)


def _next_stage(state: EvolutionState, best_fitness: Array, config: EvolutionConfig) -> dict[str, Array]:
    """The fields of the state that say how far the search is; a phase that may last no generation is passed over."""
    limits = config.max_primary_generations, config.max_secondary_generations, config.max_duplication_generations, 0
    following = [next((p for p in Phase if p > phase and limits[p] > 0), Phase.CONVERGED) for phase in Phase]
    lasted = state.phase_generation + 1
    ended = is_saturated(state.history, best_fitness, gain=config.saturation_gain)
    ended |= lasted >= jnp.asarray(limits, jnp.int32)[state.phase]
    if isinstance(state, BudgetedState):
        # A phase leaves the next one its share, and ends by none where nothing follows.
        begins = {Phase.SECONDARY: config.secondary_from, Phase.DUPLICATION: config.duplication_from}
        shares = [begins.get(phase, jnp.inf) for phase in following]
        ended |= state.spent >= jnp.asarray(shares, jnp.float32)[state.phase]
    history = jnp.append(state.history[1:], best_fitness)
    return {
        "phase": jnp.where(ended, jnp.asarray(following, jnp.int32)[state.phase], state.phase),
        "phase_generation": jnp.where(ended, 0, lasted),
        "history": jnp.where(ended, -jnp.inf, history),
    }


def is_saturated(history: Array, best_fitness: Array, *, gain: float) -> Array:
    """Whether the best fitness gained less than `gain` over the window of the state's `history`; [] bool."""
    return jnp.isfinite(history[0]) & (best_fitness - history[0] < gain)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Eigen(Strategy):
    """The paper's search: primary and secondary succession with extinction, then gene duplication."""

    num_landmarks: ClassVar[int] = 3
    within_population = "first_rank", "second_rank"

    def genesis(self) -> EvolutionState:
        return genesis(spec=self.spec, config=self.config)

    def population(self, state: EvolutionState) -> Population:
        slots, children = self.config.population_size, state.population
        places = jnp.stack(jnp.broadcast_arrays(state.generation, jnp.arange(slots, dtype=jnp.int32)), axis=1)
        places = jnp.where(is_child(state)[:, None], places, NONE)
        parents = jnp.broadcast_to(state.parent_id, (slots, 1, 2))
        return Population(children.genomes, places, parents, children.operators, children.repeats)

    def survives(self, state: EvolutionState, fitness: Array, landmark: int) -> Array:
        survival = survivors(state, fitness[..., 0], config=self.config)
        return (survival.survives_first, survival.survives_second)[landmark]

    def threshold(self, state: EvolutionState, fitness: Array, landmark: int) -> Array:
        thresholds = survivors(state, fitness[..., 0], config=self.config).thresholds
        return (thresholds.first, thresholds.second)[landmark]

    def spares(self, state: EvolutionState) -> bool:
        return bool(spares(state, config=self.config))

    def quota(self, state: EvolutionState) -> tuple[int, ...]:
        everybody = (self.config.population_size,) * 2
        return everybody if self.spares(state) else (self.config.first_rank, self.config.second_rank)

    def step(self, key: Array, state: EvolutionState, fitness: Array) -> EvolutionState:
        return evolution_step(key, state, fitness, spec=self.spec, config=self.config)

    def spend(self, state: EvolutionState, share: Array) -> BudgetedState:
        fields = {field.name: getattr(state, field.name) for field in dataclasses.fields(EvolutionState)}
        return BudgetedState(**fields, spent=share)

    def is_done(self, state: EvolutionState) -> Array:
        return state.phase == Phase.CONVERGED

    def phase(self, state: EvolutionState) -> str:
        return Phase(int(state.phase)).name.lower()

    def title(self, state: EvolutionState) -> str:
        return {
            Phase.PRIMARY: f"Primary succession: up to {self.config.primary_steps} mutation steps a child",
            Phase.SECONDARY: f"Secondary succession: up to {self.config.secondary_steps} mutation steps a child",
            Phase.DUPLICATION: f"Gene duplication: blocks of the fittest, up to {self.config.max_repeats} in a row",
            Phase.CONVERGED: "Converged",
        }[Phase(int(state.phase))]


def _replace_if(condition: Array, new, old):
    return jax.tree.map(functools.partial(jnp.where, condition), new, old)
