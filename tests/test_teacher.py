"""The teacher: DenseNet's arithmetic and size, ensembles, and a folder that training goes on in."""

import dataclasses
import logging
import shutil
import threading
from functools import partial
from typing import Any
from unittest import mock

import chex
import filelock
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_layers
from commands_data import edit
from flax import linen as nn
from refusals import refuses
from teacher_data import CLASSES, SHAPE, TINY, assert_refused, make_dataset, make_teacher
from training_data import TRACES, Convolutional, Linear

from eigen_jax.errors import ConfigError
from eigen_jax.layers import count_flops
from eigen_jax.resumable import Care
from eigen_jax.store.locks import StoppedError
from eigen_jax.teacher import (
    DenseNet,
    TeacherConfig,
    TeacherObserver,
    forward_flops,
    load_ensemble,
    read_teacher,
    train_ensemble,
)
from eigen_jax.teacher.ensemble import check_fits, make_ensemble

STEPS = 4  # of each member: two epochs of two batches

small_densenet = partial(DenseNet, num_classes=5, depth=10, growth=4)


def shapes_of(network: nn.Module, shape=(8, 8, 3)):
    return jax.eval_shape(partial(network.init, train=False), jax.random.key(0), jnp.zeros((1, *shape)))


def size_of(network: nn.Module, shape=(32, 32, 3)) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(shapes_of(network, shape)["params"]))


def random_variables(network: nn.Module, shape=(8, 8, 3)):
    rng = np.random.default_rng(3)

    def values(leaf):
        drawn = rng.normal(size=leaf.shape)
        return jnp.asarray(drawn / 3 if leaf.ndim > 1 else np.abs(drawn) + 0.1, leaf.dtype)

    return jax.tree.map(values, shapes_of(network, shape))


def random_images(count: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(1).normal(3.0, 1.0, size=(count, *shape)), jnp.float32)


def test_parameters_of_the_papers_teacher():
    # By hand: with k = 60, blocks of 6 bottlenecks start at 120, 240 and 300 maps and end at 480, 600 and 660.
    maps = [start + 60 * layer for start in (120, 240, 300) for layer in range(6)]
    blocks = sum(2 * each + each * 240 + 2 * 240 + 9 * 240 * 60 for each in maps)
    transitions = (2 * 480 + 480 * 240) + (2 * 600 + 600 * 300)
    body = 9 * 3 * 120 + blocks + transitions + 2 * 660
    for classes, millions, of_four in ((10, "4.26", "17.0"), (100, "4.32", "17.3")):
        size = size_of(DenseNet(num_classes=classes))
        assert size == body + 660 * classes + classes
        assert (f"{size / 1e6:.2f}", f"{4 * size / 1e6:.1f}") == (millions, of_four)


def test_the_flops_of_a_teacher_are_those_of_its_products_on_real_pixels():
    # A kernel of 3 x 3 has 3 S - 2 taps on a line of S pixels, two of them less than with padding.
    def convolved(side: int, channels: int) -> int:
        return 2 * (side * side * channels * 240 + (3 * side - 2) ** 2 * 240 * 60)

    blocks = sum(
        convolved(side, start + 60 * layer) for side, start in ((32, 120), (16, 240), (8, 300)) for layer in range(6)
    )
    transitions = 2 * (32**2 * 480 * 240 + 16**2 * 600 * 300)
    by_hand = 2 * 94**2 * 3 * 120 + blocks + transitions + 2 * 660 * 10
    assert count_flops(DenseNet(num_classes=10), (32, 32, 3)) == by_hand
    assert forward_flops(TeacherConfig(), (32, 32, 3), 10) == 4 * by_hand
    # With a stem of stride two: 15 x 15 pixels become 8 x 8, and rows begin with a tap on the padding.
    stem = 2 * (8 * 3 - 2) ** 2 * 1 * 8
    small = sum(2 * (s * s * c * 16 + (3 * s - 2) ** 2 * 16 * 4) for s, c in ((8, 8), (4, 6), (2, 5)))
    halved = 2 * (8**2 * 12 * 6 + 4**2 * 10 * 5)
    assert count_flops(small_densenet(stem_stride=2), (15, 15, 1)) == stem + small + halved + 2 * 9 * 5


