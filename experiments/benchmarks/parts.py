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
from eigen_jax.training.programs import Programs, compiled
from experiments.benchmarks import torch_steps
from experiments.benchmarks.architectures import convolution_flops
from experiments.benchmarks.machine import has_gpu
from experiments.benchmarks.measuring import Effort, NotMeasured, Row, Timing, Work, interleave, not_measured

GROUP = "parts of a step, batch 128"
BATCH = 128

Makers = Mapping[str, Callable[[], Work]]  # by side


@dataclasses.dataclass(frozen=True, kw_only=True)
class Convolution:
    """A convolution of the search space."""

    size: int  # pixels a side of the maps that come in
    read: int  # channels
    layer: Layer

    def __str__(self) -> str:
        layer = self.layer
        halving = ", stride 2" if layer.stride == 2 else ""
        widths = f"{self.read} to {layer.channels}"
        return f"conv {layer.kernel} x {layer.kernel}{halving}, {widths}, on {self.size} x {self.size}"


def _convolution(size: int, read: int, channels: int, kernel: int = 3, stride: int = 1) -> Convolution:
    layer = Layer(op="conv", inputs=(IMAGE,), channels=channels, kernel=kernel, stride=stride)
    return Convolution(size=size, read=read, layer=layer)


CONVOLUTIONS = (
    _convolution(32, 32, 32),
    _convolution(32, 3, 32),
    _convolution(32, 32, 48, stride=2),
    _convolution(8, 96, 96),
    _convolution(32, 32, 64, kernel=1),
)
PASSES = ("forward", "input gradient", "kernel gradient")


def measure_parts(effort: Effort, *, batch: int = BATCH) -> Iterator[Row]:
    """Convolutions, pass by pass; normalisation and pooling, forward and backward together."""
    for convolution in CONVOLUTIONS:
        flops = batch * convolution_flops((convolution.size, convolution.size, convolution.read), convolution.layer)
        for part in PASSES:
            sides = {
                "ours": functools.partial(_our_convolution, convolution, part, batch),
                "PyTorch": functools.partial(_torch_convolution, convolution, part, batch),
            }
            yield from _rows(f"{convolution}: {part}", sides, effort, flops=flops)
    shape = (batch, 32, 32, 32)
    for name, ours, theirs in (
        ("batch norm and ReLU", _our_norm, _torch_norm),
        ("max pooling", _our_pool, _torch_pool),
    ):
        sides = {"ours": functools.partial(ours, shape), "PyTorch": functools.partial(theirs, shape)}
        yield from _rows(f"{name}, 32 on 32 x 32: forward and backward", sides, effort)


def _rows(what: str, sides: Makers, effort: Effort, *, flops: int | None = None) -> Iterator[Row]:
    timings = interleave(sides, effort)
    theirs = timings["PyTorch"]
    for method, timing in timings.items():
        if isinstance(timing, NotMeasured):
            yield not_measured(timing, group=GROUP, what=what, method=method)
            continue
        values = {"ms": 1e3 * timing.median}
        if flops is not None:
            values["gflops_per_second"] = flops / timing.median / 1e9
        if isinstance(theirs, Timing):
            values["times_pytorch"] = timing.median / theirs.median
        yield Row(group=GROUP, what=what, method=method, values=values)


def _dtype() -> ComputeDtype:
    return "bfloat16" if has_gpu() else "float32"


def _noise(seed: int, shape: tuple[int, ...]) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape).astype(_dtype())


def _ready(function: Callable[..., Any], *arguments: Any) -> Work:
    """Calls of the compiled function, each waited for."""
    program = compiled(function, arguments, programs=Programs())
    return lambda: jax.block_until_ready(program(*arguments))


