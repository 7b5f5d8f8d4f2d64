"""The nine mutation operators of Section 3.1, and chains of them."""

from eigen_jax.mutation.chain import MAX_REJECTIONS, MutationTrace, mutate
from eigen_jax.mutation.operators import Operator, operator_names
