"""Strategies: who is bred, who trains on, who is selected."""

from eigen_jax.strategies.config import EvolutionConfig
from eigen_jax.strategies.eigen import Eigen, EvolutionState, evolution_step, initial_state
from eigen_jax.strategies.strategy import NONE, Population, Strategy