def reference_densenet(variables, images) -> np.ndarray:
    """DenseNet-BC of depth 10 (one bottleneck a block) in NumPy float64, with running statistics."""
    params, stats = variables["params"], variables["batch_stats"]

    def conv(x, name):
        return reference_layers.convolution(x, params[name]["kernel"])[0]

    def norm_relu(x, name):
        return reference_layers.norm_relu(x, params[name], stats[name])

    def pool(x):
        x = x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2]
        return (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4

    x = conv(images, "stem")
    for block in range(3):
        if block:
            x = pool(conv(norm_relu(x, f"transition_{block - 1}_norm"), f"transition_{block - 1}_conv"))
        y = conv(norm_relu(x, f"block_{block}_0_norm_1"), f"block_{block}_0_conv_1")
        y = conv(norm_relu(y, f"block_{block}_0_norm_2"), f"block_{block}_0_conv_2")
        x = np.concatenate([x, y], axis=-1)
    features = norm_relu(x, "norm").mean(axis=(1, 2))
    return reference_classifier(params["classifier"], features)


def reference_classifier(params, features) -> np.ndarray:
    kernel, bias = (np.asarray(params[name], np.float64) for name in ("kernel", "bias"))
    return features @ kernel + bias


@pytest.mark.parametrize("shape", [(8, 8, 1), (10, 7, 3)])
def test_densenet_agrees_with_numpy(shape):
    network, images = small_densenet(), random_images(2, *shape)
    variables = random_variables(network, shape)
    logits = jax.jit(partial(network.apply, train=False))(variables, images)
    assert logits.dtype == jnp.float32
    expected = reference_densenet(variables, images)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_a_stem_of_stride_two_halves_all_maps_and_changes_no_variable():
    network, shape = small_densenet(stem_stride=2), (16, 16, 3)
    variables = shapes_of(network, shape)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, shapes_of(small_densenet(), shape))
    watched = partial(network.apply, train=False, capture_intermediates=True, mutable=["intermediates"])
    _, seen = jax.eval_shape(watched, variables, jnp.zeros((2, *shape)))
    assert seen["intermediates"]["stem"]["__call__"][0].shape == (2, 8, 8, 8)
    assert seen["intermediates"]["norm"]["__call__"][0].shape[1:3] == (2, 2)


