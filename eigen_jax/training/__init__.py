"""Training to a landmark and evaluating, for any Flax linen module (Section 4.1).

The module is called as `network.apply(variables, images, train=...)` and gives logits [B, K]. It
is used as a static argument, so it must be hashable and equal by value, as linen modules with
hashable fields are.

Dimension letters: N images of a data set, B of a batch, H x W x C an image, K classes.

Every step is a function of (key, state, step number): batches and views are drawn with keys that
are folded from `key` and the step, and no key is kept. So training that stops at any step and goes
on from a saved state gives the same bits as training that never stopped.

A step is one compiled call, not the body of a `lax.scan`: XLA's CPU back end runs convolutions in
a loop body many times slower.
"""

from eigen_jax.data import Dataset
from eigen_jax.training.config import DivergedError, TrainConfig, TrainConfigError
from eigen_jax.training.evaluation import accuracy, evaluate, predict
from eigen_jax.training.loop import CHECK_EVERY, ProgressCallback, TrainReport, train_to
from eigen_jax.training.step import (
    Batch,
    StepMetrics,
    Teacher,
    TrainState,
    abstract_state,
    draw_batch,
    epoch_order,
    init_state,
    make_optimizer,
    make_schedule,
    train_step,
)

__all__ = [
    "CHECK_EVERY",
    "Batch",
    "Dataset",
    "DivergedError",
    "ProgressCallback",
    "StepMetrics",
    "Teacher",
    "TrainConfig",
    "TrainConfigError",
    "TrainReport",
    "TrainState",
    "abstract_state",
    "accuracy",
    "draw_batch",
    "epoch_order",
    "evaluate",
    "init_state",
    "make_optimizer",
    "make_schedule",
    "predict",
    "train_step",
    "train_to",
]
