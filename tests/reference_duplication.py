"""Gene duplication again, in plain Python: every rule as it is said, one layer at a time.

Nothing here is shared with `eigen_jax`; networks are those of `reference_mutation`.
"""

from reference_mutation import CONV, IMAGE, POOL, UNUSED, Network, measure, pruned

from eigen_jax.genome import GenomeSpec


def blocks_of(network: Network, *, spec: GenomeSpec) -> list[list[int]]:
    """The layers of each block, from the largest map; empty where no layer has the size."""
    measures = measure(network, spec=spec)
    assert measures is not None
    return [[layer for layer, size in enumerate(measures.sizes) if size == level] for level in spec.sizes]


def can_repeat(network: Network, block: list[int], *, spec: GenomeSpec) -> bool:
    """Whether a copy of the block holds any layer, and only layers of the search space."""
    copied = [network[layer] for layer in block if network[layer].op != POOL]
    return bool(copied) and (1 in spec.strides or all(gene.op != CONV for gene in copied))


def repeat(network: Network, repeats: tuple[int, ...], *, spec: GenomeSpec) -> Network:
    """The network with its blocks repeated, whatever its size."""
    grown: list = []  # genes whose inputs are places in this list
    last_copy = {IMAGE: IMAGE}  # where to find what a layer outside of the block reads
    for block, times in zip(blocks_of(network, spec=spec), repeats, strict=True):
        output = IMAGE  # of the copy before, once there is one
        for copy in range(times):
            here: dict[int, int] = {UNUSED: UNUSED}
            for layer in block:
                gene = network[layer]
                if copy > 0 and gene.op == POOL:
                    here[layer] = output
                    continue
                entering = last_copy if copy == 0 else dict.fromkeys(gene.inputs, output)
                first, second = (here[source] if source in here else entering[source] for source in gene.inputs)
                if copy > 0 and gene.op == CONV:
                    gene = gene._replace(stride=spec.strides.index(1))
                here[layer] = len(grown)
                grown.append(gene._replace(inputs=(first, second)))
            output = len(grown) - 1
        last_copy |= {layer: here[layer] for layer in block}
    return pruned(grown, last_copy[len(network) - 1])
