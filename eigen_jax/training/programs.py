"""Compiled programs of pure functions: each compiled once, ahead in the background, only the newest held."""

import atexit
import collections
import functools
import logging
import threading
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import CancelledError, Future
from typing import Any

import jax

from eigen_jax import platforms

Options = Mapping[str, str | int]  # of XLA's compiler

# A compiled CPU program holds some 300 of a process's 65,530 memory maps, and a search compiles
# hundreds: only the newest are kept, where jit's own cache would keep them all. They must be enough
# for a generation, whose networks train in turns: four programs each, to initialise, to take a step
# and a chunk of steps, and to evaluate.
COMPILED_KEPT = 48

# Each network leaves about 1 MB in JAX's caches of traces, which are keyed by shapes and know no
# bound. After this many compilations they are cleared; what is not held here, such as the step of
# evolution, is then traced anew.
CLEARED_EVERY = 150

_logger = logging.getLogger(__name__)


def compiled(
    function: Callable,
    arguments: tuple,
    *,
    donate: tuple[int, ...] = (),
    options: Options | None = None,
    **statics: Any,
) -> Callable:
    """The program of a pure function for arguments of these shapes on these devices, compiled once.

    It is a `jax.stages.Compiled`, but where `is_examined`: there it compiles when it is called, if at all.

    Waits where another thread compiles it already. If that fails it is tried again here, so what is
    raised is never the failure of another moment.

    Args:
        function: as defined in a module; programs are known by it.
        arguments: pytrees of arrays or of `jax.ShapeDtypeStruct`; one without a sharding is of the default device.
        donate: positions of the arguments that the program may overwrite.
        options: of the compiler; by default those of the platform. One that this jaxlib does not
            know is left out, with a warning where it is the platform's.
        statics: hashable keyword arguments of the function.
    """
    leaves, structure = jax.tree.flatten(arguments)
    shapes = tuple(_abstract(leaf) for leaf in leaves)
    options = platforms.current().compiler_options if options is None else options
    key = (function, structure, shapes, donate, tuple(options.items()), tuple(statics.items()), is_examined())

    def build() -> Callable:
        # A partial of its own for each program: what jit remembers goes when the function goes.
        program = jax.jit(
            functools.partial(function, **statics), donate_argnums=donate, compiler_options=_known(options)
        )
        if is_examined():
            return functools.partial(_examined, program)
        return program.lower(*jax.tree.unflatten(structure, shapes)).compile()

    return _store.find_or_build(key, build)


def is_examined() -> bool:
    """Whether people step through functions or look for NaNs in them, which programs compiled ahead do not let them."""
    return _is_set("jax_disable_jit") or _is_set("jax_debug_nans")


def _is_set(name: str) -> bool:
    return getattr(jax.config, name)


def _examined(program: Callable, *arguments: Any) -> Any:
    # Said again, because a thread of JAX 0.10 that has mapped a function looks for no NaNs any more.
    with jax.debug_nans(_is_set("jax_debug_nans")):
        return program(*arguments)


def in_background(task: Callable[[], object]) -> None:
    """Does a task, made of calls of `compiled`, in a thread beside this one.

    Tasks run one after the other. If a task fails, nobody hears of it: whoever asks for the program
    compiles it again, and has the error. Where more than a few tasks wait, the oldest are dropped;
    where `is_examined`, all are.
    """
    if is_examined():
        return
    _background.add(task)


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    sharding = leaf.sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _known(options: Options) -> dict[str, str | int]:
    """The options that this jaxlib knows."""
    with _probing:
        return {name: value for name, value in options.items() if _is_known(name, value)}


_probing = threading.Lock()


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


class _Store:
    """The newest programs, and those that are being built, by their keys."""

    def __init__(self, size: int, cleared_every: int) -> None:
        self._size = size
        self._cleared_every = cleared_every
        self._building = 0  # now, in all threads
        self._built = 0  # since the caches were cleared
        self._lock = threading.Lock()
        self._programs: collections.OrderedDict[Hashable, Future] = collections.OrderedDict()  # last used, last
        self._closed = False

    def find_or_build(self, key: Hashable, build: Callable[[], Callable]) -> Callable:
        while True:
            with self._lock:
                known = self._programs.get(key)
                future = self._programs.setdefault(key, Future())
                self._programs.move_to_end(key)
                while len(self._programs) > self._size:
                    self._programs.popitem(last=False)
                self._building += known is None
            if known is None:
                return self._build(key, future, build)
            try:
                return future.result()
            except CancelledError:
                continue

    def close(self) -> None:
        """Builds nothing more."""
        self._closed = True

    def _build(self, key: Hashable, future: Future, build: Callable[[], Callable]) -> Callable:
        try:
            if self._closed:
                raise CancelledError
            program = build()
        except BaseException:
            with self._lock:
                if self._programs.get(key) is future:
                    del self._programs[key]
            future.cancel()  # whoever waits for it builds it themselves
            raise
        finally:
            self._clear_when_due()
        future.set_result(program)
        return program

    def _clear_when_due(self) -> None:
        """Called after each building; clears JAX's caches while no thread is at it."""
        with self._lock:
            self._building -= 1
            self._built += 1
            if self._building == 0 and self._built >= self._cleared_every:
                self._built = 0
                jax.clear_caches()


class _Background:
    """A thread that lives while there are tasks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tasks: collections.deque[Callable[[], object]] = collections.deque(maxlen=4)
        self._thread: threading.Thread | None = None

    def add(self, task: Callable[[], object]) -> None:
        with self._lock:
            self._tasks.append(task)
            if self._thread is None:
                # A daemon, because Python would wait for any other before it calls `end`.
                self._thread = threading.Thread(target=self._work, name="compilation", daemon=True)
                self._thread.start()

    def end(self) -> None:
        """Drops the tasks that wait, and waits for the compilation under way.

        Nothing can stop that one. XLA makes the process wait for it in any case, and a thread that
        comes back from it to a Python that has ended crashes.
        """
        with self._lock:
            self._tasks.clear()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._tasks:
                    self._thread = None
                    return
                task = self._tasks.popleft()
            try:
                task()
            except Exception:
                _logger.debug("a program could not be compiled ahead", exc_info=True)


def _end() -> None:
    _store.close()
    _background.end()


_store = _Store(COMPILED_KEPT, CLEARED_EVERY)
_background = _Background()
atexit.register(_end)
