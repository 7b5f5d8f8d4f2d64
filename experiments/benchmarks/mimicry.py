"""What mimicry adds to a training step."""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp

from eigen_jax.architecture import Architecture
from eigen_jax.builder import build_network
from eigen_jax.data import Dataset, num_views
from eigen_jax.teacher import CachedLogits
from eigen_jax.training import Teacher, TrainConfig, init_state, train_to
from experiments.benchmarks.architectures import NUM_CLASSES
from experiments.benchmarks.measuring import Effort, NotMeasured, Row, Work, interleave, not_measured

GROUP = "mimicry"
PLAIN = "plain"


def measure_mimicry(
    *, architecture: Architecture, images: int, config: TrainConfig, effort: Effort, steps: int
) -> Iterator[Row]:
    """Training without a teacher, and with one whose logits are cached, in turns.

    Unlike the steps of `experiments.benchmarks.steps`, these draw their batches, as a search does.

    Args:
        architecture: the network, for ten classes.
        images: of the training set; 162 views of each are cached at padding 4.
        config: the batch size and the padding.
        effort: for each of the two.
        steps: of each call.
    """
    dataset, teacher = _noise(architecture.input_shape, images, num_views(config.pad))
    key = jax.random.key(1)
    network = build_network(architecture, num_classes=NUM_CLASSES, dtype=config.dtype)
    start = init_state(key, network=network, config=config, input_shape=architecture.input_shape)

    def prepare(mimicked: Teacher | None) -> Work:
        train = functools.partial(train_to, network=network, config=config, teacher=mimicked)
        return lambda: jax.block_until_ready(train(key, start, dataset, steps)[0])

    methods: dict[str, Teacher | None] = {PLAIN: None, "mimicking cached logits": teacher}
    works = {method: functools.partial(prepare, mimicked) for method, mimicked in methods.items()}
    what = f"training, batch {config.batch_size}, {len(architecture.layers)} layers"
    timings = interleave(works, effort)
    for method, timing in timings.items():
        if isinstance(timing, NotMeasured):
            yield not_measured(timing, group=GROUP, what=what, method=method)
            continue
        values = {"ms": 1e3 * timing.median / steps, "first_seconds": timing.first}
        plain = timings[PLAIN]
        if not isinstance(plain, NotMeasured):
            values["times_plain"] = timing.median / plain.median
        yield Row(group=GROUP, what=what, method=method, values=values)


def _noise(input_shape: tuple[int, int, int], images: int, views: int) -> tuple[Dataset, Teacher]:
    """Images of noise, and logits of noise for every view of them."""
    data_key, logits_key = jax.random.split(jax.random.key(0))
    drawn = jax.random.normal(data_key, (images, *input_shape))
    labels = jnp.arange(images, dtype=jnp.int32) % NUM_CLASSES
    dataset = Dataset(drawn, labels, drawn, labels, drawn, labels, num_classes=NUM_CLASSES, name="", fingerprint="")
    logits = jax.random.normal(logits_key, (images, views, NUM_CLASSES), jnp.float16)
    return dataset, CachedLogits(logits=logits, slots=jnp.arange(views, dtype=jnp.int32), fingerprint="")
