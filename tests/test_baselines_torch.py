"""One forward and backward pass of each hand-designed network is that of an independent one in PyTorch."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eigen_jax.baselines import BASELINES
from eigen_jax.baselines.resnet import ResNet
from eigen_jax.losses import LOSSES
from eigen_jax.networks import abstract_variables
from eigen_jax.teacher import DenseNet

torch = pytest.importorskip("torch", reason="PyTorch is not installed; pip install -e '.[torch]'")
theirs = pytest.importorskip("torch_baselines", reason="PyTorch is not installed")

CLOSE = 1e-4  # what an array of ours, in float32, may differ from PyTorch's in float64, as a share of its norm
QUICKLY = {"xla_backend_optimization_level": 0}  # optimising the program takes longer than running it
PAIRS = {
    "maxout": (BASELINES["maxout"].module, theirs.Maxout),
    "nin": (BASELINES["nin"].module, theirs.NetworkInNetwork),
    "all-cnn-c": (BASELINES["all-cnn-c"].module, theirs.AllCNN),
    "dsn": (BASELINES["dsn"].in_training, partial(theirs.NetworkInNetwork, heads=True)),
    "highway-19": (BASELINES["highway-19"].module, theirs.Highway),
    "resnet-20": (partial(ResNet, depth=20), partial(theirs.ResNet, blocks=3)),
    "densenet-16": (partial(DenseNet, depth=16, growth=12), partial(theirs.DenseNet, depth=16, growth=12)),
}


def draw(path: Any, leaf: jax.ShapeDtypeStruct, rng: np.random.Generator) -> jax.Array:
    """Values that keep maps at about one deviation, and of which none is as it starts."""
    kind = path[-1].key
    if kind == "kernel":
        values = rng.normal(size=leaf.shape) * np.sqrt(2 / np.prod(leaf.shape[:-1]))
    elif kind in ("scale", "var"):
        values = rng.uniform(0.5, 1.5, leaf.shape)
    else:
        values = rng.normal(scale=0.3, size=leaf.shape)
    return jnp.asarray(values, jnp.float32)


def difference(one: Any, two: Any) -> float:
    """As a share of the norm."""
    one, two = np.asarray(one, np.float64), np.asarray(two, np.float64)
    assert one.shape == two.shape
    return float(np.linalg.norm(one - two) / (np.linalg.norm(two) + 1e-12))


def compiled(module: Any, loss_of: Any) -> Any:
    """Of variables, images and labels: the loss, all logits, and the gradients of the parameters."""

    def total(params, batch_stats, images, labels):
        given = {"params": params, "batch_stats": batch_stats}
        logits, updated = module.apply(given, images, train=True, mutable=["batch_stats", "companions"])
        every = [logits, *jax.tree.leaves(updated.get("companions", {}))]
        return sum(loss_of(each, labels).mean() for each in every), every

    return jax.jit(jax.value_and_grad(total, has_aux=True), compiler_options=QUICKLY)


def differences(run: Any, shapes: Any, network: Any, their_loss_of: Any, *, seed: int) -> dict[str, float]:
    """Of the loss, all logits and all gradients, by name, for one draw of variables and images."""
    rng = np.random.default_rng(seed)
    variables = jax.tree_util.tree_map_with_path(partial(draw, rng=rng), shapes)
    images, labels = rng.normal(size=(2, 32, 32, 3)).astype(np.float32), np.array([3, 7], np.int32)
    (loss, logits), gradients = run(variables["params"], variables["batch_stats"], images, labels)
    theirs.carry(network, variables)
    network.train()
    network.zero_grad()
    outputs = network(torch.from_numpy(images.transpose(0, 3, 1, 2)).double())
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    their_loss = sum(their_loss_of(each, torch.from_numpy(labels).long()) for each in outputs)
    their_loss.backward()
    found = {"loss": difference(loss, their_loss.item())}
    for number, (their_logits, own) in enumerate(zip(outputs, logits, strict=True)):
        found[f"logits {number}"] = difference(own, their_logits.detach().numpy())
    for name, layer in network.names.items():
        own = gradients[name]
        weight = theirs.as_torch(own.get("kernel", own.get("scale")), layer.weight)
        found[f"{name}/weight"] = difference(weight, layer.weight.grad.numpy())
        if "bias" in own:
            found[f"{name}/bias"] = difference(own["bias"], layer.bias.grad.numpy())
    return found


@pytest.mark.parametrize("name", PAIRS)
def test_logits_loss_and_gradients_are_those_of_pytorch(name):
    make, make_theirs = PAIRS[name]
    assert make is not None
    module: Any = make(num_classes=10)
    is_hinge = name == "dsn"
    run = compiled(module, LOSSES["squared-hinge" if is_hinge else "cross-entropy"])
    their_loss_of = theirs.squared_hinge if is_hinge else torch.nn.functional.cross_entropy
    shapes, network = abstract_variables(module, (32, 32, 3)), make_theirs(10)
    # Where the input of one ReLU of a million is rounded to the other side of 0, whole gradients differ by more, and
    # PyTorch's own in float32 do. That befalls few draws; a network that is another one differs in all.
    worst: list[tuple[str, float]] = []
    while len(worst) < 5 and (not worst or worst[-1][1] > CLOSE):
        found = differences(run, shapes, network, their_loss_of, seed=len(worst))
        worst.append(max(found.items(), key=lambda each: each[1]))
    assert worst[-1][1] <= CLOSE, worst
