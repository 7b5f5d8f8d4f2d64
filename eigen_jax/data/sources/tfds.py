"""An image classification set of tensorflow-datasets, by its name."""

from pathlib import Path

from eigen_jax.data.decoded import decoded
from eigen_jax.data.sources.source import SOURCES, Source
from eigen_jax.data.types import DataConfig, Progress, RawDataset
from eigen_jax.errors import ConfigError


def _read(config: DataConfig, progress: Progress) -> RawDataset:
    kind, _, name = str(config.source).partition(":")
    if not name:
        raise ConfigError(DataConfig, "{source} is {!r}; it must be tfds:NAME, as tfds:mnist", kind)
    # Slow to import, and only needed here.
    from eigen_jax.data.tfds_source import list_tfds

    folder = Path(config.data_dir or config.cache_folder() / "tensorflow_datasets")
    pictures = list_tfds(name, tfds_dir=folder)
    return decoded(lambda: pictures, config, progress)


SOURCES.add("tfds", Source(_read, lambda path: False))
