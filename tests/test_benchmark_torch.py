"""The PyTorch network that ours is measured against is the same network: logits, loss, gradients, steps."""

import functools

import jax
import numpy as np
import pytest
from layer_data import concat, conv, network, pool

from eigen_jax.architecture import IMAGE
from eigen_jax.builder import build_network
from eigen_jax.losses import cross_entropy
from eigen_jax.training import TrainConfig, train_step
from experiments.benchmark import ours as our
from experiments.benchmark import steps
from experiments.benchmark.ours import NUM_CLASSES, benchmark_architectures

torch = pytest.importorskip("torch", reason="PyTorch is not installed; pip install -e '.[torch]'")
pytorch = pytest.importorskip("experiments.benchmark.pytorch", reason="PyTorch is not installed")

CONFIG = TrainConfig(batch_size=32, decay_steps=())
FLOAT32 = 2e-4  # of the norm: what ours, computed in float32, may differ from PyTorch's in float64
# Optimising the program takes longer than running it.
QUICKLY = {"xla_backend_optimization_level": 0}

# Sizes from 13 x 10 on: odd and even ones are halved, so some padding is uneven and some windows are cut off.
EVERY_KIND = network(
    *(conv(IMAGE, 4), conv(0, 6, kernel=1), concat(0, 1), conv(2, 8, stride=2), pool(2), concat(3, 4)),
    *(conv(5, 5, kernel=1, stride=2), conv(6, 6, kernel=5, stride=2), pool(7)),
    input_shape=(13, 10, 3),
)
# Images of 17 x 17 can be halved as often as those of 32 x 32, which are measured.
TYPICAL = network(*benchmark_architectures()["typical"].layers, input_shape=(17, 17, 3))


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch):
    monkeypatch.setattr(our, "CONFIG", CONFIG)
    monkeypatch.setattr(our, "untrained", functools.cache(our.untrained.__wrapped__))


def assert_close(theirs, ours, what: str) -> None:
    """The difference is within `FLOAT32` of the whole array."""
    theirs, ours = theirs.detach().numpy(), np.asarray(ours)
    assert theirs.shape == ours.shape, what
    assert np.linalg.norm(theirs - ours) <= FLOAT32 * np.linalg.norm(ours) + 1e-6, what


@pytest.mark.parametrize("architecture", [EVERY_KIND, TYPICAL], ids=["every kind", "typical"])
def test_logits_loss_and_gradients_are_equal(architecture):
    module = build_network(architecture, num_classes=NUM_CLASSES)
    state, batch = our.untrained(architecture)

    def loss_of(params):
        variables = {"params": params, "batch_stats": state.batch_stats}
        logits, _ = module.apply(variables, batch.images, train=True, mutable=["batch_stats"])
        return cross_entropy(logits, batch.labels).mean(), logits

    run = jax.jit(jax.value_and_grad(loss_of, has_aux=True), compiler_options=QUICKLY)
    (loss, logits), gradients = run(state.params)
    theirs = pytorch.TorchNetwork(architecture, num_classes=NUM_CLASSES)
    pytorch.copy_variables(theirs, state.variables)
    theirs.double().to(memory_format=torch.channels_last).train()
    images, labels = pytorch.as_tensors(batch)
    their_logits = theirs(images.double())
    their_loss = torch.nn.functional.cross_entropy(their_logits, labels)
    their_loss.backward()
    assert_close(their_logits, logits, "logits")
    assert their_loss.item() == pytest.approx(float(loss), rel=FLOAT32)
    compared = 2
    for position, layer in enumerate(architecture.layers):
        if layer.op == "conv":
            ours, other = gradients[f"layer_{position}"], theirs.layers[position]
            *_, convolution, norm, _ = other
            assert_close(convolution.weight.grad.permute(2, 3, 1, 0), ours["conv"]["kernel"], f"kernel {position}")
            assert_close(norm.weight.grad, ours["norm"]["scale"], f"scale {position}")
            assert_close(norm.bias.grad, ours["norm"]["bias"], f"bias {position}")
            compared += 3
    assert_close(theirs.classifier.weight.grad.T, gradients["classifier"]["kernel"], "classifier")
    assert_close(theirs.classifier.bias.grad, gradients["classifier"]["bias"], "classifier's bias")
    assert compared == len(jax.tree.leaves(gradients)) == len(list(theirs.parameters()))


def test_steps_lower_the_loss_as_ours_do():
    """SGD with momentum and weight decay, from the same weights; in bfloat16 about the same."""
    module = build_network(EVERY_KIND, num_classes=NUM_CLASSES)
    step = jax.jit(functools.partial(train_step, network=module, config=CONFIG), compiler_options=QUICKLY)
    (state, batch), losses = our.untrained(EVERY_KIND), []
    for _ in range(3):
        state, metrics = step(state, batch)
        losses.append(float(metrics.loss))
    ways = steps.ways(EVERY_KIND)
    theirs, rounded = (ways[f"PyTorch eager {dtype}"].prepare() for dtype in ("float32", "bfloat16"))
    assert [theirs() for _ in range(3)] == pytest.approx(losses, rel=1e-3)
    assert losses[2] < losses[0] != rounded() == pytest.approx(losses[0], rel=0.1)
