"""Data sets: where they come from, how they are split and preprocessed, and their augmentation.

`load_dataset` is the way in. Images come from tensorflow-datasets, from the official CIFAR archives, or from
scikit-learn, and end on the device, as float32 arrays or as pixels that become them; `sample_views` and `apply_views`
augment a batch there.
"""

from eigen_jax.data.augmentation import apply_views, identity_view, num_views, sample_views
from eigen_jax.data.images import Images, PixelImages, StreamedImages, mirror, take
from eigen_jax.data.loading import load_dataset, read_raw
from eigen_jax.data.preprocessing import fit_zca, gcn_zca, global_contrast_normalize, standardize, stratified_split
from eigen_jax.data.types import DataConfig, DataError, Dataset, RawDataset, join_validation
