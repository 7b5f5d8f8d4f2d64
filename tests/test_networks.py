"""What is told of a network, of a search space or by a name, and how one with a name is kept."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands_data import edit
from refusals import refuses

from eigen_jax import architecture as architectures
from eigen_jax.architecture import Architecture, ArchitectureError, Layer
from eigen_jax.baselines import BASELINES
from eigen_jax.builder import Network
from eigen_jax.data import Dataset
from eigen_jax.errors import ConfigError
from eigen_jax.networks import (
    NamedNetwork,
    build_network,
    count_flops,
    count_layers,
    count_parameters,
    fingerprint,
)
from eigen_jax.search import RunFolder, load_network
from experiments.networks import describe, of_images

FOUND = Architecture(
    input_shape=(8, 6, 3),
    layers=(Layer(op="conv", inputs=(-1,), channels=4, kernel=3, stride=2), Layer(op="pool", inputs=(0,))),
)
COLOURS = (32, 32, 3)


def named(name: str, shape: tuple[int, int, int] = COLOURS) -> NamedNetwork:
    return NamedNetwork(name=name, input_shape=shape)


def test_an_architecture_is_told_as_ever():
    assert count_parameters(FOUND, num_classes=5) == architectures.count_parameters(FOUND, num_classes=5)
    assert count_flops(FOUND, num_classes=5) == architectures.count_flops(FOUND, num_classes=5)
    assert fingerprint(FOUND) == architectures.fingerprint(FOUND)
    assert count_layers(FOUND) == 2
    module = build_network(FOUND, num_classes=5, dtype=jnp.bfloat16, axis_name="devices")
    assert module == Network(architecture=FOUND, num_classes=5, dtype=jnp.dtype(jnp.bfloat16), axis_name="devices")


def test_a_named_network_is_a_value_with_a_module():
    assert named("nin") == named("nin")
    prints = {fingerprint(each) for each in (named("nin"), named("dsn"), named("nin", (8, 8, 1)))}
    assert len(prints) == 3
    assert hash(named("nin")) == hash(named("nin"))
    assert count_layers(named("highway-19")) == 19
    module: Any = build_network(named("resnet-20"), num_classes=5, dtype="bfloat16", axis_name="devices")
    assert (module.depth, module.num_classes, module.dtype, module.axis_name) == (20, 5, jnp.bfloat16, "devices")
    assert build_network(named("nin"), num_classes=5) == BASELINES["nin"].module(num_classes=5)
    # Heads that are dropped at test are counted in training alone.
    heads = 196_608 + 49_152 + 12_288
    counts = [count_parameters(named("dsn"), num_classes=7, in_training=each) for each in (False, True)]
    assert counts[1] - counts[0] == (heads + 3) * 7
    flops = [count_flops(named("dsn"), num_classes=7, in_training=each) for each in (False, True)]
    assert flops[1] - flops[0] == 2 * heads * 7


def test_a_name_that_there_is_not_gets_one_line():
    known = ", ".join(BASELINES)
    with refuses(ConfigError, f"there is no baseline 'resnet-100'; did you mean resnet-110? choose from {known}"):
        named("resnet-100")


def taps(side: int, kernel: int, pad: int, stride: int = 1) -> int:
    """Taps on real pixels of a square map, one by one."""
    starts = range(-pad, side + pad - kernel + 1, stride)
    return sum(0 <= start + tap < side for start in starts for tap in range(kernel)) ** 2


# Multiply-adds by hand: convolutions as (side, kernel, padding, stride, maps in, maps out), and products.
MAXOUT = [(32, 8, 4, 1, 3, 192), (16, 8, 3, 1, 96, 384), (7, 5, 3, 1, 192, 384)]
NIN = [(32, 5, 2, 1, 3, 192), (32, 1, 0, 1, 192, 160), (32, 1, 0, 1, 160, 96), (16, 5, 2, 1, 96, 192)]
NIN += [(16, 1, 0, 1, 192, 192)] * 2 + [(8, 3, 1, 1, 192, 192), (8, 1, 0, 1, 192, 192), (8, 1, 0, 1, 192, 10)]
ALL_CNN = [(32, 3, 1, 1, 3, 96), (32, 3, 1, 1, 96, 96), (32, 3, 1, 2, 96, 96), (16, 3, 1, 1, 96, 192)]
ALL_CNN += [(16, 3, 1, 1, 192, 192), (16, 3, 1, 2, 192, 192), (8, 3, 0, 1, 192, 192)]
ALL_CNN += [(6, 1, 0, 1, 192, 192), (6, 1, 0, 1, 192, 10)]
HIGHWAY = [(32, 3, 1, 1, 3, 32), *[(32, 3, 1, 1, 32, 32)] * 8, (16, 3, 1, 1, 32, 80), *[(16, 3, 1, 1, 80, 80)] * 10]
HIGHWAY += [(8, 3, 1, 1, 80, 128), *[(8, 3, 1, 1, 128, 128)] * 10, (8, 1, 0, 1, 128, 100)]
RESNET = [(32, 3, 1, 1, 3, 16), *[(32, 3, 1, 1, 16, 16)] * 6, (32, 3, 1, 2, 16, 32), *[(16, 3, 1, 1, 32, 32)] * 5]
RESNET += [(16, 3, 1, 2, 32, 64), *[(8, 3, 1, 1, 64, 64)] * 5]


@pytest.mark.parametrize(("name", "convolutions", "products"), [
    ("maxout", MAXOUT, 4_800 * 2_500 + 500 * 10), ("nin", NIN, 0), ("all-cnn-c", ALL_CNN, 0),
    ("highway-19", HIGHWAY, 100 * 10), ("resnet-20", RESNET, 64 * 10),
])  # fmt: skip
def test_flops_are_those_of_products_on_real_pixels(name, convolutions, products):
    by_hand = sum(taps(*place) * read * maps for *place, read, maps in convolutions)
    assert count_flops(named(name), num_classes=10) == 2 * (by_hand + products)


def test_flops_agree_with_those_that_xla_counts():
    """It counts activations, pooling and biases as well."""
    module: Any = build_network(named("nin"), num_classes=10)
    variables = jax.eval_shape(partial(module.init, train=False), jax.random.key(0), jnp.zeros((1, *COLOURS)))
    one = jax.ShapeDtypeStruct((1, *COLOURS), jnp.float32)
    costs: Any = jax.jit(partial(module.apply, train=False)).lower(variables, one).cost_analysis()
    assert 1 < costs["flops"] / count_flops(named("nin"), num_classes=10) < 1.02


def saved(folder: Path) -> tuple[NamedNetwork, Any]:
    """A network in a run folder, with weights that are small."""
    network, variables = (
        named("nin", (4, 4, 1)),
        {"params": {"classifier": {"bias": np.arange(3.0)}}, "batch_stats": {}},
    )
    with RunFolder.open(folder, {}, {}) as run:
        run.save_network(network, variables)
    return network, variables


def test_a_named_network_is_saved_and_loaded_and_stays_where_it_is_the_same(tmp_path):
    network, variables = saved(tmp_path / "run")
    assert load_network(tmp_path / "run")[0] == network
    np.testing.assert_array_equal(load_network(tmp_path / "run")[1]["params"]["classifier"]["bias"], [0, 1, 2])
    folder = tmp_path / "run" / "network"
    assert {path.name for path in folder.iterdir()} >= {"network.json", "0"}
    assert not (folder / "genome.json").exists()
    with RunFolder.open(tmp_path / "run", {}, {}) as run:
        before = folder.stat().st_ino
        run.save_network(network, variables)
        assert folder.stat().st_ino == before
        run.save_network(named("dsn", (4, 4, 1)), variables)
    assert load_network(tmp_path / "run")[0] == named("dsn", (4, 4, 1))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"name": "nine"}, "is damaged (there is no baseline 'nine'"),
        ({"input_shape": [4, 0, 1]}, "is damaged (Expected `int` >= 1"),
        ({"schema_version": 2}, "has schema version 2; this version of eigen_jax reads 1"),
    ],
)
def test_a_damaged_file_gets_one_line(tmp_path, changes, problem):
    saved(tmp_path)
    edit(tmp_path / "network" / "network.json", lambda content: content.update(changes))
    with pytest.raises(ArchitectureError) as error:
        load_network(tmp_path)
    assert str(error.value).startswith(f"{tmp_path}/network/network.json {problem}")
    assert "\n" not in str(error.value)


def test_a_named_network_is_described_and_goes_over_to_other_images():
    assert describe(named("dsn"), num_classes=10) == [
        "Deeply Supervised Nets, for 32 x 32 x 3 and 10 classes",
        'Lee et al., "Deeply-Supervised Nets", AISTATS 2015',
    ]
    part = np.zeros((4, 8, 9, 3)), np.arange(4) % 2
    dataset = Dataset.from_arrays(part, part, part)
    assert of_images(named("dsn"), dataset) == named("dsn", (8, 9, 3))
    with pytest.raises(
        ArchitectureError, match=r"^the network was trained on images of 8 x 8 x 1, and its layers do not"
    ):
        of_images(named("dsn", (8, 8, 1)), dataset)
