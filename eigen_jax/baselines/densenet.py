"""DenseNet-BC, L = 190, k = 40: Huang et al., "Densely Connected Convolutional Networks" (CVPR 2017).

The network is `eigen_jax.teacher.DenseNet`; the recipe is that of liuzhuang13/DenseNet. Table 1 names a depth of 100,
which cannot have the parameters that it prints, 25.6 million; this one has 25,624,430 for ten classes, and 25,821,620
for a hundred.
"""

import functools

from eigen_jax.baselines.baseline import BASELINES, Baseline, Published, Recipe, epochs
from eigen_jax.teacher import DenseNet
from eigen_jax.training import TrainConfig

BASELINES.add(
    "densenet-bc-190-40",
    Baseline(
        title="DenseNet-BC, L = 190, k = 40",
        source='Huang et al., "Densely Connected Convolutional Networks", CVPR 2017',
        layers=190,
        module=functools.partial(DenseNet, depth=190, growth=40),
        recipe=Recipe(
            steps=epochs(300, 64),
            preprocessing="standardize",
            train=TrainConfig(
                batch_size=64,
                decay_steps=(epochs(150, 64), epochs(225, 64)),
                decay_rate=0.1,
                nesterov=True,
                weight_decay=1e-4,
            ),
        ),
        published=Published(cifar10=0.965, cifar100=0.828, parameters=25.6e6),
        exact=(
            "layers, no dropout, initial weights of convolutions",
            "momentum, weight decay, batch size, schedule",
            "mean and deviation of each channel; padding of 4 pixels, random crops, mirror images",
        ),
        decided=("initial weights of the classifier: Flax's",),
    ),
)
