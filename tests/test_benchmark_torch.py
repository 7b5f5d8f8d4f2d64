"""The PyTorch network that ours is measured against is the same network: logits, loss, gradients, steps."""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eigen_jax.architecture import IMAGE, Architecture, Layer
from eigen_jax.builder import build_network
from eigen_jax.losses import cross_entropy
from eigen_jax.training import Batch, TrainConfig, init_state, train_step
from experiments.benchmarks import torch_steps
from experiments.benchmarks.architectures import NUM_CLASSES, benchmark_architectures
from experiments.benchmarks.measuring import Work

torch = pytest.importorskip("torch", reason="PyTorch is not installed; pip install -e '.[torch]'")
networks = pytest.importorskip("experiments.benchmarks.torch_network", reason="PyTorch is not installed")

BATCH = 32
CONFIG = TrainConfig(batch_size=BATCH, decay_steps=())
FLOAT32 = 2e-4  # of the norm: what ours, computed in float32, may differ from PyTorch's in float64


def conv(source: int, channels: int, kernel: int = 3, stride: int = 1) -> Layer:
    return Layer(op="conv", inputs=(source,), channels=channels, kernel=kernel, stride=stride)


def pool(source: int) -> Layer:
    return Layer(op="pool", inputs=(source,))


def concat(first: int, second: int) -> Layer:
    return Layer(op="concat", inputs=(first, second))


# Sizes from 13 x 10 on: odd and even ones are halved, so some padding is uneven and some windows are cut off.
EVERY_KIND = Architecture(
    input_shape=(13, 10, 3),
    layers=(
        conv(IMAGE, 4),
        conv(0, 6, kernel=1),
        concat(0, 1),
        conv(2, 8, stride=2),
        pool(2),
        concat(3, 4),
        conv(5, 5, kernel=1, stride=2),
        conv(6, 6, kernel=5, stride=2),
        pool(7),
    ),
)


def relative(name: str) -> Architecture:
    """The network that is measured, on images of 17 x 17, which can be halved as often as those of 32 x 32."""
    return Architecture(input_shape=(17, 17, 3), layers=benchmark_architectures()[name].layers)


NETWORKS = {"every kind": EVERY_KIND, "small": relative("small"), "typical": relative("typical")}


def noise(architecture: Architecture) -> Batch:
    images = jax.random.normal(jax.random.key(1), (BATCH, *architecture.input_shape))
    return Batch(images=images, labels=jnp.arange(BATCH, dtype=jnp.int32) % NUM_CLASSES)


@functools.cache
def both(name: str):
    """Our loss, logits and gradients, and PyTorch's in float64, of the same weights and images."""
    architecture = NETWORKS[name]
    module = build_network(architecture, num_classes=NUM_CLASSES)
    state = init_state(jax.random.key(0), network=module, config=CONFIG, input_shape=architecture.input_shape)
    batch = noise(architecture)

    def loss_of(params):
        variables = {"params": params, "batch_stats": state.batch_stats}
        logits, _ = module.apply(variables, batch.images, train=True, mutable=["batch_stats"])
        return cross_entropy(logits, batch.labels).mean(), logits

    # Optimising the program takes longer than running it.
    run = jax.jit(jax.value_and_grad(loss_of, has_aux=True), compiler_options={"xla_backend_optimization_level": 0})
    (loss, logits), gradients = run(state.params)
    network = networks.TorchNetwork(architecture, num_classes=NUM_CLASSES)
    networks.copy_variables(network, state.variables)
    network.double().to(memory_format=torch.channels_last).train()
    their_logits = network(networks.as_images(batch.images).double())
    their_loss = torch.nn.functional.cross_entropy(their_logits, torch_steps.as_labels(batch.labels, device="cpu"))
    their_loss.backward()
    return architecture, (loss, logits, gradients), (their_loss, their_logits, network)


def assert_close(theirs, ours, what: str) -> None:
    """The difference is within `FLOAT32` of the whole array."""
    theirs, ours = theirs.detach().numpy(), np.asarray(ours)
    assert theirs.shape == ours.shape, what
    assert np.linalg.norm(theirs - ours) <= FLOAT32 * np.linalg.norm(ours) + 1e-6, what


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_and_loss_are_equal(name):
    _, (loss, logits, _), (their_loss, their_logits, _) = both(name)
    assert_close(their_logits, logits, "logits")
    assert their_loss.item() == pytest.approx(float(loss), rel=FLOAT32)


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_of_all_parameters_are_equal(name):
    architecture, (_, _, gradients), (_, _, network) = both(name)
    compared = 0
    for position, layer in enumerate(architecture.layers):
        if layer.op == "conv":
            ours, theirs = gradients[f"layer_{position}"], network.layers[position]
            assert_close(theirs.conv.conv.weight.grad.permute(2, 3, 1, 0), ours["conv"]["kernel"], f"kernel {position}")
            assert_close(theirs.norm.weight.grad, ours["norm"]["scale"], f"scale {position}")
            assert_close(theirs.norm.bias.grad, ours["norm"]["bias"], f"bias {position}")
            compared += 3
    assert_close(network.classifier.weight.grad.T, gradients["classifier"]["kernel"], "classifier")
    assert_close(network.classifier.bias.grad, gradients["classifier"]["bias"], "classifier's bias")
    assert compared + 2 == len(jax.tree.leaves(gradients)) == len(list(network.parameters()))


def test_maps_have_the_shapes_of_ours():
    network = networks.TorchNetwork(NETWORKS["every kind"], num_classes=NUM_CLASSES)
    seen = []
    for layer in network.layers:
        layer.register_forward_hook(lambda layer, inputs, output: seen.append(tuple(output.shape[1:])))
    network(torch.zeros(2, 3, 13, 10))
    assert seen == [
        (4, 13, 10),
        (6, 13, 10),
        (10, 13, 10),
        (8, 7, 5),
        (10, 7, 5),
        (18, 7, 5),
        (5, 4, 3),
        (6, 2, 2),
        (6, 1, 1),
    ]


def test_global_pooling_alone_is_a_network_too():
    network = networks.TorchNetwork(Architecture(input_shape=(2, 2, 3), layers=()), num_classes=NUM_CLASSES)
    assert network(torch.zeros(4, 3, 2, 2)).shape == (4, NUM_CLASSES)


@functools.cache
def start_and_batch():
    architecture = NETWORKS["every kind"]
    module = build_network(architecture, num_classes=NUM_CLASSES)
    start = init_state(jax.random.key(0), network=module, config=CONFIG, input_shape=architecture.input_shape)
    return module, start, noise(architecture)


def torch_step(dtype: Literal["float32", "bfloat16"]) -> Work:
    _, start, batch = start_and_batch()
    architecture = NETWORKS["every kind"]
    return torch_steps.make_step(architecture, start, batch, config=CONFIG, dtype=dtype, compiles=False, steps=1)


def test_steps_lower_the_loss_as_ours_do():
    """SGD with momentum and weight decay, from the same weights."""
    module, state, batch = start_and_batch()
    step = jax.jit(functools.partial(train_step, network=module, config=CONFIG))
    losses = []
    for _ in range(3):
        state, metrics = step(state, batch)
        losses.append(float(metrics.loss))
    theirs = torch_step("float32")
    assert [theirs() for _ in range(3)] == pytest.approx(losses, rel=1e-3)
    assert losses[2] < losses[0]


def test_bfloat16_computes_about_the_same_loss():
    exact, rounded = torch_step("float32")(), torch_step("bfloat16")()
    assert rounded != exact
    assert rounded == pytest.approx(exact, rel=0.1)
