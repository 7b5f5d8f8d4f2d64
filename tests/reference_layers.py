"""Layers in NumPy float64, from their definitions."""

import numpy as np


def convolution(x, kernel, stride=1, cotangent=None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """SAME convolution of [B, H, W, C] with [K, L, C, D], and its gradients of both for a cotangent."""
    x, kernel = np.asarray(x, np.float64), np.asarray(kernel, np.float64)
    sides, size = kernel.shape[:2], x.shape[1:3]
    rows, columns = (-(-pixels // stride) for pixels in size)
    spans = ((-(-pixels // stride) - 1) * stride + side - pixels for pixels, side in zip(size, sides, strict=True))
    totals = [max(span, 0) for span in spans]
    padded = np.pad(x, [(0, 0), *((total // 2, total - total // 2) for total in totals), (0, 0)])
    y, kernel_gradient = np.zeros((len(x), rows, columns, kernel.shape[-1])), np.zeros_like(kernel)
    cotangent = np.zeros_like(y) if cotangent is None else np.asarray(cotangent, np.float64)
    input_gradient = np.zeros_like(padded)
    for tap in np.ndindex(*sides):
        read = np.s_[:, tap[0] : tap[0] + rows * stride : stride, tap[1] : tap[1] + columns * stride : stride]
        y += padded[read] @ kernel[tap]
        input_gradient[read] += cotangent @ kernel[tap].T
        kernel_gradient[tap] = np.tensordot(padded[read], cotangent, ([0, 1, 2], [0, 1, 2]))
    top, left = (total // 2 for total in totals)
    return y, input_gradient[:, top : top + size[0], left : left + size[1]], kernel_gradient


def norm_relu(x: np.ndarray, params, stats) -> np.ndarray:
    """Batch normalisation with the given statistics, then ReLU."""
    scale, bias, mean, var = (
        np.asarray(each, np.float64) for each in (params["scale"], params["bias"], stats["mean"], stats["var"])
    )
    return np.maximum((x - mean) / np.sqrt(var + 1e-5) * scale + bias, 0)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
