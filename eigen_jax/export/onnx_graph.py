"""A network as ONNX: pixels [N, H, W, C] in, logits [N, K] out, in float32 whatever the run computed in.

It needs the extra "export". Within, maps are [N, C, H, W], as all of ONNX has them. Each kind of layer says in its
record what becomes of it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from eigen_jax.architecture import IMAGE
from eigen_jax.data.preprocessing import ChannelTable, ContrastWhitening
from eigen_jax.export.network import TrainedModel
from eigen_jax.processor import Preprocessor
from eigen_jax.store import files

_OPSET, _IR = 18, 9  # of 2022, which runtimes since know
_EPSILON = 1e-5  # of `eigen_jax.layers.normalization`


class Graph:
    """A graph in the making: nodes and constants, each output known by its name."""

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        """Begins one for a network with these variables, see `TrainedModel.weights`."""
        self.weights = weights
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node of one output, and gives that."""
        output = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [output], **attributes))
        return output

    def constant(self, values: np.ndarray) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def conv(self, x: str, name: str, *, stride: int = 1, depthwise: bool = False) -> str:
        """A convolution without bias, SAME padding, by the kernel of a module `name`."""
        kernel = self.weights[f"params/{name}/kernel"].transpose(3, 2, 0, 1)
        sizes: dict[str, Any] = {"kernel_shape": kernel.shape[2:], "strides": [stride] * 2}
        groups = len(kernel) if depthwise else 1
        return self.add("Conv", x, self.constant(kernel), auto_pad="SAME_UPPER", group=groups, **sizes)

    def norm_relu(self, x: str, name: str) -> str:
        """Batch normalisation by running averages, of a module `name`, and ReLU."""
        paths = (f"params/{name}/scale", f"params/{name}/bias", f"batch_stats/{name}/mean", f"batch_stats/{name}/var")
        values = [self.constant(self.weights[path]) for path in paths]
        return self.add("Relu", self.add("BatchNormalization", x, *values, epsilon=_EPSILON))

    def pool(self, op: str, x: str, *, side: int = 2, stride: int = 2, **attributes: Any) -> str:
        """side x side pooling, SAME padding."""
        return self.add(op, x, kernel_shape=[side] * 2, strides=[stride] * 2, auto_pad="SAME_UPPER", **attributes)

    def preprocess(self, pixels: str, fitted: Preprocessor, shape: tuple[int, ...]) -> str:
        """[N, H, W, C] uint8 to float32, see `eigen_jax.export.stablehlo.preprocess`."""
        if isinstance(fitted, ChannelTable):
            index = self.add("Cast", pixels, to=TensorProto.INT64)
            # One long table, of which each channel has 256 values.
            offsets = self.constant(256 * np.arange(shape[-1], dtype=np.int64))
            return self.add("Gather", self.constant(fitted.table.T.ravel()), self.add("Add", index, offsets))
        if not isinstance(fitted, ContrastWhitening):
            return pixels
        rows = self.add("Cast", self.add("Flatten", pixels), to=TensorProto.DOUBLE)
        axis, whitening = self.constant(np.array([1])), fitted.whitening
        rows = self.add("Sub", rows, self.add("ReduceMean", rows, axis))
        norms = self.add("ReduceL2", rows, axis)
        # A constant image has rows of zeros, which any divisor leaves so.
        divisors = self.add("Max", norms, self.constant(np.array(1e-8)))
        rows = self.add("Div", self.add("Mul", rows, self.constant(np.array(fitted.scale))), divisors)
        rows = self.add("Sub", rows, self.constant(whitening.mean))
        if whitening.matrix is not None:
            rows = self.add("MatMul", rows, self.constant(whitening.matrix))
        images = self.add("Reshape", rows, self.constant(np.array([-1, *shape])))
        return self.add("Cast", images, to=TensorProto.FLOAT)


def make_model(model: TrainedModel) -> Any:
    """The `onnx.ModelProto`; raises an ExportError where a layer cannot be said."""
    architecture, emit = model.architecture, model.by_kind("onnx", "ONNX")
    graph, shape = Graph(model.weights), architecture.input_shape
    images = graph.preprocess("pixels", model.processor.preprocessor, shape)
    maps = {IMAGE: graph.add("Transpose", images, perm=[0, 3, 1, 2])}
    for position, layer in enumerate(architecture.layers):
        inputs = [maps[source] for source in layer.inputs]
        maps[position] = emit[position](graph, inputs, layer, f"layer_{position}")
    features = graph.add("Flatten", graph.add("GlobalAveragePool", maps[len(architecture.layers) - 1]))
    kernel, bias = (graph.constant(model.weights[f"params/classifier/{name}"]) for name in ("kernel", "bias"))
    graph.nodes.append(helper.make_node("Gemm", [features, kernel, bias], ["logits"]))
    dtype = TensorProto.FLOAT if model.processor.preprocessor is None else TensorProto.UINT8
    pixels = helper.make_tensor_value_info("pixels", dtype, ["n", *shape])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", model.num_classes])
    made = helper.make_graph(graph.nodes, "eigen_jax", [pixels], [logits], graph.constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)


def write_onnx(folder: Path, model: TrainedModel) -> None:
    """Writes network.onnx, checked in onnxruntime, and classes.json into a folder.

    Raises OSError, and ExportError as `make_model` and `TrainedModel.check`.
    """
    content = make_model(model).SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    model.check(lambda pixels: session.run(None, {"pixels": pixels})[0], dtype="float32")
    files.write(folder / "network.onnx", content)
    model.write_classes(folder)
