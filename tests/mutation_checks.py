"""What the tests of genomes share: a small search space, batches as counts, and a chi-square test."""

import re
from collections import Counter
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from reference_mutation import Network, to_genome, to_network
from scipy import stats

from eigen_jax.architecture import count_flops, count_parameters, decode, layer_shapes
from eigen_jax.builder import build_network
from eigen_jax.genome import Genome, GenomeSpec, acceptable, infer_shapes
from eigen_jax.mutation import operator_names, proposals

# Maps of 5 x 3, 3 x 2, 2 x 1 and 1 x 1; genomes longer than a 32-bit word; bounds that bind.
SPEC = GenomeSpec(
    capacity=40, channels=(16, 32, 48), input_shape=(5, 3, 2), num_classes=3, max_parameters=60_000, max_flops=900_000
)

# Windows of 32, 128 and 160 genes where the batch is large; bounds that hold most children down.
CHAINS = GenomeSpec(capacity=160, max_parameters=150_000, max_flops=20_000_000)

# Compiling takes most of the time here, and little more than half as long without LLVM's optimisations.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def is_valid(genome: Genome, *, spec: GenomeSpec) -> Array:
    """Whether a genome keeps every rule of the search space; [] bool, jit- and vmap-able.

    The rules: dead genes are all zero; every live gene is a layer whose inputs come before it and
    whose choices the spec has; a layer of two inputs joins two layers that agree; no 1 x 1 map is
    halved; no map has more than 2 ** 20 channels; every live gene reaches the sink; the bounds on
    parameters and FLOPs hold.
    """
    gene = jnp.arange(genome.capacity, dtype=jnp.int32)
    live = gene < genome.length
    first, second = genome.inputs[:, 0].astype(jnp.int32), genome.inputs[:, 1].astype(jnp.int32)
    layers = jnp.zeros(genome.capacity, bool)
    for code, kind in enumerate(spec.ops, start=1):
        fits = (first >= (-1 if kind.inputs == 1 else 0)) & (first < gene)
        fits &= (second == Genome.UNUSED) if kind.inputs == 1 else (second >= 0) & (second < gene)
        for name in spec.choice_names:
            count = len(spec.options[kind.name][name]) if name in spec.options[kind.name] else 1
            fits &= (getattr(genome, name) >= 0) & (getattr(genome, name) < count)
        layers |= (genome.op == code) & fits
    zero = (genome.op == 0) & (genome.inputs == 0).all(axis=1)
    for name in spec.choice_names:
        zero &= getattr(genome, name) == 0
    genes = jnp.where(live, layers, zero)
    shapes = infer_shapes(genome, spec=spec)
    return (
        (genome.length >= 0)
        & (genome.length <= genome.capacity)
        & genes.all()
        & (reaches_sink(genome) == live).all()
        & acceptable(shapes, spec=spec)
    )


def reaches_sink(genome: Genome) -> Array:
    """Which genes lie on a path to the sink; [G] bool, False for dead genes."""

    def visit(step, reached):
        gene = genome.capacity - 1 - step
        inputs = genome.inputs[gene].astype(jnp.int32)
        # Inputs that are no genes are sent past the end, where `drop` loses them.
        targets = jnp.where(reached[gene] & (inputs >= 0), inputs, genome.capacity)
        return reached.at[targets].set(True, mode="drop")

    sink = jnp.arange(genome.capacity, dtype=jnp.int32) == genome.length - 1
    return lax.fori_loop(0, genome.capacity, visit, sink)


@partial(jit, static_argnames="spec")
def check(genomes: Genome, *, spec: GenomeSpec):
    """Validity, [B] bool, and shapes, for a batch."""
    return jax.vmap(partial(is_valid, spec=spec))(genomes), jax.vmap(partial(infer_shapes, spec=spec))(genomes)


def as_genome(network: Network, *, spec: GenomeSpec = SPEC) -> Genome:
    return to_genome(network, capacity=spec.capacity)


def stack(genomes: list[Genome]) -> Genome:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *genomes)


