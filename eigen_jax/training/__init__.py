"""Training to a landmark and evaluating, for any Flax linen module (Section 4.1).

The module is called as `network.apply(variables, images, train=...)` and gives logits [B, K]. It
is used as a static argument, so it must be hashable and equal by value, as linen modules with
hashable fields are.

Dimension letters: N images of a data set, B of a batch, H x W x C an image, K classes.

Every step is a function of (key, state, step number): batches and views are drawn with keys that
are folded from `key` and the step, and no key is kept. So training that stops at any step and goes
on from a saved state gives the same bits as training that never stopped.

On a CPU a step is one compiled call. On a GPU a call takes a chunk of steps, as a `lax.scan`; see
`eigen_jax.platforms`. Steps of an incomplete chunk are single calls, whose float32 rounding can be
another: there, the bits are the same if training stops between chunks.

Who trains many networks makes a `Programs`, which holds the newest compiled programs and compiles
those of the next network while one trains, if `prepare_training` was told.
"""

from eigen_jax.data import Dataset
from eigen_jax.training.config import ComputeDtype, DivergedError, TrainConfig
from eigen_jax.training.evaluation import accuracy, evaluate, predict
from eigen_jax.training.loop import CHECK_EVERY, ProgressCallback, TrainReport, batch_shapes, prepare_training, train_to
from eigen_jax.training.programs import Programs
from eigen_jax.training.step import (
    Batch,
    StepMetrics,
    Teacher,
    Training,
    TrainState,
    abstract_state,
    draw_batch,
    epoch_order,
    init_state,
    make_optimizer,
    make_schedule,
    train_step,
    train_steps,
)
