"""Exported networks: the bits of the run from Flax alone, its logits as StableHLO and ONNX, nothing half-written."""

import dataclasses
import importlib.util
import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import fork_kinds  # noqa: F401  # which has the kind "activation"
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands_data import contents, edit, leave_process_alone, refused, trained_network
from jax import export as jax_export
from layer_data import conv, network, pool

from eigen_jax import platforms
from eigen_jax.architecture import Architecture, Layer
from eigen_jax.data.preprocessing import fit_gcn, fit_gcn_zca, fit_standardizer
from eigen_jax.export import ExportError, TrainedModel, network_source, write_flax, write_stablehlo
from eigen_jax.layer_kinds import KINDS
from eigen_jax.networks import build_network
from eigen_jax.processor import ImageProcessor, load_processor
from eigen_jax.search import load_network
from eigen_jax.store.run_files import read_result
from eigen_jax.training import predict
from experiments import export

own_settings = pytest.fixture(leave_process_alone, autouse=True)

# All kinds, odd sides, strides, and a pool at the end, which XLA merges with what follows if it can.
ALL = Architecture(
    input_shape=(9, 7, 3),
    layers=(
        conv(channels=6, kernel=3),
        Layer(op="depthwise", inputs=(0,), kernel=5),
        conv(1, channels=6, kernel=1),
        Layer(op="add", inputs=(2, 0)),
        conv(3, channels=8, kernel=5, stride=2),
        pool(3),
        Layer(op="concat", inputs=(4, 5)),
        Layer(op="average_pool", inputs=(6,)),
        conv(7, channels=8, kernel=1, stride=2),
        Layer(op="concat", inputs=(8, 8)),
        pool(9),
    ),
)
# What other searches have, with a dense layer at the end.
OTHERS = Architecture(
    input_shape=(9, 7, 3),
    layers=(
        conv(channels=6, kernel=3),
        Layer(op="vertex", inputs=(0,), activation="norm_relu"),
        Layer(op="vertex", inputs=(1,), activation="linear"),
        Layer(op="dropout", inputs=(2,), rate=0.3),
        Layer(op="pool3", inputs=(3,)),
        Layer(op="pool_any", inputs=(4,), side=3),
        *(
            Layer(op="dense", inputs=(source,), units=16, activation=activation)
            for source, activation in enumerate(("relu", "tanh", "linear", "sigmoid"), start=5)
        ),
    ),
)
PIXELS = np.random.default_rng(1).integers(0, 256, (23, 9, 7, 3), np.uint8)
FITTED = {
    "table": fit_standardizer(PIXELS),
    "whitening": fit_gcn_zca(PIXELS, scale=55.0, bias=0.1),
    "contrast": fit_gcn(PIXELS, scale=55.0, subtract_mean=True),
    "none": None,
}
FITTINGS = [("float32", "table"), ("bfloat16", "table"), ("float32", "whitening"), ("float32", "contrast")]
MADE = "the layer kind 'activation' does not say how it is exported as"


# An architecture, its dtype, and its preprocessing.
CASES = [(ALL, *fitting) for fitting in FITTINGS]
CASES += [(OTHERS, "float32", "table"), (OTHERS, "bfloat16", "table")]
each_case = pytest.mark.parametrize(("architecture", "dtype", "fitted"), CASES, ids=itertools.count())


def make(architecture: Architecture = ALL, dtype: str = "float32", fitted: str = "table") -> TrainedModel:
    """A network with weights and statistics that are none of the initial ones."""
    names = tuple(f"class {number}" for number in range(5))
    shape, rng = architecture.input_shape, np.random.default_rng(2)
    module = build_network(architecture, num_classes=5, dtype=dtype)
    variables = jax.jit(lambda: module.init(jax.random.key(0), jnp.zeros((1, *shape)), train=False))()
    changed = jax.tree.map(lambda leaf: (leaf * rng.uniform(0.5, 1.5, leaf.shape)).astype(np.float32), variables)
    processor = ImageProcessor(
        dataset="noise",
        image_shape=shape,
        class_names=names,
        preprocessor=FITTED[fitted],
    )
    return TrainedModel(
        network=architecture,
        variables={"batch_stats": {}, **jax.tree.map(np.asarray, changed)},
        processor=processor,
        dtype=dtype,
        batch_size=10,
    )