def test_densenet_starts_with_kernels_of_variance_two_over_fan_out():
    network, options = small_densenet(growth=24), {"xla_backend_optimization_level": 0}
    initialize = jax.jit(partial(network.init, train=False), compiler_options=options)
    params = initialize(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
    for name, fan_out in (("block_2_0_conv_1", 96), ("block_2_0_conv_2", 9 * 24)):
        np.testing.assert_allclose(np.var(params[name]["kernel"]) * fan_out, 2.0, rtol=0.05)


def test_densenet_in_half_precision_normalises_in_float32_and_has_float32_variables_and_logits():
    network, images = small_densenet(dtype=jnp.bfloat16), random_images(4, 8, 8, 3)
    variables = random_variables(network)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    # With excess precision, the statistics would be of maps that were not rounded yet.
    exact = {"xla_allow_excess_precision": False, "xla_backend_optimization_level": 0}
    collections = ["batch_stats", "intermediates"]
    watched = partial(network.apply, train=True, mutable=collections, capture_intermediates=True)
    logits, updated = jax.jit(watched, compiler_options=exact)(variables, images)
    assert logits.dtype == jnp.float32
    (maps,) = updated["intermediates"]["stem"]["__call__"]
    assert maps.dtype == jnp.bfloat16
    maps = np.asarray(maps, np.float64)
    mean, var = maps.mean(axis=(0, 1, 2)), maps.var(axis=(0, 1, 2))
    name = "block_0_0_norm_1"
    before, after = variables["batch_stats"][name], updated["batch_stats"][name]
    # In bfloat16 they would be right to 4e-3 only.
    np.testing.assert_allclose(after["mean"], 0.9 * before["mean"] + 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(after["var"], 0.9 * before["var"] + 0.1 * var, rtol=1e-5)
    # Rounded once, at the end.
    (normalised,) = updated["intermediates"][name]["__call__"]
    expected = reference_layers.norm_relu(maps, variables["params"][name], {"mean": mean, "var": var})
    np.testing.assert_allclose(np.maximum(np.asarray(normalised, np.float64), 0.0), expected, rtol=2**-8, atol=1e-5)

    logits = jax.jit(partial(network.apply, train=False))(variables, images)
    assert logits.dtype == jnp.float32
    assert_is_half_precise(logits, reference_densenet(variables, images))


def assert_is_half_precise(logits, expected) -> None:
    largest = np.abs(expected).max()
    np.testing.assert_allclose(logits, expected, atol=0.02 * largest)
    assert not np.allclose(logits, expected, atol=1e-5 * largest), "as precise as in float32"


@pytest.mark.parametrize(
    ("fields", "shape", "message"),
    [
        ({"depth": 12}, (8, 8, 3), "depth is 12"),
        ({"growth": 1, "compression": 0.34}, (8, 8, 3), "compression is 0.34; it leaves none of 2 maps"),
        ({}, (3, 8, 3), r"images have shape \(1, 3, 8, 3\)"),
    ],
)
def test_a_densenet_that_cannot_be_is_refused(fields, shape, message):
    assert_refused(message, shapes_of, small_densenet(**fields), shape)


def test_training_is_that_of_the_densenet_paper():
    config = TeacherConfig().train_config(45_000)
    steps = 300 * 703  # 45,000 images are 703 whole batches of 64
    assert (config.batch_size, config.learning_rate, config.momentum, config.weight_decay) == (64, 0.1, 0.9, 1e-4)
    assert (config.nesterov, config.decay_steps, config.decay_rate) == (True, (steps // 2, steps * 3 // 4), 0.1)
    with refuses(ConfigError, "batch_size is 64; the training set has only 63 images"):
        TeacherConfig().train_config(63)


def test_an_ensemble_averages_the_logits_of_different_modules():
    images, numbers = random_images(5, *SHAPE), jnp.zeros(5, jnp.int32)
    networks = [Linear(), small_densenet(num_classes=CLASSES)]
    linear, dense = (random_variables(network, SHAPE) for network in networks)
    ensemble = make_ensemble(networks, [linear, dense])
    logits = reference_classifier(linear["params"]["Dense_0"], np.asarray(images, np.float64).reshape(5, -1))
    expected = (logits + reference_densenet(dense, images)) / 2
    traced = jax.jit(lambda teacher, images: teacher(numbers, numbers, images))
    for answer in (ensemble(numbers, numbers, images), traced(ensemble, images)):
        np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_equal_members_are_compiled_once():
    network = Convolutional(width=9)
    ensemble = make_ensemble([network] * 3, [random_variables(network, SHAPE)] * 3)
    TRACES.clear()
    for _ in range(2):
        ensemble(jnp.zeros(4, jnp.int32), jnp.zeros(4, jnp.int32), jnp.zeros((4, *SHAPE)))
    assert TRACES == [(9, False, 4)]
    assert DenseNet(num_classes=5) == DenseNet(num_classes=5) != DenseNet(num_classes=6)
    assert hash(DenseNet(num_classes=5)) == hash(DenseNet(num_classes=5))


def test_the_fingerprint_is_of_networks_and_weights():
    teacher = make_teacher()
    assert make_teacher().fingerprint == teacher.fingerprint
    changed = jax.tree.map(lambda leaf: leaf.at[(0,) * leaf.ndim].add(1e-6), teacher.variables)
    others = (
        *((teacher.networks, changed), (teacher.networks, teacher.variables[::-1])),
        *((teacher.networks[:1], teacher.variables[:1]), ([Linear(num_classes=4)] * 2, teacher.variables)),
    )
    assert len({teacher.fingerprint, *(make_ensemble(*each).fingerprint for each in others)}) == 5
    assert_refused("1 networks and 2 sets of variables", make_ensemble, teacher.networks[:1], teacher.variables)


def test_a_teacher_that_does_not_fit_is_refused():
    fits = partial(check_fits, make_teacher(), image_shape=SHAPE)
    fits(num_classes=CLASSES)
    assert_refused("the teacher does not take images of 8 x 8 x 3", fits, image_shape=(8, 8, 3), num_classes=CLASSES)
    assert_refused("the teacher gives 3 logits an image; the data have 7 classes", fits, num_classes=7)


def observer_that_stops(at: tuple[int, int] | None = None) -> mock.Mock:
    """Keeps what it is told, and raises at a member's step."""
    observer = mock.Mock(spec=TeacherObserver)

    def progress(*, member, step, until, loss, steps_per_second):
        assert (until, np.isfinite(loss)) == (STEPS, True)
        if (member, step) == at:
            raise KeyboardInterrupt

    observer.training_progress.side_effect = progress
    return observer


def members_of(calls: mock.Mock) -> list[int]:
    return [call.kwargs["member"] for call in calls.call_args_list]


@pytest.fixture(scope="module")
def dataset():
    return make_dataset()


@pytest.fixture(scope="module")
def trained(tmp_path_factory, dataset):
    """A teacher trained without a break."""
    folder = tmp_path_factory.mktemp("teachers") / "whole"
    return folder, train_ensemble(TINY, dataset, folder)


def uses_of(folder, dataset):
    return partial(load_ensemble, folder, dataset), partial(train_ensemble, TINY, dataset, folder)


def test_what_is_recorded_of_a_teacher(trained, dataset):
    folder, ensemble = trained
    record = read_teacher(folder)
    data = record.data
    assert (record.config, data.name, data.classes, data.image_shape) == (TINY, "synthetic", CLASSES, SHAPE)
    assert (data.training_images, data.validation_images) == (16, 15)
    size = size_of(small_densenet(num_classes=CLASSES), SHAPE)
    assert record.ensemble is not None
    assert (record.ensemble.parameters, record.ensemble.fingerprint) == (2 * size, ensemble.fingerprint)
    for part in ("validation", "test"):
        images, labels = getattr(dataset, f"{part}_images"), np.asarray(getattr(dataset, f"{part}_labels"))
        logits = [reference_densenet(variables, images) for variables in ensemble.variables]
        for measured, each in zip((*record.members, record.ensemble), (*logits, np.sum(logits, axis=0)), strict=True):
            assert getattr(measured, f"{part}_accuracy") == np.mean(each.argmax(axis=-1) == labels)
    for member in record.members:
        assert (member.parameters, member.steps) == (size, STEPS)
        assert member.train_seconds > 0
    first, second = (each["params"]["stem"]["kernel"] for each in ensemble.variables)
    assert not np.allclose(first, second)


@pytest.mark.parametrize(
    ("stop_at", "resumed"),
    [((0, 3), (0, 2)), pytest.param((1, STEPS), (1, STEPS - 1), marks=pytest.mark.slow), ((1, 1), (1, 0))],
)
def test_a_killed_teacher_goes_on_to_the_same_bits(tmp_path, dataset, trained, stop_at, resumed):
    with pytest.raises(KeyboardInterrupt):
        train_ensemble(TINY, dataset, tmp_path, observer=observer_that_stops(stop_at), care=Care(save_every=0.0))
    assert_refused(f"unfinished: {stop_at[0]} of its 2 members are trained", load_ensemble, tmp_path, dataset)
    observer = observer_that_stops()
    ensemble = train_ensemble(TINY, dataset, tmp_path, observer=observer)
    assert observer.member_started.call_args_list[0] == mock.call(member=resumed[0], step=resumed[1])
    assert members_of(observer.member_finished) == [0, 1]
    assert ensemble.fingerprint == trained[1].fingerprint
    chex.assert_trees_all_equal(ensemble.variables, trained[1].variables)
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "teacher.json", "member-0", "member-1"}
    assert [path.name for path in (tmp_path / "member-0").iterdir()] == ["network"]


def test_a_teacher_that_goes_on_with_other_switches_warns_and_an_older_one_does_not(tmp_path, dataset, trained, caplog):
    shutil.copytree(trained[0], tmp_path, dirs_exist_ok=True)

    def go_on(**changes: Any) -> list[str]:
        edit(tmp_path / "teacher.json", lambda content: content.update(ensemble=None, **changes))
        caplog.clear()
        with jax.default_matmul_precision("float32"):
            train_ensemble(TINY, dataset, tmp_path)
        return caplog.messages

    changes = "JAX_DEFAULT_MATMUL_PRECISION (unset then, float32 now)"
    line = f"the teacher was started with another {changes}; what follows may differ from what it would be"
    assert go_on() == [line]
    assert go_on(surroundings={}) == []
    edit(tmp_path / "teacher.json", lambda content: content.pop("surroundings"))
    assert go_on() == []


def test_a_finished_teacher_is_loaded_and_not_trained_by_any_number_of_processes(trained, dataset):
    folder, ensemble = trained
    observer = observer_that_stops()
    with filelock.FileLock(folder / ".lock"):
        again = train_ensemble(dataclasses.replace(TINY, eval_batch_size=4), dataset, folder, observer=observer)
    observer.member_started.assert_not_called()
    assert members_of(observer.member_finished) == [0, 1]
    observer.teacher_finished.assert_called_once_with(record=read_teacher(folder).ensemble)
    for loaded in (again, load_ensemble(folder, dataset)):
        assert loaded.fingerprint == ensemble.fingerprint
        chex.assert_trees_all_equal(loaded, ensemble)


def test_a_teacher_of_other_data_or_of_another_configuration_is_refused(trained, dataset):
    folder, _ = trained
    before = (folder / "teacher.json").read_bytes()
    cases: list[tuple[dict, str]] = [
        ({"seed": 1}, "fingerprint of preprocessing, split and images was 'seed 0' and is now 'seed 1'"),
        ({"num_train": 12}, "training_images was 16 and is now 12"),
        ({"num_classes": 4}, "classes was 3 and is now 4"),
        ({"name": "digits"}, "name was 'synthetic' and is now 'digits'"),
    ]
    for changes, message in cases:
        for use in uses_of(folder, make_dataset(**changes)):
            assert_refused(f"was trained on other data: {message}; choose another folder", use)
    other = dataclasses.replace(TINY, growth=6, epochs=5)
    message = "growth was 4 and is now 6, epochs was 2 and is now 5; choose another folder"
    assert_refused(message, train_ensemble, other, dataset, folder)
    assert (folder / "teacher.json").read_bytes() == before


HALF = dataclasses.replace(TINY, dtype="bfloat16")
OTHER_DTYPE = "dtype was 'float32' and is now 'bfloat16'; choose another folder"


@pytest.mark.slow
def test_a_teacher_in_half_precision_is_another_one(tmp_path, trained, dataset):
    ensemble = train_ensemble(HALF, dataset, tmp_path)
    assert read_teacher(tmp_path).config == HALF
    assert {leaf.dtype for leaf in jax.tree.leaves(ensemble.variables)} == {jnp.dtype("float32")}
    assert load_ensemble(tmp_path, dataset).fingerprint == ensemble.fingerprint != trained[1].fingerprint
    numbers = jnp.zeros(15, jnp.int32)
    logits = ensemble(numbers, numbers, dataset.test_images)
    assert logits.dtype == jnp.float32
    expected = np.mean([reference_densenet(each, dataset.test_images) for each in ensemble.variables], axis=0)
    assert_is_half_precise(logits, expected)


def test_a_record_that_names_no_dtype_is_of_a_teacher_in_float32(tmp_path, trained, dataset):
    assert HALF.train_config(16).dtype == "bfloat16"
    assert_refused(OTHER_DTYPE, train_ensemble, HALF, dataset, trained[0])
    folder = shutil.copytree(trained[0], tmp_path / "copy")
    edited(lambda content: content["config"].pop("dtype"))(folder)
    assert read_teacher(folder).config == TINY
    for use in uses_of(folder, dataset):
        assert use().fingerprint == trained[1].fingerprint
    assert_refused(OTHER_DTYPE, train_ensemble, HALF, dataset, folder)


def in_training(tmp_path, trained):
    """A folder of a teacher that is unfinished and in use, and its lock."""
    folder = shutil.copytree(trained[0], tmp_path / "copy")
    edited(lambda content: content.update(ensemble=None))(folder)
    lock = filelock.FileLock(folder / ".lock", thread_local=False)
    lock.acquire()
    return folder, lock


@pytest.mark.parametrize("is_finished", [True, False])
def test_a_teacher_that_another_process_trains_is_waited_for(tmp_path, dataset, trained, caplog, is_finished):
    folder, lock = in_training(tmp_path, trained)

    def leave() -> None:
        if is_finished:
            shutil.copy(trained[0] / "teacher.json", folder)
        lock.release()

    timer, observer = threading.Timer(0.2, leave), observer_that_stops()
    timer.start()
    with caplog.at_level(logging.INFO, "eigen_jax"):
        ensemble = train_ensemble(TINY, dataset, folder, observer=observer)
    timer.join()
    assert caplog.messages == [f"another process trains the teacher in {folder}; waiting for it"]
    assert ensemble.fingerprint == trained[1].fingerprint
    assert observer.teacher_started.called == (not is_finished)
    assert members_of(observer.member_finished) == [0, 1]
    observer.teacher_finished.assert_called_once()


def test_who_waits_for_a_teacher_can_be_stopped_and_is_refused_another_one_at_once(tmp_path, dataset, trained):
    folder, _ = in_training(tmp_path, trained)
    with pytest.raises(StoppedError):
        train_ensemble(TINY, dataset, folder, care=Care(should_stop=lambda: True))
    assert_refused("seed was 0 and is now 9", train_ensemble, dataclasses.replace(TINY, seed=9), dataset, folder)


def test_a_folder_of_something_else_is_refused(tmp_path, dataset):
    (tmp_path / "thesis.tex").write_text("")
    assert_refused("is no teacher's", train_ensemble, TINY, dataset, tmp_path)
    assert_refused("cannot write .*thesis.tex: ", train_ensemble, TINY, dataset, tmp_path / "thesis.tex")
    assert_refused("holds no teacher", load_ensemble, tmp_path, dataset)


def edited(change):
    return lambda folder: edit(folder / "teacher.json", change)


NOT_THOSE = "are not those that teacher.json tells of"


def swap_members(folder):
    for old, new in (("member-0", "x"), ("member-1", "member-0"), ("x", "member-1")):
        (folder / old).rename(folder / new)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "teacher.json").write_text("{"), "teacher.json is damaged"),
        (lambda folder: (folder / "teacher.json").write_bytes(b"\xff\xfe"), "teacher.json is damaged"),
        (edited(lambda content: content.update(schema_version=True)), "schema version True"),
        (
            edited(lambda content: content["members"][0].update(test_accuracy=1.5)),
            "<= 1.0 - at `.*test_accuracy`",
        ),
        (
            edited(lambda content: content["data"].update(image_shape=[8, 8, 0])),
            ">= 1 - at `.*image_shape",
        ),
        (edited(lambda content: content.update(schema_version=99)), "schema version 99"),
        (edited(lambda content: content.pop("members")), "damaged"),
        (edited(lambda content: content.update(more=1)), "damaged"),
        (edited(lambda content: content["members"].pop()), "damaged .1 members of 2"),
        (
            edited(lambda content: content["members"][0].update(steps="nine")),
            "got `str` - at `.*steps`",
        ),
        (edited(lambda content: content["config"].update(depth=11)), "damaged .depth is 11"),
        (edited(lambda content: content["data"].update(image_shape=8)), "damaged"),
        (lambda folder: shutil.rmtree(folder / "member-1"), "the teacher in .* is damaged"),
        (swap_members, NOT_THOSE),
        # The dtype is part of the networks that are loaded.
        (edited(lambda content: content["config"].update(dtype="bfloat16")), f"{NOT_THOSE}|dtype was 'bfloat16'"),
    ],
)
def test_damage_is_told(tmp_path, trained, dataset, damage, message):
    folder = shutil.copytree(trained[0], tmp_path / "copy")
    damage(folder)
    for use in uses_of(folder, dataset):
        assert_refused(message, use)


def test_divergence_is_told_of_the_member(tmp_path, dataset):
    broken = dataclasses.replace(dataset, train_images=dataset.train_images * jnp.nan)
    message = r"member 0 of the teacher: training diverged .* lower the learning rate"
    assert_refused(message, train_ensemble, TINY, broken, tmp_path)
