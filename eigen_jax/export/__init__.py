"""Networks for use elsewhere: as Python that needs Flax and safetensors alone; StableHLO; ONNX, in `onnx_graph`."""

from eigen_jax.export.flax_source import network_source, preprocessing_source, write_flax
from eigen_jax.export.network import ExportError, TrainedModel
from eigen_jax.export.stablehlo import write_stablehlo