def _our_convolution(convolution: Convolution, part: str, batch: int) -> Work:
    layer = convolution.layer
    module = Conv(layer.channels, layer.kernel, layer.stride, kernel_init=nn.initializers.he_normal())
    x = _noise(0, (batch, convolution.size, convolution.size, convolution.read))
    params = module.init(jax.random.key(1), x)
    gradient = jax.tree.map(jnp.ones_like, module.apply(params, x))
    if part == "forward":
        return _ready(module.apply, params, x)

    def input_gradient(params, x, gradient):
        return jax.vjp(lambda x: module.apply(params, x), x)[1](gradient)

    def kernel_gradient(params, x, gradient):
        return jax.vjp(lambda params: module.apply(params, x), params)[1](gradient)

    return _ready(input_gradient if part == "input gradient" else kernel_gradient, params, x, gradient)


def _torch_convolution(convolution: Convolution, part: str, batch: int) -> Work:
    torch = torch_steps.require_torch()
    from experiments.benchmarks.torch_network import SameConv

    layer, size = convolution.layer, convolution.size
    module: Any = SameConv((size, size), convolution.read, layer.channels, layer.kernel, layer.stride)
    module = module.to(torch_steps.torch_device(), getattr(torch, _dtype()), memory_format=torch.channels_last)
    x = _torch_noise((batch, size, size, convolution.read))

    def forward() -> None:
        with torch.no_grad():
            module(x)
        torch_steps.synchronize()

    if part == "forward":
        return forward
    x.requires_grad_(part == "input gradient")
    module.requires_grad_(part == "kernel gradient")
    return _torch_backward(module(x), [x] if part == "input gradient" else list(module.parameters()))


def _torch_backward(y: Any, inputs: list[Any]) -> Work:
    """The backward pass alone, over and over."""
    import torch

    gradient = torch.ones_like(y)

    def work() -> None:
        torch.autograd.grad(y, inputs, gradient, retain_graph=True)
        torch_steps.synchronize()

    return work


def _torch_noise(shape: tuple[int, ...]) -> Any:
    import torch

    batch, height, width, channels = shape
    where = {"device": torch_steps.torch_device(), "dtype": getattr(torch, _dtype())}
    return torch.randn(batch, channels, height, width, **where).contiguous(memory_format=torch.channels_last)


def _our_norm(shape: tuple[int, ...]) -> Work:
    module = BatchNormRelu(use_running_average=False)
    x, gradient = _noise(0, shape), _noise(1, shape)
    variables = module.init(jax.random.key(2), x)

    def step(params, batch_stats, x, gradient):
        def forward(params, x):
            return module.apply({"params": params, "batch_stats": batch_stats}, x, mutable=["batch_stats"])

        y, backward, statistics = jax.vjp(forward, params, x, has_aux=True)
        return y, backward(gradient), statistics

    return _ready(step, variables["params"], variables["batch_stats"], x, gradient)


def _torch_norm(shape: tuple[int, ...]) -> Work:
    torch = torch_steps.require_torch()
    module = torch.nn.Sequential(torch.nn.BatchNorm2d(shape[-1]), torch.nn.ReLU()).to(torch_steps.torch_device())
    return _torch_both(module, shape)


def _our_pool(shape: tuple[int, ...]) -> Work:
    def step(x, gradient):
        y, backward = jax.vjp(max_pool, x)
        return y, backward(gradient)

    batch, height, width, channels = shape
    return _ready(step, _noise(0, shape), _noise(1, (batch, height // 2, width // 2, channels)))


def _torch_pool(shape: tuple[int, ...]) -> Work:
    torch = torch_steps.require_torch()
    return _torch_both(torch.nn.MaxPool2d(2, ceil_mode=True), shape)


def _torch_both(module: Any, shape: tuple[int, ...]) -> Work:
    """Forward and backward, by the gradient of every input and parameter."""
    import torch

    x = _torch_noise(shape).requires_grad_()
    inputs = [x, *module.parameters()]
    gradient = torch.randn_like(module(x).detach())

    def work() -> None:
        torch.autograd.grad(module(x), inputs, gradient)
        torch_steps.synchronize()

    return work
