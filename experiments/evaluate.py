"""Evaluates the network that a run found or trained, with its saved weights.

    python -m experiments.evaluate runs/digits-small
    python -m experiments.evaluate runs/cifar10-small --data-dir /data/cifar --logits test_logits.npy

The run folder says which data the network is for and how they were prepared. The logits are compared
with those at the end of the run: on the same machine and versions they are equal to the last bit.
A run of an older version gets what `experiments.predict` and `experiments.export` need beside its network.
"""

import argparse
import contextlib
import dataclasses
import functools
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from eigen_jax.data import DataConfig, Dataset, Images, mirror
from eigen_jax.data.types import DatasetName, Preprocessing
from eigen_jax.networks import AnyNetwork, abstract_variables, build_network, count_layers, count_parameters
from eigen_jax.platforms import check_devices_are_there
from eigen_jax.processor import ImageProcessor, ProcessorError, has_processor, save_processor
from eigen_jax.search import FinalOn, RunFolderError, load_network
from eigen_jax.store import files
from eigen_jax.store.records import JSONError, Text, convert
from eigen_jax.store.run_files import RunResult, read_result, read_settings, with_former_settings
from eigen_jax.training import (
    ComputeDtype,
    accuracy,
    balanced_accuracy,
    confusion_matrix,
    largest_confusions,
    macro_f1,
    predict,
)
from experiments.command_line import KINDS_OPTION, Parser, absolute_path, add_data_options, load_own, read_images
from experiments.commands import command, show
from experiments.networks import check_takes
from experiments.own import is_own
from experiments.process import configure, load_data
from experiments.progress import BY_MIRROR_IMAGES, percent
from experiments.settings import Settings, SettingsError

_CONFUSIONS = 5  # the most frequent ones, which are told


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Evaluates the network of the folder that the command line names."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog="python -m experiments.evaluate", description=__doc__, formatter_class=raw)
    add = functools.partial(parser.add_argument, type=absolute_path)
    add("run_dir", help="folder of a run that has finished")
    add_data_options(parser)
    add("--logits", metavar="PATH", help="write the test images' logits there, as .npy")
    parser.add_argument("--kinds", **KINDS_OPTION)
    arguments = parser.parse_args(argv)
    trained = load_trained(arguments.run_dir, arguments)
    run, dataset, network, logits_of = trained.run, trained.dataset, trained.network, trained.logits_of
    result = None
    with contextlib.suppress(RunFolderError):  # there is none that can be read
        result = read_result(arguments.run_dir)
    logits = logits_of(dataset.test_images)
    if arguments.logits is not None:
        _write_logits(arguments.logits, logits)
    processor = ImageProcessor.of(dataset)
    if not has_processor(arguments.run_dir / "network"):
        try:
            save_processor(arguments.run_dir / "network", processor)
        except ProcessorError as error:
            print(error, file=sys.stderr)
    # The weights of a search were never trained on the validation images.
    is_final = run.final_steps != 0 and (result is None or result.final_cause is None)
    parameters = count_parameters(network, num_classes=dataset.num_classes)
    show(f"network              {count_layers(network)} layers, {parameters:,} parameters")
    show(f"test accuracy        {percent(accuracy(logits, dataset.test_labels))} % of {len(logits):,} images")
    if run.flip:
        both = accuracy(logits + logits_of(mirror(dataset.test_images)), dataset.test_labels)
        show(f"test accuracy        {percent(both)} % {BY_MIRROR_IMAGES}")
    matrix = confusion_matrix(logits, dataset.test_labels)
    show(f"balanced accuracy    {percent(balanced_accuracy(matrix))} %")
    show(f"macro-F1             {percent(macro_f1(matrix))} %")
    for count, row, column in largest_confusions(matrix, _CONFUSIONS):
        of, taken_for = processor.class_names[row], processor.class_names[column]
        show(f"confused             {count:,} of {matrix[row].sum():,} {of} taken for {taken_for}")
    reached = accuracy(logits_of(dataset.validation_images), dataset.validation_labels)
    note = ", which it was trained on" if is_final and run.final_on != "train" else ""
    show(f"validation accuracy  {percent(reached)} % of {len(dataset.validation_labels):,} images{note}")
    show(f"logits               {_compare(result, logits)}")


