"""The states that a strategy goes through in a search: the first one, and what follows on each, by one program."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from eigen_jax import platforms
from eigen_jax.config import name_of
from eigen_jax.errors import ConfigError
from eigen_jax.strategies import STRATEGIES, State, Strategy
from eigen_jax.training import Programs
from eigen_jax.training.programs import compiled


def name_of_strategy(kind: type[Strategy]) -> str:
    """What a record calls a strategy: one of a user has a part of the SHA-256 of its file in its name."""
    return next((name for name in STRATEGIES if STRATEGIES.find(name) is kind), None) or name_of(kind)


@dataclasses.dataclass(frozen=True, kw_only=True)
class States:
    """How the states of one search are made; none of them is kept."""

    strategy: Strategy
    key: Array  # of breeding
    has_budget: bool
    programs: Programs | None  # where the step is compiled, once; None: as JAX remembers it

    def first(self) -> State:
        """The state of generation 0."""
        if type(self.strategy).init is not Strategy.init:
            return self._begun(self.strategy.init(jax.random.fold_in(self.key, 0)))
        # As `Strategy.init` does, by the one program of all steps.
        genesis = self._begun(self.strategy.genesis())
        return self.following(0, genesis, self.strategy.unmeasured(genesis))

    def following(self, generation: int, state: State, fitness: Array, share: float = 0.0) -> State:
        """That of a generation, after the state before it; `share` of the budget, if there is one, is spent."""
        spent = jnp.asarray(share, jnp.float32) if self.has_budget else None
        host, options = platforms.host()
        arguments = jax.device_put((jax.random.fold_in(self.key, generation), state, fitness, spent), host)
        how: dict[str, Any] = {"programs": self.programs, "options": options}
        # Compiled even for people who step through training: operation by operation, it would take minutes.
        with jax.disable_jit(False):
            step = compiled(_step, arguments, strategy=self.strategy, **how)
            if isinstance(step, jax.stages.Compiled) and _form(step.out_info) != _form(state):
                rule = "`step` of the strategy {} gives a state of other structure, shapes or dtypes than it takes"
                raise ConfigError(None, rule, name_of_strategy(type(self.strategy)))
            return step(*arguments)

    def abstract(self) -> State:
        """The shapes and dtypes of all of them."""
        if type(self.strategy).init is not Strategy.init:
            return jax.eval_shape(lambda key: self._begun(self.strategy.init(key)), self.key)
        return jax.eval_shape(lambda: self._begun(self.strategy.genesis()))

    def _begun(self, state: State) -> State:
        """A first state, in the form that all have: with a budget, they are told how much of it is spent."""
        return self.strategy.spend(state, jnp.zeros((), jnp.float32)) if self.has_budget else state


def _form(state: State) -> tuple[Any, ...]:
    leaves, structure = jax.tree.flatten(state)
    return structure, [(leaf.shape, leaf.dtype) for leaf in leaves]


def _step(key: Array, state: State, fitness: Array, spent: Array | None, *, strategy: Strategy) -> State:
    return strategy.step(key, state if spent is None else strategy.spend(state, spent), fitness)
