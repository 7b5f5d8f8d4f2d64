"""Compiled programs of pure functions: each compiled once, ahead in the background, only the newest held."""

import collections
import contextlib
import functools
import logging
import threading
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import CancelledError, Future
from typing import Any, Self

import jax

from eigen_jax import platforms

Options = Mapping[str, str | int]  # of XLA's compiler

_WAITING = 4  # tasks of the background; the oldest of more are dropped
_SWITCHES: Any = jax.config  # whose attributes have no stubs

_logger = logging.getLogger(__name__)


def compiled(
    function: Callable,
    arguments: tuple,
    *,
    programs: "Programs | None",
    donate: tuple[int, ...] = (),
    options: Options | None = None,
    **statics: Any,
) -> Callable:
    """The program of a pure function for arguments of these shapes on these devices.

    Args:
        function: as defined in a module; programs are known by it.
        arguments: pytrees, as `shapes_of` takes them.
        programs: where it is found, or compiled and held; None for a jitted function, which JAX remembers as all.
        donate: positions of the arguments that the program may overwrite.
        options: of the compiler; by default the platform's. What this jaxlib does not know is left out.
        statics: hashable keyword arguments of the function.
    """
    options = platforms.current().compiler_options if options is None else options
    if programs is not None:
        return programs.find_or_compile(function, arguments, donate, options, statics)
    options = known_options(options)
    program = jax.jit(function, static_argnames=tuple(statics), donate_argnums=donate, compiler_options=options)
    return functools.partial(program, **statics)


class Programs:
    """The newest programs of one who trains many networks, and a thread that compiles the next ones meanwhile.

    Safe to use from several threads. One that is dropped and not closed, or left open at the end of the process,
    gives up what waits to be compiled. What JAX remembers of a program goes with it, but for the traces of functions
    such as `jnp.where` by their arguments' shapes, which are the caller's as well.
    """

    def __init__(self, kept: int = 24) -> None:
        # A CPU program takes up to 20 MB, and some 300 of a process's 65,530 memory maps. The default is enough for one
        # of two workers that share a generation: four a network, to initialise, take a step, evaluate a batch, and an
        # image. Whichever is needed once more comes from the cache on disk.
        self._kept = kept
        self._lock = threading.Lock()
        self._programs: collections.OrderedDict[Hashable, Future] = collections.OrderedDict()  # last used, last
        self._tasks: collections.deque[Callable[[], object]] = collections.deque(maxlen=_WAITING)
        self._thread: threading.Thread | None = None  # lives while there are tasks
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Drops what is held and what waits; waits for the compilation under way, which nothing can stop."""
        with self._lock:
            self._closed = True
            self._tasks.clear()
            self._programs.clear()
            thread = self._thread
        if thread is not None:
            thread.join()

    def find_or_compile(
        self, function: Callable, arguments: tuple, donate: tuple[int, ...], options: Options, statics: dict[str, Any]
    ) -> Callable:
        """See `compiled`; it is a `jax.stages.Compiled`, but where `is_examined`: there it compiles when it is called.

        Waits where another thread compiles it already. If that fails it is tried again here, so what is raised is
        never the failure of another moment.
        """
        shapes = shapes_of(arguments)
        leaves, structure = jax.tree.flatten(shapes)
        named = frozenset(options.items()), frozenset(statics.items())
        key = (function, structure, tuple(leaves), donate, *named, is_examined())
        while True:
            with self._lock:
                is_new = key not in self._programs
                future = self._programs.setdefault(key, Future())
                self._programs.move_to_end(key)
                while len(self._programs) > self._kept:
                    self._programs.popitem(last=False)
            if is_new:
                break
            with contextlib.suppress(CancelledError):
                return future.result()
        try:
            if threading.current_thread() is self._thread and self._is_over():
                raise CancelledError
            program = _compile(function, shapes, donate, options, statics)
        except BaseException:
            with self._lock:
                if self._programs.get(key) is future:
                    del self._programs[key]
            future.cancel()  # whoever waits for it builds it themselves
            raise
        future.set_result(program)
        return program

    def in_background(self, task: Callable[[], object]) -> None:
        """Does a task, made of calls of `compiled`, in a thread beside this one, after those before it.

        If it fails, nobody hears of it: whoever asks for the program compiles it again, and has the error. Where more
        than a few tasks wait, the oldest are dropped; where `is_examined`, all are.
        """
        with self._lock:
            if is_examined() or self._is_over():
                return
            self._tasks.append(task)
            if self._thread is None:
                # No daemon: Python waits for it before it ends, and a thread that comes back from a compilation
                # to a Python that has ended crashes.
                self._thread = threading.Thread(target=self._work, name="compilation")
                self._thread.start()

    def _is_over(self) -> bool:
        """Whether nothing more is to be compiled ahead; the main thread ends before Python waits for the others."""
        return self._closed or not threading.main_thread().is_alive()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._tasks or self._is_over():
                    self._thread = None
                    return
                task = self._tasks.popleft()
            try:
                task()
            except Exception:
                _logger.debug("a program could not be compiled ahead", exc_info=True)
            del task  # which holds this object, so that one that is dropped goes


def _compile(
    function: Callable, shapes: Any, donate: tuple[int, ...], options: Options, statics: dict[str, Any]
) -> Callable:
    own = functools.partial(function, **statics)  # what jit remembers of it goes when it goes
    program = jax.jit(own, donate_argnums=donate, compiler_options=known_options(options))
    return functools.partial(_examined, program) if is_examined() else program.lower(*shapes).compile()


def peak_bytes(program: Callable) -> int | None:
    """Bytes of a device that a program holds, as its compiler planned it, cached or not; None where `is_examined`."""
    if not isinstance(program, jax.stages.Compiled) or (told := program.memory_analysis()) is None:
        return None
    results = told.output_size_in_bytes - told.alias_size_in_bytes
    return int(told.argument_size_in_bytes + results + told.temp_size_in_bytes)


def is_examined() -> bool:
    """Whether people step through functions or look for NaNs in them, which programs compiled ahead do not let them."""
    return _SWITCHES.jax_disable_jit or _SWITCHES.jax_debug_nans


def _examined(program: Callable, *arguments: Any) -> Any:
    # Said again, because a thread of JAX 0.10 that has mapped a function looks for no NaNs any more.
    with jax.debug_nans(_SWITCHES.jax_debug_nans):
        return program(*arguments)


def shapes_of(tree: Any, *leading: int, sharding: jax.sharding.Sharding | None = None) -> Any:
    """A tree of `jax.ShapeDtypeStruct` in place of arrays or their shapes, with `leading` dimensions.

    Each is where `sharding` says, or else where the leaf is, or else on the default device.
    """
    default = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def shape_of(leaf: Any) -> jax.ShapeDtypeStruct:
        place = sharding or leaf.sharding or default
        return jax.ShapeDtypeStruct((*leading, *leaf.shape), leaf.dtype, sharding=place)

    return jax.tree.map(shape_of, tree)


def known_options(options: Options) -> dict[str, str | int]:
    """The options that this jaxlib knows."""
    return {name: value for name, value in options.items() if _is_known(name, value)}


@functools.cache
def _is_known(name: str, value: str | int) -> bool:
    probe = jax.jit(lambda number: number, compiler_options={name: value})
    try:
        probe.lower(jax.ShapeDtypeStruct((), "float32")).compile()
    except jax.errors.JaxRuntimeError as error:
        if "No such compile option" not in str(error):
            raise
        if name in platforms.current().compiler_options:
            _logger.warning("this jaxlib does not know the compiler option %s; training may be slower without it", name)
        return False
    return True
