"""The one table of layer kinds: the paper's three, and three that its search space does not have."""

from eigen_jax.layer_kinds import paper, add, depthwise, average_pool  # isort: skip  # in the order of the table
from eigen_jax.layer_kinds.check import check_kind, is_numeric
from eigen_jax.layer_kinds.kind import KINDS, Choice, LayerKind, Look, Values, first_width, register

BUILT_IN = frozenset(KINDS)  # which every process knows that imports eigen_jax