def pick(batch, index):
    return jax.tree.map(lambda leaf: leaf[index], batch)


def assert_equal(first, second, **options: bool) -> None:
    jax.tree.map(partial(np.testing.assert_array_equal, **options), first, second)


assert_same_arrays = partial(assert_equal, strict=True)  # dtypes included


def assert_same_network(first: Genome, second: Genome, *, spec: GenomeSpec) -> None:
    """Equal whatever the order of their genes."""
    assert decode(first, spec=spec) == decode(second, spec=spec)


def assert_built_as_told(genome: Genome, shapes, spec: GenomeSpec) -> None:
    """That the network is built with a genome's shapes, and costs what it is told to, within the bounds."""
    architecture = decode(genome, spec=spec)
    live = int(genome.length)
    told = [(*spec.sizes[level], width) for level, width in zip(shapes.level[:live], shapes.width[:live], strict=True)]
    assert Counter(told) == Counter(layer_shapes(architecture))

    module = build_network(architecture, num_classes=spec.num_classes)
    images = jax.ShapeDtypeStruct((1, *spec.input_shape), jnp.float32)
    apply = partial(module.init_with_output, train=False, capture_intermediates=True, mutable=True)
    logits, variables = jax.eval_shape(apply, jax.random.key(0), images)
    assert logits.shape == (1, spec.num_classes)
    captured = variables.get("intermediates", {})
    for position, shape in enumerate(layer_shapes(architecture)):
        # Most layers are a module; of a depthwise convolution, the last one normalises.
        own = [captured[name] for name in (f"layer_{position}", f"layer_{position}_norm") if name in captured]
        assert own or not any(re.match(rf"layer_{position}(_|$)", name) for name in variables["params"])
        for outputs in own:
            _, *built = outputs["__call__"][0].shape
            assert shape[-len(built) :] == tuple(built)  # of a dense layer, features alone

    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert parameters == count_parameters(architecture, num_classes=spec.num_classes) == shapes.parameters
    assert count_flops(architecture, num_classes=spec.num_classes) == shapes.flops
    assert parameters <= spec.max_parameters
    assert shapes.flops <= spec.max_flops


def mutate_once(key: Array, genome: Genome, operator: str, *, spec: GenomeSpec) -> tuple[Genome, Array]:
    """One operator applied at a drawn site, dead layers pruned, and True; or the genome and False for a refusal."""
    shapes, sites = infer_shapes(genome, spec=spec), proposals.find_sites(genome, spec)
    place = operator_names(spec).index(operator)
    words = jax.random.bits(key, (proposals.WORDS_A_DRAW,), jnp.uint32)
    applies = proposals.applicable(genome, shapes, sites, spec)[place]
    proposal = proposals.propose(jnp.asarray(place, jnp.int32), words, genome, shapes, sites, spec)
    mutant = proposals.apply(proposal, genome, spec)
    accepted = applies & proposal.sound & acceptable(infer_shapes(mutant, spec=spec), spec=spec)
    mutant = jax.tree.map(partial(jnp.where, accepted), mutant, genome)

    def prune(genome: Genome) -> Genome:
        return proposals.apply(proposals.pruned(proposal, proposals.last_unread(genome)), genome, spec)

    return lax.while_loop(lambda genome: proposals.last_unread(genome) >= 0, prune, mutant), accepted


def tally(genomes: Genome, labels: np.ndarray) -> Counter:
    """How often each (label, network) is in a batch, whose genomes are checked to be clean arrays."""
    arrays = (*jax.tree.leaves(genomes), labels)
    rows = np.concatenate([np.asarray(array).reshape(len(labels), -1).astype(np.int32) for array in arrays], axis=1)
    _, first, counts = np.unique(rows, axis=0, return_index=True, return_counts=True)
    tallied: Counter = Counter()
    for index, count in zip(first, counts, strict=True):
        genome = pick(genomes, index)
        network = to_network(genome)
        # Dead genes are zero, too.
        assert_same_arrays(genome, to_genome(network, capacity=genome.capacity))
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
