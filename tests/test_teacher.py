"""The teacher: DenseNet's arithmetic and size, ensembles, and a folder that training goes on in."""

import dataclasses
import json
import shutil

import chex
import filelock
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from teacher_data import CLASSES, SHAPE, TINY, Pixels, make_dataset, make_teacher

from eigen_jax.teacher import (
    DenseNet,
    TeacherConfig,
    TeacherError,
    TeacherObserver,
    check_fits,
    load_ensemble,
    make_ensemble,
    measure_accuracy,
    read_teacher,
    train_ensemble,
)


def init(network: nn.Module, shape=(8, 8, 3)):
    initialize = jax.jit(
        lambda: network.init(jax.random.key(0), jnp.zeros((1, *shape)), train=False),
        compiler_options={"xla_backend_optimization_level": 0},
    )
    return initialize()


def apply(network: nn.Module, variables, images):
    return jax.jit(lambda variables: network.apply(variables, images, train=False))(variables)


def size_of(network: nn.Module, shape=(32, 32, 3)) -> int:
    variables = jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros((1, *shape)), train=False))
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def test_parameters_of_the_papers_teacher():
    # By hand: with k = 60, blocks of 6 bottlenecks start at 120, 240 and 300 maps and end at 480, 600 and 660.
    def bottleneck(maps):
        return 2 * maps + maps * 240 + 2 * 240 + 9 * 240 * 60

    starts = (120, 240, 300)
    blocks = sum(bottleneck(start + 60 * layer) for start in starts for layer in range(6))
    transitions = (2 * 480 + 480 * 240) + (2 * 600 + 600 * 300)
    body = 9 * 3 * 120 + blocks + transitions + 2 * 660
    for classes, millions in ((10, "4.26"), (100, "4.32")):
        size = size_of(DenseNet(num_classes=classes))
        assert size == body + 660 * classes + classes
        assert f"{size / 1e6:.2f}" == millions
    assert f"{4 * size_of(DenseNet(num_classes=100)) / 1e6:.1f}" == "17.3"
    assert f"{4 * size_of(DenseNet(num_classes=10)) / 1e6:.1f}" == "17.0"


def reference_densenet(variables, images):
    """DenseNet-BC of depth 10 (one bottleneck a block) in NumPy float64, with running statistics."""
    params, stats = variables["params"], variables["batch_stats"]

    def conv(x, name):
        kernel = np.asarray(params[name]["kernel"], np.float64)
        reach = kernel.shape[0] // 2
        padded = np.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
        height, width = x.shape[1:3]
        return sum(
            padded[:, dy : dy + height, dx : dx + width] @ kernel[dy, dx]
            for dy in range(kernel.shape[0])
            for dx in range(kernel.shape[1])
        )

    def norm_relu(x, name):
        scale, bias = (np.asarray(params[name][each], np.float64) for each in ("scale", "bias"))
        mean, var = (np.asarray(stats[name][each], np.float64) for each in ("mean", "var"))
        return np.maximum((x - mean) / np.sqrt(var + 1e-5) * scale + bias, 0.0)

    def pool(x):
        height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
        x = x[:, :height, :width]
        return (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4

    x = conv(np.asarray(images, np.float64), "stem")
    for block in range(3):
        if block:
            name = f"transition_{block - 1}"
            x = pool(conv(norm_relu(x, f"{name}_norm"), f"{name}_conv"))
        name = f"block_{block}_0"
        y = conv(norm_relu(x, f"{name}_norm_1"), f"{name}_conv_1")
        y = conv(norm_relu(y, f"{name}_norm_2"), f"{name}_conv_2")
        x = np.concatenate([x, y], axis=-1)
    features = norm_relu(x, "norm").mean(axis=(1, 2))
    classifier = {name: np.asarray(leaf, np.float64) for name, leaf in params["classifier"].items()}
    return features @ classifier["kernel"] + classifier["bias"]


@pytest.mark.parametrize("shape", [(8, 8, 1), (10, 7, 3)])
def test_densenet_agrees_with_numpy(shape):
    network = DenseNet(num_classes=5, depth=10, growth=4)
    rng = np.random.default_rng(3)
    variables = jax.tree.map(
        lambda leaf: leaf + jnp.asarray(np.abs(rng.normal(size=leaf.shape)), jnp.float32), init(network, shape)
    )
    images = jnp.asarray(rng.normal(size=(2, *shape)), jnp.float32)
    logits = apply(network, variables, images)
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, reference_densenet(variables, images), rtol=2e-5)


