"""Teacher's logits that were computed before, looked up by training image and view.

Dimension letters: N images, V views of an image (`num_views`), S of them that logits are stored
for, B examples of a batch, H x W x C an image, K classes.

A view's logits lie in its *slot*. A set of views is "all", whose every view has a slot of its own,
or "center", where each view has the slot of the centre crop, flipped as it is. Where training does
not flip, only unflipped views are stored.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from eigen_jax.data import identity_view, num_views
from eigen_jax.errors import first_line
from eigen_jax.store import files
from eigen_jax.teacher.config import TeacherError

ViewSet = Literal["all", "center"]

DEVICE_BYTES = 2 << 30  # logits of at most this size are kept on the device

_CHUNK_BYTES = 64 << 20  # of a file that are read at a time


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogitsLayout:
    """Which views of an image logits are stored for, and where each view finds its own; raises a TeacherError."""

    num_classes: int  # K
    pad: int  # pixels around an image before it is cropped
    flip: bool  # whether training mirrors images
    views: ViewSet = "all"

    def __post_init__(self) -> None:
        if self.views not in get_args(ViewSet):
            raise TeacherError(f"views is {self.views!r}; it must be one of {', '.join(get_args(ViewSet))}")

    @property
    def stored_views(self) -> np.ndarray:
        """[S] int32, the views that logits are stored for, in the order of their slots."""
        centre = identity_view(self.pad)
        first, end = (0, num_views(self.pad)) if self.views == "all" else (centre, centre + 2)
        return np.arange(first, end, 1 if self.flip else 2, dtype=np.int32)

    @property
    def view_slots(self) -> np.ndarray:
        """[V] int32, the slot of each view; a flipped view that is never drawn has that of the unflipped one."""
        every = np.arange(num_views(self.pad), dtype=np.int32)
        if self.views == "all":
            return every if self.flip else every // 2
        return every % 2 if self.flip else np.zeros_like(every)


@struct.dataclass
class CachedLogits:
    """Logits on the device; a `Teacher`. A pytree: as an argument, it can be asked inside of a traced function."""

    logits: Array  # [N, S, K] floating
    slots: Array  # [V] int32, in [0, S)
    fingerprint: str = struct.field(pytree_node=False)  # SHA-256, hexadecimal, of all that the answers depend on

    def __call__(self, examples: Array, views: Array, images: Array) -> Array:
        """[B, K], of the dtype stored, for examples and views [B] int32; NaN for an example that is not there."""
        del images
        return _look_up(self.logits, self.slots, examples, views)


@dataclasses.dataclass(frozen=True, eq=False)
class MappedLogits:
    """Logits in a file that is mapped into memory, gathered on the host; a `Teacher` that gives what the cached do."""

    logits: np.ndarray  # [N, S, K] floating, a memory map
    slots: np.ndarray  # [V] int32, in [0, S)
    fingerprint: str  # as of `CachedLogits`

    def __reduce__(self) -> Any:
        """Pickles where the file lies, not what is in it: another process maps it as well."""
        logits, rest = self.logits, (self.slots, self.fingerprint)
        if not isinstance(logits, np.memmap):
            return MappedLogits, (logits, *rest)
        return _map_again, ((logits.filename, logits.dtype, "r", logits.offset, logits.shape), *rest)

    def __call__(self, examples: Array, views: Array, images: Array) -> Array:
        """[B, K], of the dtype stored (float64 as float32), for examples and views [B] int32; raises IndexError."""
        del images
        return jnp.asarray(_on_device(self.logits[np.asarray(examples), self.slots[np.asarray(views)]]))


def _map_again(mapped: tuple[Any, ...], slots: np.ndarray, fingerprint: str) -> MappedLogits:
    return MappedLogits(np.memmap(*mapped), slots, fingerprint)


@jax.jit
def _look_up(logits: Array, slots: Array, examples: Array, views: Array) -> Array:
    return logits.at[examples, slots[views]].get(mode="fill", fill_value=jnp.nan)


def from_array(
    logits: np.ndarray, slots: np.ndarray, fingerprint: str, *, device_bytes: int
) -> CachedLogits | MappedLogits:
    """A teacher of logits [N, S, K], on the device where they take at most `device_bytes`."""
    if logits.nbytes > device_bytes:
        return MappedLogits(logits, slots, fingerprint)
    return CachedLogits(logits=jnp.array(_on_device(logits)), slots=jnp.array(slots), fingerprint=fingerprint)


def _on_device(logits: np.ndarray) -> np.ndarray:
    return logits.astype(np.float32) if logits.dtype == np.float64 else np.asarray(logits)


def read_logits(
    path: str | Path, layout: LogitsLayout, *, num_examples: int, device_bytes: int = DEVICE_BYTES
) -> CachedLogits | MappedLogits:
    """A teacher made of a `.npy` file of anybody's logits.

    The file holds float16, float32 or float64 of the shape [N, V, K] (a view each, in the order of
    `eigen_jax.data.augmentation`; without flips, [N, V / 2, K] of the unflipped ones will do), [N, 2, K] (the image
    and its mirror image), or [N, K] (the image), for the `num_examples` images of the training set, in its order.
    Logits of more than `device_bytes` are mapped into memory. Raises TeacherError where it holds none such.
    """
    path = Path(path)
    logits = _open_array(path)
    if logits.dtype not in (np.float16, np.float32, np.float64):
        raise TeacherError(f"{path} holds {logits.dtype}; logits must be float16, float32 or float64")
    slots = _file_slots(path, logits.shape, layout, num_examples)
    head = f"{logits.dtype} {logits.shape} {slots.tolist()}"
    digest = files.sha256(itertools.chain([head], _finite_parts(path, logits)))
    stacked = logits.reshape(num_examples, -1, layout.num_classes)
    return from_array(stacked, slots, digest, device_bytes=device_bytes)


def _open_array(path: Path) -> np.ndarray:
    try:
        logits = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise TeacherError(f"{path} cannot be read ({error.strerror or error}); name a .npy file of logits") from None
    except (ValueError, EOFError) as error:
        raise TeacherError(f"{path} is no intact .npy file of numbers: {first_line(error)}") from None
    if not isinstance(logits, np.ndarray):
        raise TeacherError(f"{path} holds several arrays; name a .npy file of one")
    return logits


def _file_slots(path: Path, shape: tuple[int, ...], layout: LogitsLayout, num_examples: int) -> np.ndarray:
    """[V] int32, the slots of a file's logits, told from its shape."""
    every, num_classes = np.arange(num_views(layout.pad), dtype=np.int32), layout.num_classes
    unflipped = {} if layout.flip else {every.size // 2: every // 2}
    by_views = {every.size: every, **unflipped, 2: every % 2, 1: np.zeros_like(every)}
    known: dict[Any, np.ndarray] = {(num_examples, views, num_classes): slots for views, slots in by_views.items()}
    known[num_examples, num_classes] = by_views[1]
    if shape not in known:
        *fitting, last = (str([*each]) for each in known if each != (num_examples, 1, num_classes))
        shapes = f"{', '.join(fitting)} or {last}"
        raise TeacherError(f"{path} holds an array of shape {[*shape]}; for these data it must be {shapes}")
    return known[shape]


def _finite_parts(path: Path, logits: np.ndarray) -> Iterator[np.ndarray]:
    """Yields parts along the first axis, so that a large file is never in memory."""
    rows = max(1, _CHUNK_BYTES // max(1, logits[:1].nbytes))
    for start in range(0, len(logits), rows):
        part = logits[start : start + rows]
        if not np.isfinite(part).all():
            raise TeacherError(f"{path} holds values that are not finite, from image {start} on; logits must be")
        yield part
