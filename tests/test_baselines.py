"""The hand-designed networks of Table 1: what each has, costs and starts with, and what its recipe says."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from eigen_jax.baselines import BASELINES
from eigen_jax.baselines import layers as parts
from eigen_jax.baselines.dsn import DeeplySupervisedNet
from eigen_jax.baselines.resnet import ResNet
from eigen_jax.networks import abstract_variables
from eigen_jax.training import make_schedule, stretch

QUICKLY = {"xla_backend_optimization_level": 0}
COLOURS, DIGIT = (32, 32, 3), (8, 8, 1)

# Of ten and of a hundred classes, counted by hand from the descriptions; at test and, if others, in training.
PARAMETERS = {
    "maxout": (16_247_830, 16_292_920),
    "nin": (966_986, 984_356),
    "all-cnn-c": (1_369_738, 1_387_108),
    "dsn": (966_986, 984_356),
    "highway-19": (2_256_838, 2_265_928),
    "resnet-20": (269_722, 269_722 + 65 * 90),
    "resnet-56": (853_018, 853_018 + 65 * 90),
    "resnet-110": (1_727_962, 1_733_812),
    "densenet-bc-190-40": (25_624_430, 25_821_620),
}
DSN_IN_TRAINING = (3_547_496, 26_789_456)


def count(module: nn.Module, shape: tuple[int, int, int] = COLOURS) -> int:
    return sum(np.prod(leaf.shape, dtype=int) for leaf in jax.tree.leaves(abstract_variables(module, shape)["params"]))


@pytest.mark.parametrize("name", PARAMETERS)
def test_each_network_has_the_parameters_of_its_description(name):
    baseline = BASELINES[name]
    assert tuple(count(baseline.module(num_classes=classes)) for classes in (10, 100)) == PARAMETERS[name]
    if baseline.in_training:
        assert name == "dsn"
        assert tuple(count(baseline.in_training(num_classes=classes)) for classes in (10, 100)) == DSN_IN_TRAINING


def test_every_network_of_the_table_is_here_and_says_what_is_exact_and_what_was_decided():
    assert BASELINES.keys() == PARAMETERS.keys()
    assert len({baseline.title for baseline in BASELINES.values()}) == len(BASELINES)
    rows = {name: each.published for name, each in BASELINES.items() if each.published}
    assert BASELINES.keys() - rows.keys() == {"resnet-20", "resnet-56"}
    for name, published in rows.items():
        assert 0.9 < published.cifar10 < 0.97
        assert 0.6 < published.cifar100 < 0.83
        if published.parameters:  # as the paper prints them, cut or rounded to a tenth of a million
            assert abs(published.parameters - PARAMETERS[name][0]) < 1e5
    for baseline in BASELINES.values():
        assert baseline.exact
        assert baseline.decided
        assert all(0 < len(line) < 120 for line in (baseline.source, *baseline.exact, *baseline.decided))


def shapes_of_a_step(module: Any, shape: tuple[int, int, int]) -> tuple[Any, Any]:
    """The logits of three images in training, and what is sown beside them."""
    variables = abstract_variables(module, shape)
    images = jax.ShapeDtypeStruct((3, *shape), jnp.float32)
    run = partial(module.apply, train=True, mutable=["batch_stats", "companions"], rngs={"dropout": jax.random.key(0)})
    logits, updated = jax.eval_shape(run, variables, images)
    return logits, jax.tree.leaves(updated.get("companions", {}))


@pytest.mark.parametrize("name", sorted(PARAMETERS.keys() - {"resnet-56", "resnet-110", "densenet-bc-190-40"}))
@pytest.mark.parametrize("shape", [DIGIT, (9, 13, 3)])
def test_each_network_takes_small_and_uneven_images_and_gives_logits_in_float32(name, shape):
    baseline = BASELINES[name]
    make = baseline.in_training or baseline.module
    logits, sown = shapes_of_a_step(make(num_classes=7, dtype=jnp.dtype(jnp.bfloat16)), shape)
    assert [(each.shape, each.dtype) for each in (logits, *sown)] == [((3, 7), jnp.float32)] * (1 + len(sown))
    assert len(sown) == (3 if name == "dsn" else 0)


def test_companion_heads_are_asked_in_training_alone_and_change_nothing_of_the_network():
    with_heads, without = DeeplySupervisedNet(num_classes=4, companions=True), DeeplySupervisedNet(num_classes=4)
    images = jax.random.normal(jax.random.key(1), (2, *DIGIT))
    initialize = jax.jit(partial(with_heads.init, train=False), compiler_options=QUICKLY)
    variables = {"params": initialize(jax.random.key(0), images)["params"]}
    _, sown = jax.jit(partial(with_heads.apply, train=False, mutable=["companions"]))(variables, images)
    assert sown == {}
    kept = {name: own for name, own in variables["params"].items() if not name.startswith("companion")}
    assert jax.tree.map(jnp.shape, kept) == jax.tree.map(jnp.shape, abstract_variables(without, DIGIT)["params"])
    whole = jax.jit(partial(with_heads.apply, train=False))(variables, images)
    np.testing.assert_array_equal(jax.jit(partial(without.apply, train=False))({"params": kept}, images), whole)


def test_initial_weights_are_the_authors():
    def drawn(name: str, classes: int) -> Any:
        module = BASELINES[name].module(num_classes=classes)
        run = jax.jit(partial(module.init, train=False), compiler_options=QUICKLY)
        return run(jax.random.key(0), jnp.zeros((1, *DIGIT)))["params"]

    nin, nin_of_a_hundred, highway, maxout, all_cnn = (
        drawn("nin", 10),
        drawn("nin", 100),
        drawn("highway-19", 10),
        drawn("maxout", 10),
        drawn("all-cnn-c", 10),
    )
    deviations = {
        1.0: [highway["conv_1"]],
        0.05: [nin["conv_1"], nin["conv_2"], nin["classifier"], highway["classifier"], all_cnn["conv_5"]],
        0.001: [nin_of_a_hundred["conv_1"]],
        0.01: [nin_of_a_hundred["mlp_1_1"], nin_of_a_hundred["mlp_1_2"]],
        0.005 / 3**0.5: [maxout["h1"], maxout["h3"], maxout["classifier"]],
        (1 / (9 * 80)) ** 0.5: [highway["highway_2_1_plain"], highway["highway_2_5_gate"], highway["conv_3"]],
    }
    for expected, own in deviations.items():
        for each in own:
            assert np.std(each["kernel"]) == pytest.approx(expected, rel=0.1)
    assert np.abs(maxout["h1"]["kernel"]).max() <= 0.005
    biases = {name: np.unique(own["bias"]).tolist() for name, own in highway.items()}
    assert biases == {name: [-2.0 if name.endswith("gate") else 0.0] for name in highway}


def test_the_blocks_of_a_resnet_begin_as_its_authors_do():
    own = jax.jit(partial(ResNet(num_classes=3, depth=8).init, train=False), compiler_options=QUICKLY)(
        jax.random.key(0), jnp.zeros((1, *DIGIT))
    )["params"]
    assert np.std(own["block_3_1_conv_1"]["kernel"]) == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.05)


def windows(x: np.ndarray, side: int, stride: int) -> np.ndarray:
    """The maxima of windows that cover all of one map [H, W], in plain Python."""
    rows, columns = (range(0, max(1, -(-(size - side) // stride) + 1) * stride, stride) for size in x.shape)
    return np.array([[x[i : i + side, j : j + side].max() for j in columns] for i in rows])


@pytest.mark.parametrize(("size", "side", "stride", "outputs"), [
    (33, 4, 2, 16), (15, 4, 2, 7), (9, 2, 2, 5), (32, 3, 2, 16), (16, 3, 2, 8), (7, 3, 2, 3), (2, 3, 2, 1),
])  # fmt: skip
def test_pooling_covers_the_whole_map_and_its_gradient_goes_to_the_first_maximum(size, side, stride, outputs):
    x = np.random.default_rng(0).integers(0, 5, (size, size)).astype(np.float32)
    pooled, pull = jax.vjp(lambda x: parts.max_pool(x[None, ..., None], side, stride)[0, ..., 0], jnp.asarray(x))
    expected = windows(x, side, stride)
    assert pooled.shape == expected.shape == (outputs, outputs)
    np.testing.assert_array_equal(pooled, expected)
    gradient = np.arange(1.0, 1 + expected.size, dtype=np.float32).reshape(expected.shape)
    by_hand = np.zeros_like(x)
    for (i, j), value in np.ndenumerate(gradient):
        window = x[i * stride : i * stride + side, j * stride : j * stride + side]
        row, column = np.unravel_index(window.argmax(), window.shape)
        by_hand[i * stride + row, j * stride + column] += value
    np.testing.assert_array_equal(pull(jnp.asarray(gradient))[0], by_hand)


def test_pooling_keeps_what_is_no_number_for_divergence_to_be_seen():
    x = jnp.array([[1.0, jnp.nan], [3.0, 2.0]])[None, ..., None]
    assert jnp.isnan(parts.max_pool(x, 2, 2)).all()


@pytest.mark.parametrize(
    ("size", "side", "pad", "stride"), [(9, 8, 4, 1), (8, 8, 3, 1), (4, 8, 2, 1), (2, 9, 6, 1), (12, 8, 3, 2)]
)
def test_convolutions_with_large_kernels_see_each_pixel_with_its_tap(size, side, pad, stride):
    numbers = np.random.default_rng(0)
    x, kernel = numbers.integers(-4, 5, (2, size, size + 1, 3)), numbers.integers(-4, 5, (side, side, 3, 2))
    options = {"dtype": jnp.float32, "kernel_init": nn.initializers.zeros, "pad": pad, "stride": stride}
    module = parts.conv(2, side, name="conv", **options)
    got = module.apply({"params": {"kernel": kernel.astype(np.float32), "bias": np.ones(2)}}, x.astype(np.float32))
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    seen = np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(1, 2))[:, ::stride, ::stride]
    np.testing.assert_array_equal(got, np.einsum("bijckl,klcd->bijd", seen, kernel) + 1)


class Dropped(nn.Module):
    rescale: bool

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        return parts.drop(self, x, 0.2, train=train, rescale=self.rescale)


@pytest.mark.parametrize("rescale", [True, False])
def test_dropout_keeps_values_or_divides_them_and_needs_random_numbers(rescale):
    module, x, key = Dropped(rescale), jnp.ones((100, 100)), {"dropout": jax.random.key(0)}
    dropped = np.asarray(module.apply({}, x, train=True, rngs=key))
    kept = 1 / 0.8 if rescale else 1.0
    assert np.mean(dropped == 0) == pytest.approx(0.2, abs=0.02)
    np.testing.assert_allclose(dropped[dropped != 0], kept, rtol=1e-6)
    for options in ({"train": False, "rngs": key}, {"train": True}):
        np.testing.assert_array_equal(module.apply({}, x, **options), x)


def test_dropout_in_training_is_of_the_networks_that_have_it():
    images = jax.random.normal(jax.random.key(1), (2, *DIGIT))
    for name, drops in (("all-cnn-c", True), ("resnet-20", False)):
        module = BASELINES[name].module(num_classes=3)
        variables = jax.jit(partial(module.init, train=False), compiler_options=QUICKLY)(jax.random.key(0), images)

        @partial(jax.jit, compiler_options=QUICKLY)
        def run(key, module=module, variables=variables):
            return module.apply(variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": key})[0]

        one, same, other = (run(jax.random.key(seed)) for seed in (0, 0, 1))
        np.testing.assert_array_equal(one, same)
        assert bool((one != other).any()) == drops


def test_small_images_are_enlarged_by_whole_factors():
    image = jnp.arange(6.0).reshape(1, 2, 3, 1)
    enlarged = parts.enlarge(image, 3)[0, ..., 0]
    np.testing.assert_array_equal(enlarged, [[0, 0, 1, 1, 2, 2]] * 2 + [[3, 3, 4, 4, 5, 5]] * 2)
    assert parts.enlarge(image, 2) is image


# The learning rate at steps of the whole training, from the descriptions.
RATES: dict[str, dict[int, float]] = {
    "maxout": {0: 0.17, 97_500: 0.17 * 0.505, 195_000: 0.0017},
    "nin": {0: 0.1, 99_999: 0.1, 100_000: 0.01, 110_000: 0.001},
    "all-cnn-c": {0: 0.05, 78_000: 0.005, 97_500: 0.0005, 117_000: 0.00005},
    "dsn": {0: 0.025, 149_999: 0.025, 150_000: 0.00125, 170_000: 0.0001},
    "highway-19": {0: 0.025, 100_000: 0.0025, 150_000: 0.00025, 175_000: 0.000025},
    "resnet-20": {0: 0.1, 32_000: 0.01, 48_000: 0.001},
    "resnet-110": {0: 0.01, 399: 0.01, 400: 0.1, 32_000: 0.01, 48_000: 0.001},
    "densenet-bc-190-40": {0: 0.1, 117_149: 0.1, 117_150: 0.01, 175_725: 0.001},
}
STEPS = {
    "maxout": 184_860,
    "nin": 120_000,
    "all-cnn-c": 136_500,
    "dsn": 200_000,
    "highway-19": 200_000,
    "resnet-20": 64_000,
    "resnet-110": 64_000,
    "densenet-bc-190-40": 234_300,
}


@pytest.mark.parametrize("name", RATES)
def test_the_rate_of_each_recipe_is_the_authors_and_stretches_with_the_training(name):
    recipe = BASELINES[name].recipe
    assert recipe.steps == STEPS[name]
    whole, hundredth = make_schedule(recipe.train), make_schedule(stretch(recipe.train, 0.01))
    for step, expected in RATES[name].items():
        assert float(whole(step)) == pytest.approx(expected, rel=1e-5)
        if step % 100 == 0:
            assert float(hundredth(step // 100)) == pytest.approx(expected, rel=0.01)


def test_recipes_for_a_hundred_classes_differ_where_the_authors_did():
    for name, baseline in BASELINES.items():
        own, of_a_hundred = baseline.recipe_for("cifar10"), baseline.recipe_for("cifar100")
        assert (own != of_a_hundred) == (name in ("nin", "dsn"))
        assert baseline.recipe_for("digits") == own
    nin, dsn = BASELINES["nin"].recipe_for("cifar100").train, BASELINES["dsn"].recipe_for("cifar100").train
    assert (nin.learning_rate, nin.weight_decay, nin.optimizer) == (0.02, 5e-4, "nin-cifar100")
    assert dsn == dataclasses.replace(BASELINES["dsn"].recipe.train, loss="cross-entropy")
