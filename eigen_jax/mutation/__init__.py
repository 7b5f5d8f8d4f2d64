"""The mutation operators of a search space, of Section 3.1 those of the paper's, and chains of them."""

from eigen_jax.genome import OPERATORS, Operator, operator_names
from eigen_jax.mutation.chain import MAX_REJECTIONS, MutationTrace, mutate
