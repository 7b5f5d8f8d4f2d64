"""The hand-designed networks of Table 1, each a file with a Flax module, its recipe, and what of it is exact.

All are exact in their parameters for 32 x 32 x 3 images. Other images are taken as they are, by Maxout and All-CNN-C
if need be enlarged; what reads whole maps then has other parameters.
"""

from eigen_jax.baselines import maxout, nin, all_cnn, dsn, highway, resnet, densenet  # isort: skip
from eigen_jax.baselines.baseline import BASELINES, Baseline, Published, Recipe
