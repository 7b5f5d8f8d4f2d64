"""Architectures: networks as static, hashable values, and what can be told of them without building.

The one-way door between the two arms of the package: `decode` turns a genome, which is arrays,
into an `Architecture`, which the training arm builds, compiles, caches and records.
"""

from eigen_jax.architecture.codec import decode, encode
from eigen_jax.architecture.graph import (
    IMAGE,
    Architecture,
    ArchitectureError,
    Layer,
    count_flops,
    count_parameters,
    layer_shapes,
)
from eigen_jax.architecture.serialization import (
    MAX_LAYERS,
    SCHEMA_VERSION,
    fingerprint,
    from_dict,
    from_json,
    to_dict,
    to_json,
)
