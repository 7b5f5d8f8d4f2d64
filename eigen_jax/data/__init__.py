"""Data sets: where they come from, how they are split and preprocessed, and their augmentation.

`load_dataset` is the way in. Images come from tensorflow-datasets, from the official CIFAR archives, from
scikit-learn, or from a source of images of one's own (`sources`, a file each), and end on the device, as float32 arrays
or as pixels that become them; `sample_views` and `apply_views` augment a batch there.

A picture's way: a source lists (`Pictures`), `decoding` makes pixels of a file, `decoded` keeps those of all in the
cache, and `draw_parts` says which are held out.
"""

from eigen_jax.data.augmentation import apply_views, identity_view, num_views, sample_views
from eigen_jax.data.images import Images, PixelImages, StreamedImages, mirror, take
from eigen_jax.data.loading import load_dataset, read_raw, resolve
from eigen_jax.data.preprocessing import fit_zca, gcn_zca, global_contrast_normalize, standardize, stratified_split
from eigen_jax.data.types import DataConfig, DataError, Dataset, Progress, RawDataset, join_validation
