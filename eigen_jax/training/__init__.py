"""Training to a landmark and evaluating, for any Flax linen module (Section 4.1).

The module is called as `network.apply(variables, images, train=...)` and gives logits [B, K]; more of them, which it
sows in the collection "companions", have the same loss. It is a static argument, so it must be hashable and equal by
value, as linen modules with hashable fields are. N are the images of a data set, B of a batch, H x W x C is an image,
K classes.

Every step is a function of (key, state, step number), and no key is kept. So training that stops at any step and goes
on from a saved state gives the same bits as training that never stopped; on a GPU, where a call takes a chunk of steps
(`eigen_jax.platforms`) and those of an incomplete chunk are rounded otherwise, if it stops between chunks.

Who trains many networks makes a `Programs`, which holds the newest compiled programs and compiles those of the next
network while one trains, if `prepare_training` was told.
"""

from eigen_jax.data import Dataset
from eigen_jax.training.config import (
    OPTIMIZERS,
    ComputeDtype,
    DivergedError,
    TooLargeError,
    TrainConfig,
    make_optimizer,
    make_schedule,
    stretch,
)
from eigen_jax.training.evaluation import accuracy, evaluate, latency, mean_loss, predict, predict_timed
from eigen_jax.training.loop import CHECK_EVERY, ProgressCallback, TrainReport, batch_shapes, prepare_training, train_to
from eigen_jax.training.metrics import balanced_accuracy, confusion_matrix, largest_confusions, macro_f1
from eigen_jax.training.programs import Programs
from eigen_jax.training.step import (
    Batch,
    Teacher,
    Training,
    TrainState,
    abstract_state,
    init_state,
    start_from,
    train_step,
)
