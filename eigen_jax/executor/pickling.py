"""What goes to workers, pickled by reference: functions and classes go as names, which are looked up there."""

import io
from multiprocessing.reduction import ForkingPickler
from types import FunctionType
from typing import Any

from eigen_jax.errors import first_line
from eigen_jax.executor.interface import ExecutorError


def pack(content: Any) -> bytes:
    """Pickles what is sent to a worker; raises an ExecutorError that names what a worker could not find."""
    packed = io.BytesIO()
    try:
        _ByReference(packed).dump(content)
    except ExecutorError:
        raise
    except Exception as error:  # whatever the user's own classes raise
        raise ExecutorError(f"{first_line(error)}, so no worker can have it; use the executor 'inline'") from None
    return packed.getvalue()


def unpack(packed: bytes) -> Any:
    """What `pack` packed; raises an ExecutorError where a worker does not find what it names."""
    try:
        return ForkingPickler.loads(packed)
    except Exception as error:
        raise ExecutorError(
            f"a worker cannot read what it was sent ({type(error).__name__}: {first_line(error)}); put what is missing"
            " where all workers find it, such as into a module in a folder of sys.path"
        ) from None


class _ByReference(ForkingPickler):
    """Refuses functions and classes of the script or notebook that was started, lambdas, and what functions define."""

    def reducer_override(self, part: Any) -> Any:
        if isinstance(part, FunctionType | type) and (part.__module__ == "__main__" or "<" in part.__qualname__):
            name = f"{part.__module__}.{part.__qualname__}"
            raise ExecutorError(f"no worker can import {name}; define it by a name of its own in a module")
        return NotImplemented
