"""Genomes: the search space, network architectures as immutable arrays, and shape inference on them.

Dimension letters, here and in every module that handles genomes:

    G  genes of capacity (`GenomeSpec.capacity`)
    L  halvings of the image, from 0 (full size) to `GenomeSpec.max_level` (1 x 1)
"""

from eigen_jax.genome.genome import Genome, canonical, is_well_formed, minimal_genome
from eigen_jax.genome.shapes import Shapes, acceptable, infer_shapes
from eigen_jax.genome.spec import OPERATORS, GenomeSpec, Operator, operator_names
