"""The mutation operators of a search space, of Section 3.1 those of the paper's, and chains of them."""

from eigen_jax.genome import OPERATORS, Operator
from eigen_jax.mutation.chain import MAX_REJECTIONS, MutationTrace, mutate
from eigen_jax.mutation.proposals import operator_names, operators
