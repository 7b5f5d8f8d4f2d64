"""The nine mutation operators of Section 3.1, and chains of them."""

from eigen_jax.mutation.chain import MAX_REJECTIONS, MutationTrace, mutate
from eigen_jax.mutation.operators import (
    Operator,
    alter_channels,
    alter_kernel,
    alter_stride,
    insert_concat,
    insert_conv,
    insert_pool,
    remove_concat,
    remove_conv,
    remove_pool,
)

__all__ = [
    "MAX_REJECTIONS",
    "MutationTrace",
    "Operator",
    "alter_channels",
    "alter_kernel",
    "alter_stride",
    "insert_concat",
    "insert_conv",
    "insert_pool",
    "mutate",
    "remove_concat",
    "remove_conv",
    "remove_pool",
]
