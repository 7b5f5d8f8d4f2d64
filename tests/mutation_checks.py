"""What the tests of mutations share: a small search space, batches as counts, and a chi-square test."""

from collections import Counter
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import reference_mutation as reference
from reference_mutation import Network
from scipy import stats

from eigen_jax.genome import Genome, GenomeSpec

# Maps of 5 x 3, 3 x 2, 2 x 1 and 1 x 1; genomes longer than a 32-bit word; bounds that bind.
SPEC = GenomeSpec(
    capacity=40,
    channels=(16, 32, 48),
    input_shape=(5, 3, 2),
    num_classes=3,
    max_parameters=60_000,
    max_flops=900_000,
)

# Compiling takes most of the time here, and little more than half as long without LLVM's optimisations.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def as_genome(network: Network, *, spec: GenomeSpec = SPEC) -> Genome:
    return jax.tree.map(jnp.asarray, reference.to_genome(network, capacity=spec.capacity))


def stack(genomes: list[Genome]) -> Genome:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *genomes)


def pick(batch, index: int):
    return jax.tree.map(lambda leaf: leaf[index], batch)


def assert_equal(first, second) -> None:
    jax.tree.map(np.testing.assert_array_equal, first, second)


def assert_same_arrays(first, second) -> None:
    """Equal, dtypes included."""
    assert_equal(first, second)
    assert [leaf.dtype for leaf in jax.tree.leaves(first)] == [leaf.dtype for leaf in jax.tree.leaves(second)]


def tally(genomes: Genome, labels: np.ndarray) -> Counter:
    """How often each (label, network) is in a batch, whose genomes are checked to be clean arrays."""
    arrays = (*jax.tree.leaves(genomes), labels)
    rows = np.concatenate([np.asarray(array).reshape(len(labels), -1).astype(np.int32) for array in arrays], axis=1)
    _, first, counts = np.unique(rows, axis=0, return_index=True, return_counts=True)
    tallied: Counter = Counter()
    for index, count in zip(first, counts, strict=True):
        genome = pick(genomes, index)
        network = reference.to_network(genome)
        # Dead genes are zero, too.
        assert_same_arrays(genome, reference.to_genome(network, capacity=genome.capacity))
        tallied[labels[index].item(), network] += int(count)
    return tallied


def p_value(drawn: Counter, expected: dict) -> float:
    """Of Pearson's chi-square test, rare outcomes taken together; 0 where something came that cannot."""
    if not drawn.keys() <= expected.keys():
        return 0.0
    total = drawn.total()
    cells = [(drawn[outcome], float(total * probability)) for outcome, probability in expected.items()]
    rare = [cell for cell in cells if cell[1] < 5]
    cells = [cell for cell in cells if cell[1] >= 5]
    if rare:
        cells.append((sum(count for count, _ in rare), sum(mean for _, mean in rare)))
    return stats.chisquare(*zip(*cells, strict=True)).pvalue if len(cells) > 1 else 1.0
