"""EIGEN in JAX: networks evolved from scratch by succession and extinction."""

from eigen_jax.architecture import Architecture, decode, encode
from eigen_jax.data import DataConfig, Dataset, load_dataset
from eigen_jax.errors import ConfigError, EigenError
from eigen_jax.executor import Executor, InlineExecutor, PoolExecutor, ProcessWorkers
from eigen_jax.executor.ray_cluster import RayWorkers
from eigen_jax.fitness import Fitness, Measurement
from eigen_jax.genome import Genome, GenomeSpec, minimal_genome
from eigen_jax.layer_kinds import LayerKind
from eigen_jax.mutation import MutationTrace, Operator, mutate
from eigen_jax.networks import NamedNetwork, build_network
from eigen_jax.resumable import Care
from eigen_jax.search import SearchConfig, SearchObserver, SearchResult, load_network, run_search
from eigen_jax.strategies import (
    AgingEvolution,
    Eigen,
    EvolutionConfig,
    EvolutionState,
    Nsga2,
    RandomSearch,
    Strategy,
    evolution_step,
    initial_state,
)
from eigen_jax.training import TrainConfig
from eigen_jax.version import __version__

__all__ = [
    "AgingEvolution", "Architecture", "Care", "ConfigError", "DataConfig", "Dataset", "Eigen", "EigenError",
    "EvolutionConfig", "EvolutionState", "Executor", "Fitness", "Genome", "GenomeSpec", "InlineExecutor", "LayerKind",
    "Measurement", "MutationTrace", "NamedNetwork", "Nsga2", "Operator", "PoolExecutor", "ProcessWorkers",
    "RandomSearch", "RayWorkers", "SearchConfig", "SearchObserver", "SearchResult", "Strategy", "TrainConfig",
    "__version__", "build_network", "decode", "encode", "evolution_step", "initial_state", "load_dataset",
    "load_network", "minimal_genome", "mutate", "run_search"
]  # fmt: skip