class Trained(NamedTuple):
    """The network that a run found or trained, and its data."""

    run: "_Evaluated"
    data: DataConfig
    dataset: Dataset
    network: AnyNetwork
    logits_of: Callable[[Images], np.ndarray]  # with the weights that are saved


def load_trained(run_dir: Path, arguments: argparse.Namespace) -> Trained:
    """Loads both, the data from where the arguments of `add_data_options` say, or the run; raises EigenError."""
    check_devices_are_there()  # before the weights are put there
    network, variables = load_network(run_dir)
    run, config = _read_settings(run_dir, arguments)
    settings = configure(Settings(run_dir=run_dir, data=read_images(config)))
    dataset = load_data(settings)
    if dataset.fingerprint != run.data_fingerprint:
        where, advice = config.data_dir or "the cache", "name the right ones with --data-dir"
        raise RunFolderError(f"{run_dir} was made with other data than those in {where}; {advice}")
    check_takes(network, dataset)
    module = build_network(network, num_classes=dataset.num_classes, dtype=run.dtype)
    wanted = abstract_variables(module, network.input_shape)
    if jax.tree.map(jnp.shape, variables) != jax.tree.map(jnp.shape, wanted):
        what = f"{run_dir / 'network'} holds the weights of another network than it describes"
        raise RunFolderError(f"{what}; put the run's own files back")
    logits_of = functools.partial(predict, variables, network=module, batch_size=run.eval_batch_size)
    return Trained(run, config, dataset, network, logits_of)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Evaluated:
    """What settings.json says of a run's data, and of how its network is asked."""

    data_dir: Text | None
    cache_dir: Text | None
    data_fingerprint: str
    dataset: DatasetName
    source: str
    image_size: int | None
    test_size: int | None
    validation_size: int | None
    split_seed: int
    preprocessing: Preprocessing
    eval_batch_size: int
    dtype: ComputeDtype
    final_on: FinalOn
    final_steps: int | None  # None: as many as in the search, or as a budget pays for
    flip: bool


def _read_settings(run_dir: Path, arguments: argparse.Namespace) -> tuple[_Evaluated, DataConfig]:
    """What the settings of a run say, and its data, where the command line or the run says that they lie."""
    recorded, path = read_settings(run_dir), run_dir / "settings.json"
    settings = with_former_settings(recorded.settings, dict.fromkeys(("dtype", "source", "image_size", "test_size")))
    if "data_fingerprint" in settings and not settings.keys() & {"validation_size", "split_seed", "preprocessing"}:
        what = f"{path} does not say how the data were prepared, for its search was started from Python"
        advice = "evaluate its network there, with the weights that eigen_jax.load_network gives"
        raise RunFolderError(f"{what}; {advice}")
    try:
        run = convert(settings | recorded.folders, _Evaluated)
    except JSONError as error:
        raise RunFolderError(f"{path} is of no experiment ({error}); name the folder of a finished run") from None
    source: Any = load_own(arguments.source, "--source") if arguments.source else run.source
    if not arguments.source and is_own(run.source) and not run.source.startswith("tfds:"):
        told = f"{run_dir} is of images that a source of your own reads, {run.source}"
        raise RunFolderError(f"{told}; name it with --source FILE.py:NAME")
    return run, DataConfig(
        name=run.dataset,
        source=source,
        image_size=run.image_size,
        test_size=run.test_size,
        data_dir=arguments.data_dir or (Path(run.data_dir) if run.data_dir else None),
        cache_dir=arguments.cache_dir or (Path(run.cache_dir) if run.cache_dir else None),
        validation_size=run.validation_size,
        split_seed=run.split_seed,
        preprocessing=run.preprocessing,
    )


def _compare(result: RunResult | None, logits: np.ndarray) -> str:
    if result is None or result.test_logits is None:
        return "not compared: the run has no result.json that says what they were"
    if result.test_logits == files.sha256([logits]):
        return "identical to those at the end of the run, to the last bit"
    return "other than those at the end of the run: another machine, other versions or other weights"


def _write_logits(path: Path, logits: np.ndarray) -> None:
    buffer = io.BytesIO()  # to a file, NumPy does not say why it could not write
    np.save(buffer, logits)
    with files.told_as(SettingsError, path, "name a file that can be written"):
        files.write(path, buffer.getvalue())


if __name__ == "__main__":
    sys.exit(main())