def test_a_stem_of_stride_two_halves_all_maps_and_changes_no_variable():
    network = DenseNet(num_classes=5, depth=10, growth=4, stem_stride=2)
    plain = DenseNet(num_classes=5, depth=10, growth=4)
    variables = init(network, (16, 16, 3))
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, init(plain, (16, 16, 3)))
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 16, 16, 3)), jnp.float32)
    _, seen = network.apply(variables, images, train=False, capture_intermediates=True, mutable=["intermediates"])
    assert seen["intermediates"]["stem"]["__call__"][0].shape == (2, 8, 8, 8)
    assert seen["intermediates"]["norm"]["__call__"][0].shape[1:3] == (2, 2)


def test_densenet_starts_with_kernels_of_variance_two_over_fan_out():
    params = init(DenseNet(num_classes=5, depth=10, growth=24))["params"]
    for name, fan_out in (("block_2_0_conv_1", 96), ("block_2_0_conv_2", 9 * 24)):
        np.testing.assert_allclose(jnp.var(params[name]["kernel"]) * fan_out, 2.0, rtol=0.05)


def test_densenet_in_half_precision_has_float32_variables_and_logits():
    network = DenseNet(num_classes=5, depth=10, growth=4, dtype=jnp.bfloat16)
    variables = init(network)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    images = jnp.ones((2, 8, 8, 3))
    train = jax.jit(lambda variables: network.apply(variables, images, train=True, mutable=["batch_stats"]))
    logits, updated = train(variables)
    assert logits.dtype == jnp.float32
    assert not np.array_equal(updated["batch_stats"]["norm"]["mean"], variables["batch_stats"]["norm"]["mean"])
    whole = apply(dataclasses.replace(network, dtype=jnp.float32), variables, images)
    np.testing.assert_allclose(apply(network, variables, images), whole, atol=0.05)


