"""Where data sets come from: the table of sources, and one file for each of those that read images of one's own."""

from eigen_jax.data.sources import arrays, folder, table, tfds
from eigen_jax.data.sources.source import SOURCES, Source, find_source
