"""Reads the pickles of the official CIFAR archives without running anything that they name.

Python's unpickler calls whatever a pickle names. What a CIFAR file needs comes down to a handful of names, in any
protocol. Here each of them stands for an inert class or function of this module: NumPy's own will not do even behind a
list of allowed names, since `numpy.ndarray` over a chosen buffer reads chosen memory.
"""

import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

from eigen_jax.data.types import DataError

_DTYPES = frozenset(order + kind + size for order in "<>=|" for kind in "iu" for size in "1248")


class _Refused(pickle.UnpicklingError):
    """A pickle names something that no CIFAR file needs."""


class _DtypeState:
    """Stands for `numpy.dtype`: a type's code, and its byte order before it."""

    def __init__(self, code: str | bytes, *flags: object) -> None:
        self.code = _text(code)
        self.full = f"={self.code}"

    def __setstate__(self, state: tuple) -> None:
        self.full = _text(state[1]) + self.code


class _ArrayState:
    """Stands for `numpy.ndarray`: holds what a pickled array holds."""

    value: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran_order, content = state
        self.value = _integers(content, dtype).reshape(shape, order="F" if fortran_order else "C")


def _integers(content: object, dtype: object) -> np.ndarray:
    """[N] integers of some bytes; of a copy, so that nothing in the pickle changes them later."""
    if not isinstance(content, bytes | bytearray) or not isinstance(dtype, _DtypeState) or dtype.full not in _DTYPES:
        raise pickle.UnpicklingError("an array that is not of integers")
    return np.frombuffer(bytes(content), np.dtype(dtype.full))


def _text(value: object) -> str:
    # What Python 2 pickled as a string arrives as bytes.
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def _frombuffer(content: object, dtype: object, shape: tuple, order: str) -> _ArrayState:
    array = _ArrayState()
    array.__setstate__((None, shape, dtype, order == "F", content))
    return array


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError("a string that is not latin-1")
    return text.encode("latin1")


_ALLOWED: dict[str, Callable] = {
    "__builtin__.bytes": lambda: b"",  # how Python 3 writes b"" in protocol 2
    "numpy.ndarray": _ArrayState,
    "numpy.dtype": _DtypeState,
    "_codecs.encode": _encode,
}
for _core in ("numpy.core", "numpy._core"):  # before NumPy 2, and since
    _ALLOWED |= {
        f"{_core}.multiarray._reconstruct": lambda *_: _ArrayState(),
        f"{_core}.multiarray.scalar": lambda dtype, content: int(_integers(content, dtype).item()),
        f"{_core}.numeric._frombuffer": _frombuffer,  # an array, in protocol 5
    }


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full not in _ALLOWED:
            raise _Refused(full)
        return _ALLOWED[full]


def unpickle(content: bytes, *, label: str) -> dict[str, Any]:
    """Reads one CIFAR pickle, a dictionary of any protocol, as plain data; `label` names the file in an error.

    Keys come out as str, byte strings as bytes, and arrays as integer NumPy arrays. Raises DataError for all else.
    """
    try:
        loaded = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    except _Refused as error:
        problem = f"{label} asks to run {str(error)!r}, which no CIFAR file needs"
        raise DataError(f"{problem}; nothing in it was run: get the file from a source that you trust") from error
    except Exception as error:  # bytes that are no pickle make the unpickler raise nearly anything
        raise DataError(f"{label} is truncated or damaged ({type(error).__name__}); get the file again") from error
    if not isinstance(loaded, dict):
        raise DataError(f"{label} holds a {type(loaded).__name__}, not CIFAR's dictionary; get the file again")
    return {_text(key): value.value if isinstance(value, _ArrayState) else value for key, value in loaded.items()}