def test_densenet_in_half_precision_normalises_in_float32():
    network = DenseNet(num_classes=5, depth=10, growth=4, dtype=jnp.bfloat16)
    images = jnp.asarray(np.random.default_rng(1).normal(3.0, 1.0, size=(4, 8, 8, 3)), jnp.float32)
    options: dict = {"train": True, "mutable": ["batch_stats", "intermediates"], "capture_intermediates": True}
    # With excess precision, the statistics would be of maps that were not rounded yet.
    exact = {"xla_allow_excess_precision": False, "xla_backend_optimization_level": 0}
    train = jax.jit(lambda variables: network.apply(variables, images, **options)[1], compiler_options=exact)
    updated = train(init(network))
    (maps,) = updated["intermediates"]["stem"]["__call__"]
    assert maps.dtype == jnp.bfloat16
    maps = np.asarray(maps, np.float64)
    statistics = updated["batch_stats"]["block_0_0_norm_1"]
    # The running ones start at 0 and 1. In bfloat16 they would be right to 4e-3 only.
    mean, var = maps.mean(axis=(0, 1, 2)), maps.var(axis=(0, 1, 2))
    np.testing.assert_allclose(statistics["mean"], 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(statistics["var"], 0.9 + 0.1 * var, rtol=1e-5)
    # Rounded once, at the end.
    (normalised,) = updated["intermediates"]["block_0_0_norm_1"]["__call__"]
    expected = np.maximum((maps - mean) / np.sqrt(var + 1e-5), 0.0)
    np.testing.assert_allclose(np.maximum(np.asarray(normalised, np.float64), 0.0), expected, rtol=2**-8, atol=1e-5)


def test_equal_densenets_are_one_static_argument():
    assert DenseNet(num_classes=5) == DenseNet(num_classes=5)
    assert hash(DenseNet(num_classes=5)) == hash(DenseNet(num_classes=5))
    assert DenseNet(num_classes=5) != DenseNet(num_classes=6)


@pytest.mark.parametrize(
    ("fields", "shape", "message"),
    [
        ({"depth": 12}, (8, 8, 3), "depth is 12"),
        ({"depth": 10, "growth": 1, "compression": 0.34}, (8, 8, 3), "compression is 0.34; it leaves none of 2 maps"),
        ({}, (3, 8, 3), r"images have shape \(1, 3, 8, 3\)"),
    ],
)
def test_a_densenet_that_cannot_be_is_refused(fields, shape, message):
    with pytest.raises(TeacherError, match=message):
        init(DenseNet(num_classes=5, **fields), shape)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"members": 0}, "members is 0; it must be at least 1"),
        ({"depth": 39}, "depth is 39; it must be 6 n"),
        ({"depth": 4}, "depth is 4; it must be 6 n"),
        ({"growth": 0}, "growth is 0"),
        ({"stem_stride": 3}, "stem_stride is 3; it must be 1 or 2"),
        ({"compression": 1.5}, "compression is 1.5"),
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"momentum": 1.0}, "momentum is 1.0"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0"),
        ({"pad": 257}, "pad is 257"),
        ({"eval_batch_size": 0}, "eval_batch_size is 0"),
        ({"dtype": "float16"}, "dtype is float16; it must be one of float32, bfloat16"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(fields, message):
    with pytest.raises(TeacherError, match=f"^{message}"):
        TeacherConfig(**fields)


def test_training_is_that_of_the_densenet_paper():
    config = TeacherConfig().train_config(45_000)
    steps = 300 * 703  # 45,000 images are 703 whole batches of 64
    assert (config.batch_size, config.learning_rate, config.momentum, config.weight_decay) == (64, 0.1, 0.9, 1e-4)
    assert config.nesterov
    assert config.decay_steps == (steps // 2, steps * 3 // 4)
    assert config.decay_rate == 0.1
    with pytest.raises(TeacherError, match="batch_size is 64; the training set has only 63 images"):
        TeacherConfig().train_config(63)


def test_an_ensemble_averages_the_logits_of_different_modules():
    images = jnp.asarray(np.random.default_rng(0).normal(size=(5, *SHAPE)), jnp.float32)
    pixels, dense = Pixels(), DenseNet(num_classes=CLASSES, depth=10, growth=4)
    members = [init(pixels, SHAPE), init(dense, SHAPE)]
    ensemble = make_ensemble([pixels, dense], members)
    numbers = jnp.zeros(5, jnp.int32)
    kernel, bias = (np.asarray(members[0]["params"]["Dense_0"][name], np.float64) for name in ("kernel", "bias"))
    linear = np.asarray(images, np.float64).reshape(5, -1) @ kernel + bias
    expected = (linear + reference_densenet(members[1], images)) / 2
    np.testing.assert_allclose(ensemble(numbers, numbers, images), expected, rtol=1e-4, atol=1e-5)
    traced = jax.jit(lambda teacher, images: teacher(numbers, numbers, images))(ensemble, images)
    np.testing.assert_allclose(traced, expected, rtol=1e-4, atol=1e-5)


def test_equal_members_are_compiled_once():
    traces = []

    class Counted(Pixels):
        @nn.compact
        def __call__(self, images, *, train):
            traces.append(train)
            return nn.Dense(self.num_classes)(images.reshape(images.shape[0], -1))

    ensemble = make_ensemble([Counted()] * 3, [init(Counted(), SHAPE)] * 3)
    traces.clear()
    for _ in range(2):
        ensemble(jnp.zeros(4, jnp.int32), jnp.zeros(4, jnp.int32), jnp.zeros((4, *SHAPE)))
    assert traces == [False]


def test_the_fingerprint_is_of_networks_and_weights():
    teacher = make_teacher()
    assert make_teacher().fingerprint == teacher.fingerprint
    changed = jax.tree.map(lambda leaf: leaf.at[(0,) * leaf.ndim].add(1e-6), teacher.variables)
    others = [
        make_ensemble(teacher.networks, changed),
        make_ensemble(teacher.networks, teacher.variables[::-1]),
        make_ensemble(teacher.networks[:1], teacher.variables[:1]),
        make_ensemble([Pixels(num_classes=4)] * 2, teacher.variables),
    ]
    assert len({teacher.fingerprint, *(each.fingerprint for each in others)}) == 5
    with pytest.raises(TeacherError, match="1 networks and 2 sets of variables"):
        make_ensemble(teacher.networks[:1], teacher.variables)


def test_accuracy_is_that_of_the_mean_logits():
    dataset, teacher = make_dataset(), make_teacher()
    images, labels = dataset.validation_images, dataset.validation_labels
    numbers = jnp.zeros(15, jnp.int32)
    expected = np.mean(np.asarray(teacher(numbers, numbers, images)).argmax(axis=-1) == np.asarray(labels))
    for batch_size in (4, 15, 99):
        assert measure_accuracy(teacher, images, labels, batch_size=batch_size) == expected


@pytest.mark.parametrize(
    ("image_shape", "num_classes", "message"),
    [
        ((8, 8, 3), CLASSES, "the teacher does not take images of 8 x 8 x 3"),
        (SHAPE, 7, "the teacher gives 3 logits an image; the data have 7 classes"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(image_shape, num_classes, message):
    check_fits(make_teacher(), image_shape=SHAPE, num_classes=CLASSES)
    with pytest.raises(TeacherError, match=message) as error:
        check_fits(make_teacher(), image_shape=image_shape, num_classes=num_classes)
    assert "\n" not in str(error.value)


class Recorder(TeacherObserver):
    """Keeps what it is told, and raises at a step."""

    def __init__(self, stop_at: tuple[int, int] | None = None) -> None:
        self.stop_at = stop_at
        self.started: list[tuple[int, int]] = []
        self.steps: list[tuple[int, int]] = []
        self.finished: list[int] = []
        self.ensemble = None

    def member_started(self, *, member, step):
        self.started.append((member, step))

    def training_progress(self, *, member, step, until, loss, steps_per_second):
        assert until == 9
        assert np.isfinite(loss)
        self.steps.append((member, step))
        if (member, step) == self.stop_at:
            raise KeyboardInterrupt

    def member_finished(self, *, member, record):
        self.finished.append(member)

    def teacher_finished(self, *, record):
        self.ensemble = record


@pytest.fixture(scope="module")
def dataset():
    return make_dataset()


@pytest.fixture(scope="module")
def trained(tmp_path_factory, dataset):
    """A teacher trained without a break."""
    folder = tmp_path_factory.mktemp("teachers") / "whole"
    return folder, train_ensemble(TINY, dataset, folder)


def copy_of(trained, tmp_path):
    return shutil.copytree(trained[0], tmp_path / "copy")


def test_what_is_recorded_of_a_teacher(trained, dataset):
    folder, ensemble = trained
    record = read_teacher(folder)
    assert record.config == TINY
    assert (record.data.name, record.data.classes, record.data.image_shape) == ("synthetic", CLASSES, SHAPE)
    assert (record.data.training_images, record.data.validation_images) == (24, 15)
    size = size_of(DenseNet(num_classes=CLASSES, depth=10, growth=4), SHAPE)
    assert record.ensemble is not None
    assert record.ensemble.parameters == 2 * size
    assert record.ensemble.fingerprint == ensemble.fingerprint
    for number, member in enumerate(record.members):
        assert (member.parameters, member.steps) == (size, 9)
        assert member.train_seconds > 0
        alone = make_ensemble(ensemble.networks[:1], ensemble.variables[number : number + 1])
        for part in ("validation", "test"):
            images, labels = getattr(dataset, f"{part}_images"), getattr(dataset, f"{part}_labels")
            logits = alone(labels, labels, images)
            accuracy = np.mean(np.asarray(logits).argmax(axis=-1) == np.asarray(labels))
            assert getattr(member, f"{part}_accuracy") == accuracy


def test_members_differ(trained):
    first, second = (each["params"]["stem"]["kernel"] for each in trained[1].variables)
    assert not np.allclose(first, second)


@pytest.mark.parametrize(("stop_at", "resumed"), [((0, 6), (0, 5)), ((1, 9), (1, 8)), ((1, 1), (1, 0))])
def test_a_killed_teacher_goes_on_to_the_same_bits(tmp_path, dataset, trained, stop_at, resumed):
    with pytest.raises(KeyboardInterrupt):
        train_ensemble(TINY, dataset, tmp_path, observer=Recorder(stop_at), save_every=0.0)
    with pytest.raises(TeacherError, match=f"unfinished: {stop_at[0]} of its 2 members are trained"):
        load_ensemble(tmp_path, dataset)
    observer = Recorder()
    ensemble = train_ensemble(TINY, dataset, tmp_path, observer=observer, save_every=0.0)
    assert observer.started[0] == resumed
    assert observer.finished == [0, 1]
    assert ensemble.fingerprint == trained[1].fingerprint
    chex.assert_trees_all_equal(ensemble.variables, trained[1].variables)
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "teacher.json", "member-0", "member-1"}
    assert [path.name for path in (tmp_path / "member-0").iterdir()] == ["network"]


def test_a_finished_teacher_is_loaded_and_not_trained(trained, dataset):
    folder, ensemble = trained
    observer = Recorder()
    again = train_ensemble(dataclasses.replace(TINY, eval_batch_size=4), dataset, folder, observer=observer)
    assert (observer.started, observer.finished) == ([], [0, 1])
    assert observer.ensemble == read_teacher(folder).ensemble
    for loaded in (again, load_ensemble(folder, dataset)):
        assert loaded.fingerprint == ensemble.fingerprint
        chex.assert_trees_all_equal(loaded, ensemble)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (make_dataset(seed=1), "fingerprint of preprocessing, split and images was 'seed 0' and is now 'seed 1'"),
        (make_dataset(num_train=20), "training_images was 24 and is now 20"),
        (make_dataset(num_classes=4), "classes was 3 and is now 4"),
        (make_dataset(name="digits"), "name was 'synthetic' and is now 'digits'"),
    ],
)
def test_a_teacher_of_other_data_is_refused(trained, other, message):
    folder, _ = trained
    before = (folder / "teacher.json").read_bytes()
    for use in (lambda: load_ensemble(folder, other), lambda: train_ensemble(TINY, other, folder)):
        with pytest.raises(TeacherError, match=f"was trained on other data: {message}; choose another folder") as error:
            use()
        assert "\n" not in str(error.value)
    assert (folder / "teacher.json").read_bytes() == before


def test_a_teacher_of_another_configuration_is_refused(trained, dataset):
    other = dataclasses.replace(TINY, growth=6, epochs=5)
    message = "growth was 4 and is now 6, epochs was 3 and is now 5; choose another folder"
    with pytest.raises(TeacherError, match=message):
        train_ensemble(other, dataset, trained[0])


def test_a_teacher_in_half_precision_is_another_one(tmp_path, trained, dataset):
    config = dataclasses.replace(TINY, dtype="bfloat16")
    assert config.train_config(24).dtype == "bfloat16"
    ensemble = train_ensemble(config, dataset, tmp_path)
    assert read_teacher(tmp_path).config == config
    assert {leaf.dtype for leaf in jax.tree.leaves(ensemble.variables)} == {jnp.dtype("float32")}
    assert load_ensemble(tmp_path, dataset).fingerprint == ensemble.fingerprint != trained[1].fingerprint
    images, numbers = dataset.test_images, jnp.zeros(15, jnp.int32)
    logits = ensemble(numbers, numbers, images)
    assert logits.dtype == jnp.float32
    expected = np.mean([reference_densenet(each, images) for each in ensemble.variables], axis=0)
    np.testing.assert_allclose(logits, expected, atol=0.02 * np.abs(expected).max())
    assert not np.allclose(logits, expected, atol=1e-5 * np.abs(expected).max()), "as precise as in float32"
    with pytest.raises(TeacherError, match="dtype was 'float32' and is now 'bfloat16'; choose another folder"):
        train_ensemble(config, dataset, trained[0])


def test_a_record_that_names_no_dtype_is_of_a_teacher_in_float32(tmp_path, trained, dataset):
    folder = copy_of(trained, tmp_path)
    edited(lambda content: content["config"].pop("dtype"))(folder)
    assert read_teacher(folder).config == TINY
    for ensemble in (load_ensemble(folder, dataset), train_ensemble(TINY, dataset, folder)):
        assert ensemble.fingerprint == trained[1].fingerprint
    with pytest.raises(TeacherError, match="dtype was 'float32' and is now 'bfloat16'"):
        train_ensemble(dataclasses.replace(TINY, dtype="bfloat16"), dataset, folder)


def test_a_folder_in_use_is_refused(tmp_path, dataset):
    with filelock.FileLock(tmp_path / ".lock"), pytest.raises(TeacherError, match="in use by another process"):
        train_ensemble(TINY, dataset, tmp_path)


def test_a_finished_teacher_is_read_by_several_processes(trained, dataset):
    with filelock.FileLock(trained[0] / ".lock"):
        assert train_ensemble(TINY, dataset, trained[0]).fingerprint == trained[1].fingerprint


def test_a_folder_of_something_else_is_refused(tmp_path, dataset):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(TeacherError, match="is no teacher's"):
        train_ensemble(TINY, dataset, tmp_path)
    with pytest.raises(TeacherError, match="cannot write the teacher's folder"):
        train_ensemble(TINY, dataset, tmp_path / "thesis.tex")
    with pytest.raises(TeacherError, match="holds no teacher"):
        load_ensemble(tmp_path, dataset)


def edited(edit):
    def damage(folder):
        content = json.loads((folder / "teacher.json").read_text())
        edit(content)
        (folder / "teacher.json").write_text(json.dumps(content))

    return damage


def swap_members(folder):
    for old, new in (("member-0", "x"), ("member-1", "member-0"), ("x", "member-1")):
        (folder / old).rename(folder / new)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "teacher.json").write_text("{"), "teacher.json is damaged"),
        (lambda folder: (folder / "teacher.json").write_bytes(b"\xff\xfe"), "teacher.json is damaged"),
        (edited(lambda content: content.update(schema_version=True)), "schema version True"),
        (edited(lambda content: content["members"][0].update(test_accuracy=1.5)), "damaged .test_accuracy is 1.5"),
        (edited(lambda content: content["data"].update(image_shape=[8, 8, 0])), r"damaged .image_shape is \(8, 8, 0"),
        (edited(lambda content: content.update(schema_version=99)), "schema version 99"),
        (edited(lambda content: content.pop("members")), "damaged"),
        (edited(lambda content: content.update(more=1)), "damaged"),
        (edited(lambda content: content["members"].pop()), "damaged .1 members of 2"),
        (edited(lambda content: content["members"][0].update(steps="nine")), "damaged .steps is 'nine'"),
        (edited(lambda content: content["config"].update(depth=11)), "damaged .depth is 11"),
        (edited(lambda content: content["config"].update(dtype="float16")), "damaged .dtype is float16"),
        (edited(lambda content: content["data"].update(image_shape=8)), "damaged"),
        (lambda folder: shutil.rmtree(folder / "member-1"), "the teacher in .* is damaged"),
        (swap_members, "are not those that teacher.json tells of"),
    ],
)
def test_damage_is_told(tmp_path, trained, dataset, damage, message):
    folder = copy_of(trained, tmp_path)
    damage(folder)
    for use in (lambda: load_ensemble(folder, dataset), lambda: train_ensemble(TINY, dataset, folder)):
        with pytest.raises(TeacherError, match=message) as error:
            use()
        assert "\n" not in str(error.value)


def test_divergence_is_told_of_the_member(tmp_path, dataset):
    config = dataclasses.replace(TINY, learning_rate=1e30)
    with pytest.raises(TeacherError, match=r"member 0 of the teacher: training diverged .* lower the learning rate"):
        train_ensemble(config, dataset, tmp_path)
