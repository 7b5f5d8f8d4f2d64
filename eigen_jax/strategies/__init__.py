"""Strategies: who is bred, who trains on, who is selected."""

from eigen_jax.registry import Registry
from eigen_jax.strategies.ag_evolution import AgEvolution
from eigen_jax.strategies.aging import AgingEvolution
from eigen_jax.strategies.breeding import Parents, global_pooling, join, nobody, offspring, pick, places_of, walk
from eigen_jax.strategies.config import EvolutionConfig
from eigen_jax.strategies.eden import Eden
from eigen_jax.strategies.eigen import (
    Eigen,
    EvolutionState,
    evolution_step,
    extinguish,
    initial_state,
    update_threshold,
)
from eigen_jax.strategies.genetic_cnn import GeneticCnn
from eigen_jax.strategies.large_scale import LargeScaleEvolution
from eigen_jax.strategies.nsga2 import Nsga2
from eigen_jax.strategies.random_search import RandomSearch
from eigen_jax.strategies.strategy import NONE, Genomes, Population, State, Strategy

STRATEGIES: Registry[type[Strategy]] = Registry("strategy")
STRATEGIES.add("eigen", Eigen)
STRATEGIES.add("random", RandomSearch)
STRATEGIES.add("aging", AgingEvolution)
STRATEGIES.add("nsga2", Nsga2)
STRATEGIES.add("eden", Eden)
STRATEGIES.add("ag-evolution", AgEvolution)
STRATEGIES.add("genetic-cnn", GeneticCnn)
STRATEGIES.add("large-scale", LargeScaleEvolution)
