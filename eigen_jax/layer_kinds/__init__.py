"""The one table of layer kinds: the paper's three, and those that its search space does not have."""

# In the order of the table.
from eigen_jax.layer_kinds import paper, add, depthwise, average_pool, chain, large_scale  # isort: skip
from eigen_jax.layer_kinds.check import check_kind, is_numeric
from eigen_jax.layer_kinds.kind import KINDS, Choice, LayerKind, Look, Values, first_width, register

BUILT_IN = frozenset(KINDS)  # which every process knows that imports eigen_jax