def module_of(folder: Path, name: str) -> ModuleType:
    spec: Any = importlib.util.spec_from_file_location(f"exported_{name}", folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def same_bits(one: np.ndarray, two: np.ndarray) -> bool:
    return one.dtype == two.dtype == np.float32 and one.shape == two.shape and one.tobytes() == two.tobytes()


@each_case
def test_the_folder_for_flax_gives_the_bits_of_the_run(tmp_path, architecture, dtype, fitted):
    model = make(architecture, dtype=dtype, fitted=fitted)
    write_flax(tmp_path, model)
    images = module_of(tmp_path, "preprocessing").preprocess(PIXELS)
    assert same_bits(images, model.processor(PIXELS))
    # As in a process of one's own, which does not forbid promotion.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        assert same_bits(module_of(tmp_path, "network").logits_of(images), model.logits(PIXELS))
    assert json.loads((tmp_path / "classes.json").read_text()) == [f"class {number}" for number in range(5)]


def test_the_folder_needs_flax_and_safetensors_alone(tmp_path):
    model = make()
    write_flax(tmp_path, model)
    np.save(tmp_path / "pixels.npy", PIXELS)
    code = """if True:
        import runpy, sys
        sys.argv = ["predict.py", "pixels.npy"]
        left = runpy.run_path("predict.py", run_name="__main__")
        import numpy as np
        np.save("logits.npy", left["logits_of"](left["preprocess"](np.load("pixels.npy"))))
        ours = {"eigen_jax", "experiments", "PIL", "sklearn", "msgspec", "matplotlib"} & set(sys.modules)
        assert not ours, ours
    """
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    logits = model.logits(PIXELS)
    assert same_bits(np.load(tmp_path / "logits.npy"), logits)
    lines = ended.stdout.splitlines()
    assert [line.split("  ")[1].rpartition(" ")[0] for line in lines] == [f"class {n}" for n in logits.argmax(axis=1)]


def test_the_source_has_a_line_a_layer():
    small = network(conv(channels=4), pool(0), conv(1, channels=8, kernel=1, stride=2), input_shape=(5, 8, 1))
    source = network_source(make(small, dtype="bfloat16"))
    assert source.partition("def __call__(self, image):\n")[2].partition("\n\n\nOPTIONS")[0].splitlines() == [
        "        image = image.astype(jnp.bfloat16)",
        '        x0 = Conv(4, 3, name="layer_0")(image)               # 5 x 8 x 4',
        "        x1 = max_pool(x0)                                    # 3 x 4 x 4",
        '        x2 = Conv(8, 1, stride=2, name="layer_2")(x1)        # 2 x 2 x 8',
        "        features = x2.astype(jnp.float32).mean(axis=(1, 2))  # global average pooling",
        '        return nn.Dense(5, name="classifier")(features)      # 5 logits',
    ]
    assert "def average_pool" not in source
    assert "def norm_relu" in source
    assert "class Conv" not in network_source(make(network(input_shape=(5, 8, 1))))


@pytest.mark.parametrize(("dtype", "fitted"), FITTINGS)
def test_stablehlo_takes_pixels_of_any_number_on_both_platforms(tmp_path, dtype, fitted):
    model = make(dtype=dtype, fitted=fitted)
    write_stablehlo(tmp_path, model)
    exported = jax_export.deserialize(bytearray((tmp_path / "network.stablehlo").read_bytes()))
    assert exported.platforms == ("cpu", "cuda")
    logits, rounding = model.logits(PIXELS), 1e-6 if dtype == "float32" else 0.02
    for count in (1, 23):
        given = np.asarray(exported.call(PIXELS[:count]))
        assert given.dtype == np.float32
        np.testing.assert_allclose(given, logits[:count], rtol=0, atol=rounding * np.abs(logits).max())
    call = jax.jit(exported.call, compiler_options=dict(platforms.current().compiler_options))
    np.testing.assert_allclose(call(PIXELS[:10]), logits[:10], rtol=0, atol=rounding * np.abs(logits).max())


@each_case
def test_onnx_gives_the_logits_of_float32(tmp_path, architecture, dtype, fitted):
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
    from eigen_jax.export.onnx_graph import write_onnx

    write_onnx(tmp_path, make(architecture, dtype=dtype, fitted=fitted))
    session = onnxruntime.InferenceSession(tmp_path / "network.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"pixels": PIXELS})
    np.testing.assert_allclose(logits, make(architecture, fitted=fitted).logits(PIXELS), rtol=0, atol=1e-4)


def test_onnx_that_computes_something_else_is_not_written(tmp_path, monkeypatch):
    graph = pytest.importorskip("eigen_jax.export.onnx_graph", reason="the extra `export` is not installed")
    monkeypatch.setattr(graph, "_EPSILON", 0.1)
    with pytest.raises(ExportError, match=r"gives logits that differ by .*; use another --format, and report it$"):
        graph.write_onnx(tmp_path, make())
    assert list(tmp_path.iterdir()) == []


def test_a_kind_that_says_something_else_than_it_computes_is_told(tmp_path, monkeypatch):
    add = dataclasses.replace(KINDS.find("add"), code=lambda inputs, values, width, name: inputs[0])
    monkeypatch.setitem(KINDS, "add", add)
    with pytest.raises(ExportError, match=r"gives logits that differ by .*; use another --format, and report it$"):
        write_flax(tmp_path, make())


def test_a_kind_of_a_fork_is_exported_as_stablehlo_alone(tmp_path):
    own = make(network(Layer(op="activation", inputs=(-1,), activation="scaled", slope=2.0), input_shape=(9, 7, 3)))
    with pytest.raises(ExportError, match=rf"{MADE} Python; give its record `code`, or use --format stablehlo$"):
        network_source(own)
    write_stablehlo(tmp_path, own)
    exported = jax_export.deserialize(bytearray((tmp_path / "network.stablehlo").read_bytes()))
    np.testing.assert_allclose(exported.call(PIXELS), own.logits(PIXELS), atol=1e-5)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The run folder of a trained network."""
    return trained_network(tmp_path_factory) / "run-dir"


def test_a_run_is_exported_with_a_model_card(trained, tmp_path, capsys):
    before = contents(trained)
    assert export.main([str(trained), "--to", str(tmp_path / "new" / "folder")]) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"exported             {tmp_path / 'new' / 'folder'}"
    assert contents(trained) == before
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["folder"]
    card = (tmp_path / "new" / "folder" / "README.md").read_text()
    accuracy = read_result(trained).test_accuracy
    assert accuracy is not None
    for fact in (
        f"| test accuracy | {100 * accuracy:.1f} % |",
        "| parameters | 94 |",
        "| data | digits, images of 8 x 8 x 1, 10 classes |",
        "| latency of one image | ",
        "| seed | 0 |",
        f"jax {jax.__version__}",
        '"final_steps": 6',
        "  0  convolution 3 x 3 ",
    ):
        assert fact in card
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        pixels = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 1), np.uint8)
        images = load_processor(trained / "network")(pixels)
        assert module_of(tmp_path / "new" / "folder", "network").logits_of(images).shape == (7, 10)


def test_a_search_that_was_started_from_python_is_exported_for_its_own_images(trained, tmp_path):
    run, folder = shutil.copytree(trained, tmp_path / "run"), tmp_path / "new"
    config = {"seed": 3, "train": {"dtype": "float32", "eval_batch_size": 12}}
    edit(run / "settings.json", lambda content: content.update(settings=config, folders={}))
    edit(run / "network" / "processor.json", lambda content: content.update(preprocessing=None))
    assert export.main([str(run), "--to", str(folder)]) == 0
    images = np.random.default_rng(0).normal(size=(12, 8, 8, 1))
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        given = module_of(folder, "network").logits_of(module_of(folder, "preprocessing").preprocess(images))
    architecture, variables = load_network(run)
    network = build_network(architecture, num_classes=10)
    expected = predict(variables, jnp.asarray(images, jnp.float32), network=network, batch_size=12)
    assert same_bits(given, expected)
    assert "| seed | 3 |" in (folder / "README.md").read_text()


def test_a_folder_that_is_there_and_one_that_cannot_be_written_are_left_as_they_are(
    trained, tmp_path, capsys, monkeypatch
):
    (tmp_path / "there").mkdir()
    (tmp_path / "file").write_text("")
    argv = (str(trained), "--to")
    for name in ("there", "file"):
        line = refused(capsys, export.main, *argv, str(tmp_path / name))
        assert line == f"{tmp_path / name} is there already; name another folder, or remove it first"
    line = refused(capsys, export.main, *argv, str(tmp_path / "file" / "new"))
    assert line == f"cannot write {tmp_path}/file/new: Not a directory; choose a folder that can be written"

    def full(folder: Path, model: TrainedModel) -> None:
        write_flax(folder, model)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "write_flax", full)
    line = refused(capsys, export.main, *argv, str(tmp_path / "new"))
    assert line.startswith(f"cannot write {tmp_path / 'new'}: No space left on device; free some space there")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "there"]


def test_what_cannot_be_exported_gets_one_line(trained, tmp_path, capsys, monkeypatch):
    run, to = shutil.copytree(trained, tmp_path / "run"), ("--to", str(tmp_path / "new"))
    monkeypatch.setitem(sys.modules, "eigen_jax.export.onnx_graph", None)
    line = refused(capsys, export.main, str(run), *to, "--format", "onnx")
    assert line.endswith("is not installed; .venv/bin/pip install -e '.[export]'")
    (run / "network" / "processor.json").unlink()
    line = refused(capsys, export.main, str(run), *to)
    told = f"cannot read {run}/network/processor.json: No such file or directory"
    assert line == f"{told}; `python -m experiments.evaluate RUN`, with the data, makes it anew"
    assert refused(capsys, export.main, str(tmp_path), *to).startswith(f"cannot read {tmp_path}/settings.json: No such")
    assert "--to" in refused(capsys, export.main, str(run))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
