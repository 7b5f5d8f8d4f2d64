"""Evaluates the network that a run found or trained, with its saved weights.

    python -m experiments.evaluate runs/digits-small
    python -m experiments.evaluate runs/cifar10-small --data-dir /data/cifar --logits test_logits.npy

The run folder says which data the network is for and how they were prepared. The logits are compared
with those at the end of the run: on the same machine and versions they are equal to the last bit.
"""

import argparse
import dataclasses
import functools
import io
import reprlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from eigen_jax.architecture import count_parameters
from eigen_jax.builder import build_network
from eigen_jax.data import DataConfig, Dataset, load_dataset
from eigen_jax.data.types import DatasetName
from eigen_jax.files import JSONError, explain, read_json, write_bytes
from eigen_jax.platforms import check_devices_are_there
from eigen_jax.search import RunFolderError, SearchConfig, digest_logits, load_network
from eigen_jax.search.folder import with_former_settings
from eigen_jax.training import TrainConfig, accuracy, predict
from experiments.command_line import Parser, absolute_path
from experiments.networks import check_takes
from experiments.progress import percent
from experiments.runner import configure, run_command
from experiments.screen import show
from experiments.settings import Settings, SettingsError


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluates the network of the folder that the command line names; returns the exit code, see `run_command`."""
    parser = Parser(
        prog="python -m experiments.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run_dir", type=absolute_path, help="folder of a run that has finished")
    parser.add_argument(
        "--data-dir", type=absolute_path, metavar="PATH", help="where the data are, if not where they were"
    )
    parser.add_argument("--cache-dir", type=absolute_path, metavar="PATH", help="folder of what is kept between runs")
    parser.add_argument(
        "--logits", type=absolute_path, metavar="PATH", help="write the test images' logits there, as .npy"
    )
    return run_command(lambda: _evaluate(parser.parse_args(argv)))


def _evaluate(arguments: argparse.Namespace) -> None:
    check_devices_are_there()  # before the weights are put there
    architecture, variables = load_network(arguments.run_dir)
    settings, fingerprint = _read_settings(arguments.run_dir, arguments)
    configure(settings)
    dataset = load_dataset(settings.data)
    if dataset.fingerprint != fingerprint:
        raise RunFolderError(
            f"{arguments.run_dir} was made with other data than those in {settings.data.data_dir or 'the cache'};"
            " name the right ones with --data-dir"
        )
    check_takes(architecture, dataset)
    network = build_network(architecture, num_classes=dataset.num_classes, dtype=settings.search.train.dtype)
    _check_weights(arguments.run_dir, variables, network, dataset)
    result = _read_result(arguments.run_dir)

    def logits_of(images: Any) -> np.ndarray:
        return predict(variables, images, network=network, batch_size=settings.search.train.eval_batch_size)

    logits = logits_of(dataset.test_images)
    if arguments.logits is not None:
        _write_logits(arguments.logits, logits)
    show(
        f"network              {len(architecture.layers)} layers, "
        f"{count_parameters(architecture, num_classes=dataset.num_classes):,} parameters"
    )
    show(f"test accuracy        {percent(accuracy(logits, dataset.test_labels))} % of {len(logits):,} images")
    _tell_validation(dataset, logits_of, trained_on=_saw_validation(settings, result))
    show(f"logits               {_compare(result, logits)}")


def _check_weights(run_dir: Path, variables: Any, network: nn.Module, dataset: Dataset) -> None:
    initialize = functools.partial(network.init, train=False)
    wanted = {"batch_stats": {}, **jax.eval_shape(initialize, jax.random.key(0), dataset.test_images[:1])}
    if jax.tree.map(jnp.shape, variables) != jax.tree.map(jnp.shape, wanted):
        raise RunFolderError(
            f"{run_dir / 'network'} holds the weights of another network than its genome.json; put the run's own"
            " files back"
        )


def _saw_validation(settings: Settings, result: Mapping[str, Any]) -> bool:
    """Whether the weights were trained on the validation images; those of a search never are."""
    finally_trained = settings.search.final_until > 0 and result.get("final_cause") is None
    return finally_trained and settings.search.final_on != "train"


def _tell_validation(dataset: Dataset, logits_of: Any, *, trained_on: bool) -> None:
    reached = accuracy(logits_of(dataset.validation_images), dataset.validation_labels)
    note = ", which it was trained on" if trained_on else ""
    show(f"validation accuracy  {percent(reached)} % of {len(dataset.validation_labels):,} images{note}")


def _read_settings(run_dir: Path, arguments: argparse.Namespace) -> tuple[Settings, str]:
    """The settings of a run, and the fingerprint of its data.

    Raises:
        RunFolderError: settings.json does not say them.
        SettingsError: it names a data set that there is not.
    """
    path = run_dir / "settings.json"
    try:
        content = read_json(path)
        recorded = with_former_settings(dict(content["settings"]), Settings().outcome())
        _check_says_how_data_were_prepared(path, recorded)
        folders = content["folders"]
        name, fingerprint = recorded["dataset"], recorded["data_fingerprint"]
        if name not in get_args(DatasetName):
            known = ", ".join(get_args(DatasetName))
            raise SettingsError(f"{path} names the data set {reprlib.repr(name)}; known are {known}")
        data = DataConfig(
            name=name,
            validation_size=recorded["validation_size"],
            split_seed=recorded["split_seed"],
            preprocessing=recorded["preprocessing"],
            data_dir=_place(folders["data_dir"]),
            cache_dir=_place(folders["cache_dir"]),
        )
        train = TrainConfig(eval_batch_size=recorded["eval_batch_size"], dtype=recorded["dtype"])
        search = SearchConfig(final_steps=recorded["final_steps"], final_on=recorded["final_on"], train=train)
    except (RunFolderError, SettingsError):
        raise
    except (OSError, ValueError, KeyError, TypeError):
        raise RunFolderError(
            f"{path} is missing, damaged or of no experiment; name the folder of a finished run"
        ) from None
    data = dataclasses.replace(
        data,
        data_dir=arguments.data_dir or data.data_dir,
        cache_dir=arguments.cache_dir or data.cache_dir,
    )
    return Settings(data=data, search=search), fingerprint


def _place(path: str | None) -> Path | None:
    if path is not None and "\0" in path:
        raise ValueError
    return None if path is None else Path(path)


def _check_says_how_data_were_prepared(path: Path, settings: Mapping[str, Any]) -> None:
    """Checks that settings are those of a command, not of `run_search`, which is given its data ready made.

    Raises:
        RunFolderError: they are those of `run_search`.
    """
    if "data_fingerprint" in settings and not settings.keys() & {"validation_size", "split_seed", "preprocessing"}:
        raise RunFolderError(
            f"{path} does not say how the data were prepared, for its search was started from Python; evaluate its"
            " network there, with the weights that eigen_jax.load_network gives"
        )


def _read_result(run_dir: Path) -> dict[str, Any]:
    """The content of a run's result.json; empty where there is none that can be read."""
    try:
        content = read_json(run_dir / "result.json")
    except (OSError, JSONError):
        return {}
    return content if isinstance(content, dict) else {}


def _compare(result: Mapping[str, Any], logits: np.ndarray) -> str:
    if "test_logits" not in result:
        return "not compared: the run has no result.json that says what they were"
    if result["test_logits"] == digest_logits(logits):
        return "identical to those at the end of the run, to the last bit"
    return "other than those at the end of the run: another machine, other versions or other weights"


def _write_logits(path: Path, logits: np.ndarray) -> None:
    buffer = io.BytesIO()  # to a file, NumPy does not say why it could not write
    np.save(buffer, logits)
    try:
        write_bytes(path, buffer.getvalue())
    except OSError as error:
        raise SettingsError(f"cannot write {path}: {explain(error, 'name a file that can be written')}") from None


if __name__ == "__main__":
    sys.exit(main())
