"""The parts of a training step, each beside the same part in PyTorch: what a step could cost at least.

Maps are float32 on the CPU and bfloat16 on a GPU, of 128 images.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from eigen_jax.architecture import IMAGE, Layer
from eigen_jax.layers import BatchNormRelu, Conv, max_pool
from eigen_jax.training import ComputeDtype
from experiments.benchmark.measuring import Plan, Prepare, Progress, Row, Work, compare, ratios, require_pytorch
from experiments.benchmark.networks import convolution_flops
from experiments.benchmark.steps import ready
from experiments.machine import has_gpu

BATCH = 128


@dataclasses.dataclass(frozen=True)
class Convolution:
    """A convolution of the search space."""

    size: int  # pixels a side of the maps that come in
    read: int  # channels
    channels: int  # that go out
    kernel: int = 3
    stride: int = 1

    def __str__(self) -> str:
        halving = ", stride 2" if self.stride == 2 else ""
        widths = f"{self.read} to {self.channels}"
        return f"conv {self.kernel} x {self.kernel}{halving}, {widths}, on {self.size} x {self.size}"

    @property
    def flops(self) -> int:
        """Floating-point operations of one image."""
        layer = Layer(op="conv", inputs=(IMAGE,), channels=self.channels, kernel=self.kernel, stride=self.stride)
        return convolution_flops((self.size, self.size, self.read), layer)


CONVOLUTIONS = (
    Convolution(32, 32, 32),
    Convolution(32, 3, 32),
    Convolution(32, 32, 48, stride=2),
    Convolution(8, 96, 96),
    Convolution(32, 32, 64, kernel=1),
)
PASSES = ("forward", "input gradient", "kernel gradient")


def measure_parts(plan: Plan, progress: Progress) -> Iterator[Row]:
    """Convolutions, pass by pass; normalisation and pooling, forward and backward together."""
    progress("convolutions, normalisation, pooling")
    for what, flops, ours, theirs in _parts():

        def values(side: str, seconds: Mapping[str, float], flops=flops) -> dict[str, float]:
            rate = {"gflops_per_second": flops / seconds[side] / 1e9} if flops else {}
            return {"ms": 1e3 * seconds[side], **rate, **ratios(seconds, side, times_pytorch="PyTorch")}

        works = {"ours": ours, "PyTorch": theirs}
        yield from compare(works, plan, values, group="parts of a step, batch 128", what=what)


def _parts() -> Iterator[tuple[str, int, Prepare, Prepare]]:
    """Each part's name, FLOPs where they are told, and how ours and PyTorch's are prepared."""
    for convolution in CONVOLUTIONS:
        for name in PASSES:
            ours = functools.partial(_convolution, convolution, name)
            theirs = functools.partial(_of_pytorch, "convolution", convolution, name, BATCH)
            yield f"{convolution}: {name}", BATCH * convolution.flops, ours, theirs
    shape = (BATCH, 32, 32, 32)
    for name, prepare, function in (("batch norm and ReLU", _norm, "norm"), ("max pooling", _pool, "pool")):
        what = f"{name}, 32 on 32 x 32: forward and backward"
        yield what, 0, functools.partial(prepare, shape), functools.partial(_of_pytorch, function, shape)


def _of_pytorch(function: str, *arguments: Any) -> Work:
    return getattr(require_pytorch(), function)(*arguments, maps_dtype())


def maps_dtype() -> ComputeDtype:
    """In what each platform is for."""
    return "bfloat16" if has_gpu() else "float32"


def _noise(seed: int, shape: tuple[int, ...]) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape).astype(maps_dtype())


def _convolution(convolution: Convolution, name: str) -> Work:
    module = Conv(convolution.channels, convolution.kernel, convolution.stride, kernel_init=nn.initializers.he_normal())
    x = _noise(0, (BATCH, convolution.size, convolution.size, convolution.read))
    params = module.init(jax.random.key(1), x)
    if name == "forward":
        return ready(module.apply, params, x)

    def input_gradient(params, x, gradient):
        return jax.vjp(lambda x: module.apply(params, x), x)[1](gradient)

    def kernel_gradient(params, x, gradient):
        return jax.vjp(lambda params: module.apply(params, x), params)[1](gradient)

    gradient = jax.tree.map(jnp.ones_like, module.apply(params, x))
    return ready(input_gradient if name == "input gradient" else kernel_gradient, params, x, gradient)


def _norm(shape: tuple[int, ...]) -> Work:
    module = BatchNormRelu(use_running_average=False)
    x = _noise(0, shape)
    variables = module.init(jax.random.key(2), x)

    def forward(params, x):
        return module.apply({**variables, "params": params}, x, mutable=["batch_stats"])

    return _forward_and_backward(forward, variables["params"], x)


def _pool(shape: tuple[int, ...]) -> Work:
    return _forward_and_backward(lambda x: (max_pool(x), None), _noise(0, shape))


def _forward_and_backward(forward: Callable[..., Any], *inputs: Any) -> Work:
    """A function and its gradient by every input; it gives its maps and what else there is."""

    def step(gradient, *inputs):
        y, backward, rest = jax.vjp(forward, *inputs, has_aux=True)
        return y, backward(gradient), rest

    maps, _ = jax.eval_shape(forward, *inputs)
    return ready(step, _noise(1, maps.shape), *inputs)
