"""Which pictures of the test images a network gets most wrong."""

import base64
import dataclasses
import io

import numpy as np
from PIL import Image


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mistake:
    """A picture that a network takes for something else."""

    picture: str  # PNG, as a data URI
    size: tuple[int, int]  # width and height, pixels
    label: int  # its class
    taken_for: int
    probability: float  # that the network gives that one


def find_mistakes(logits: np.ndarray, labels: np.ndarray, pixels: np.ndarray, *, most: int = 24) -> tuple[Mistake, ...]:
    """The images that a network gives their own class the least probability, of those that it gets wrong.

    Of logits [N, K], labels [N] and images [N, H, W, C] uint8; of an image that is neither grey, RGB nor RGBA, the
    first channel is shown.
    """
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    logarithms = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    rows, taken = np.arange(len(labels)), logits.argmax(axis=1)
    wrong = np.flatnonzero(taken != labels)
    worst = wrong[np.argsort(logarithms[rows, labels][wrong], kind="stable")][:most]
    return tuple(
        Mistake(
            picture=_data_uri(pixels[row]),
            size=(pixels.shape[2], pixels.shape[1]),
            label=int(labels[row]),
            taken_for=int(taken[row]),
            probability=float(np.exp(logarithms[row, taken[row]])),
        )
        for row in worst
    )


def _data_uri(pixels: np.ndarray) -> str:
    """One image, [H, W, C] uint8."""
    channels = pixels.shape[2] if pixels.shape[2] in (1, 3, 4) else 1
    shown = pixels[..., 0] if channels == 1 else pixels
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(shown)).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
