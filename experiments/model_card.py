"""What an exported folder says of its network: where it comes from, how good, how large and how fast it is."""

import contextlib
import json
from pathlib import Path

import jax
import numpy as np

from eigen_jax.baselines import BASELINES
from eigen_jax.export import TrainedModel
from eigen_jax.networks import NamedNetwork, count_flops, count_parameters
from eigen_jax.store.run_files import RunFolderError, RunResult, RunSettings, read_result
from eigen_jax.training import balanced_accuracy, latency, macro_f1
from experiments.machine import describe_machine
from experiments.networks import describe
from experiments.progress import percent

USES = {
    "flax": """It needs Python with `flax` and `safetensors` (`pip install flax safetensors`), and Pillow for pictures:

    python predict.py picture.jpg another.png

`network.py` is the network, a line a layer; `weights.safetensors` its weights; `preprocessing.py` makes what it sees of
pixels, `pictures.py` makes pixels of pictures; `classes.json` names the classes, in the order of the
logits. From Python:

    from network import logits_of
    from preprocessing import preprocess
    logits = logits_of(preprocess(pixels))

On the machine of the search, with its versions and as many threads, these are the search's logits to the last bit.""",
    "stablehlo": """`network.stablehlo` takes pixels as they are (preprocessing is in it), for a CPU or CUDA, and needs
`jax` and `flatbuffers` alone; `call.py` shows how it is called. `classes.json` names the classes, in the order of the
logits.""",
    "onnx": """`network.onnx` takes pixels as they are (preprocessing is in it), and computes in float32:

    import onnxruntime
    session = onnxruntime.InferenceSession("network.onnx")
    (logits,) = session.run(None, {"pixels": pixels})

`classes.json` names the classes, in the order of the logits.""",
}


def model_card(run_dir: Path, model: TrainedModel, settings: RunSettings, format: str) -> str:
    """The README.md of an exported folder."""
    result = None
    with contextlib.suppress(RunFolderError):
        result = read_result(run_dir)
    processor, classes = model.processor, model.num_classes
    facts = {
        "data": f"{processor.dataset}, images of {model.shape}, {classes} classes",
        **(_scores(result) if result else {}),
        "parameters": f"{count_parameters(model.network, num_classes=classes):,}",
        "FLOPs an image": f"{count_flops(model.network, num_classes=classes):,}",
        "latency of one image": _latency(model),
        "computed in": model.dtype,
        "seed": settings.settings.get("seed"),
        "versions": ", ".join(f"{name} {version}" for name, version in sorted(settings.versions.items())),
    }
    sizes = ", ".join(map(str, processor.image_shape))
    takes = "uint8" if processor.preprocessor else "float32, as in the search"
    return "\n".join(
        [
            f"# A network for {processor.dataset}",
            "",
            _origin(model),
            "",
            f"It takes images [N, {sizes}] {takes}, and gives logits [N, {classes}].",
            "",
            USES[format],
            "",
            "| | |",
            "|---|---|",
            *(f"| {name} | {value} |" for name, value in facts.items() if value not in (None, "")),
            "",
            "```",
            *describe(model.network, num_classes=classes),
            "```",
            "",
            "Classes: " + ", ".join(processor.class_names) + ".",
            "",
            "Settings of the run:",
            "",
            "```json",
            json.dumps(settings.settings, indent=2, sort_keys=True),
            "```",
            "",
        ]
    )


def _origin(model: TrainedModel) -> str:
    if isinstance(model.network, NamedNetwork):
        return f"Trained by eigen_jax; the network is that of {BASELINES.find(model.network.name).source}."
    return "Found by eigen_jax, which evolves networks from nothing (EIGEN, Ren et al., CVPR 2019)."


def _scores(result: RunResult) -> dict[str, str]:
    scores = {"test accuracy": result.test_accuracy, "with mirror images": result.mirrored_test_accuracy}
    if result.confusion:
        matrix = np.array(result.confusion)
        scores |= {"balanced accuracy": balanced_accuracy(matrix), "macro-F1": macro_f1(matrix)}
    return {name: f"{percent(value)} %" for name, value in scores.items() if value is not None}


def _latency(model: TrainedModel) -> str:
    """Measured here and now."""
    image = jax.numpy.zeros((1, *model.network.input_shape))
    seconds = latency(model.variables, image, network=model.build())
    machine = describe_machine()
    where = machine["cpu"] if jax.default_backend() == "cpu" else machine["device"]
    return f"{1e3 * seconds:.2f} ms on {where}"
