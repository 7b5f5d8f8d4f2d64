"""A run's network as commands take it that classify or export: with what takes pictures, and what is told of it."""

from pathlib import Path
from typing import Any

from eigen_jax.data import DataConfig
from eigen_jax.export import TrainedModel
from eigen_jax.processor import load_processor
from eigen_jax.search import load_network
from eigen_jax.store.records import JSONError, Positive, convert
from eigen_jax.store.run_files import RunFolderError, RunSettings, read_settings, with_former_settings
from eigen_jax.training import ComputeDtype
from experiments.process import configure
from experiments.settings import Settings

_DTYPE: Any = ComputeDtype


def read_model(run_dir: Path) -> tuple[TrainedModel, RunSettings]:
    """The network of a run that has finished, and the run's settings; this process computes as the run did.

    Raises RunFolderError, ArchitectureError, CheckpointError or ProcessorError where a file is missing or damaged, and
    PlatformError where JAX finds no device.
    """
    settings = read_settings(run_dir)
    cache = settings.folders.get("cache_dir")
    configure(Settings(run_dir=run_dir, data=DataConfig(cache_dir=Path(cache) if cache else None)))
    network, variables = load_network(run_dir)
    processor = load_processor(run_dir / "network")
    # Where a search was started from Python, they are those of its config.
    trained = settings.settings.get("train", settings.settings)
    try:
        trained = with_former_settings(convert(trained, dict[str, object]), {"dtype": None})
        batch_size = convert(trained.get("eval_batch_size"), Positive)
        dtype: Any = convert(trained["dtype"], _DTYPE)
    except JSONError as error:
        raise RunFolderError(
            f"{run_dir / 'settings.json'} is of no run ({error}); put the run's own file back"
        ) from None
    if (has := variables["params"]["classifier"]["bias"].shape) != (len(processor.class_names),):
        told = f"{len(processor.class_names)} classes have names, and the network tells {has[0]} apart"
        raise RunFolderError(f"{run_dir / 'network'} is damaged: {told}; put the run's own files back")
    model = TrainedModel(network=network, variables=variables, processor=processor, dtype=dtype, batch_size=batch_size)
    return model, settings
