"""Compiled programs: compiled once whoever asks, in the background too, and options that are not known."""

import dataclasses
import functools
import logging
import subprocess
import sys
import textwrap
import threading

import jax
import jax.numpy as jnp
import pytest

from eigen_jax import platforms
from eigen_jax.training import programs
from eigen_jax.training.programs import compiled, in_background

TRACED: list[int] = []
FAILURES: list[Exception] = []


def scaled(array, *, factor):
    TRACED.append(factor)
    if FAILURES:
        raise FAILURES.pop()
    return array * factor


@pytest.fixture(autouse=True)
def forgetful(monkeypatch):
    """No program is known, and nobody has traced."""
    monkeypatch.setattr(programs, "_store", programs._Store(3, 1_000))
    TRACED.clear()
    FAILURES.clear()


def in_background_and_wait(task):
    done = threading.Event()
    in_background(task)
    in_background(done.set)
    assert done.wait(60)


def test_a_program_is_compiled_once_for_arrays_and_for_their_shapes():
    array = jnp.arange(3)
    abstract = jax.ShapeDtypeStruct((3,), jnp.int32)
    program = compiled(scaled, (abstract,), factor=2)
    assert compiled(scaled, (array,), factor=2) is program
    assert program(array).tolist() == [0, 2, 4]
    assert compiled(scaled, (array,), factor=3)(array).tolist() == [0, 3, 6]
    assert TRACED == [2, 3]


def test_only_the_newest_programs_are_kept():
    array = jnp.arange(3)
    for factor in (1, 2, 3, 1, 4):
        compiled(scaled, (array,), factor=factor)
    assert TRACED == [1, 2, 3, 4]
    compiled(scaled, (array,), factor=1)
    assert TRACED == [1, 2, 3, 4]
    compiled(scaled, (array,), factor=2)
    assert TRACED == [1, 2, 3, 4, 2]


@jax.jit
def doubled(array):
    TRACED.append(-2)
    return array * 2


def test_jaxs_caches_are_cleared_after_so_many_compilations_and_programs_live_on(monkeypatch):
    monkeypatch.setattr(programs, "_store", programs._Store(3, 2))
    array = jnp.arange(3)
    for factor in (1, 2, 3, 4):
        program = compiled(scaled, (array,), factor=factor)
        assert doubled(array).tolist() == [0, 2, 4]
        assert program(array).tolist() == [0, factor, 2 * factor]
    assert TRACED == [1, -2, 2, -2, 3, 4, -2]
    assert compiled(scaled, (array,), factor=4) is program


def test_what_was_compiled_in_the_background_is_at_hand():
    array = jnp.arange(3)
    in_background_and_wait(lambda: compiled(scaled, (array,), factor=2))
    assert compiled(scaled, (array,), factor=2)(array).tolist() == [0, 2, 4]
    assert TRACED == [2]


def halting(array, *, moment):
    TRACED.append(moment.number)
    moment.entered.set()
    assert moment.left.wait(60)
    if moment.failure is not None:
        failure, moment.failure = moment.failure, None
        raise failure
    return array + moment.number


@dataclasses.dataclass(eq=False)
class Moment:
    """A compilation that halts in its middle."""

    number: int
    failure: Exception | None = None
    entered: threading.Event = dataclasses.field(default_factory=threading.Event)
    left: threading.Event = dataclasses.field(default_factory=threading.Event)


@pytest.mark.parametrize(("failure", "traces"), [(None, [5]), (RuntimeError("no memory left"), [5, 5])])
def test_who_asks_while_it_is_compiled_waits_and_hears_nothing_of_a_failure(failure, traces):
    array, moment = jnp.arange(3), Moment(5, failure)
    in_background(lambda: compiled(halting, (array,), moment=moment))
    assert moment.entered.wait(60)
    threading.Timer(0.2, moment.left.set).start()
    assert compiled(halting, (array,), moment=moment)(array).tolist() == [5, 6, 7]
    assert traces == TRACED


def test_an_error_in_the_background_is_raised_where_the_program_is_asked_for(capfd):
    array = jnp.arange(3)
    FAILURES[:] = [RuntimeError("it cannot be"), RuntimeError("it cannot be")]
    in_background_and_wait(lambda: compiled(scaled, (array,), factor=2))
    assert capfd.readouterr() == ("", "")
    with pytest.raises(RuntimeError, match="it cannot be"):
        compiled(scaled, (array,), factor=2)
    assert TRACED == [2, 2]


def test_the_oldest_of_many_tasks_are_dropped():
    entered, left, done = threading.Event(), threading.Event(), threading.Event()
    seen: list[int] = []

    def first():
        entered.set()
        left.wait(60)

    in_background(first)
    assert entered.wait(60)
    for number in range(10):
        in_background(functools.partial(seen.append, number))
    in_background(done.set)
    left.set()
    assert done.wait(60)
    assert seen == [7, 8, 9]


def test_a_compiler_option_that_is_not_known_is_left_out_with_one_warning(monkeypatch, caplog):
    platform = dataclasses.replace(platforms.CPU, compiler_options={"xla_of_a_later_year": "1"})
    monkeypatch.setattr(platforms, "current", lambda: platform)
    array = jnp.arange(3)
    with caplog.at_level(logging.WARNING, logger="eigen_jax"):
        for factor in (2, 3):
            assert compiled(scaled, (array,), factor=factor)(array).tolist() == [0, factor, 2 * factor]
    assert [record.getMessage() for record in caplog.records] == [
        "this jaxlib does not know the compiler option xla_of_a_later_year; training may be slower without it"
    ]


def test_a_compiler_option_with_a_value_that_cannot_be_is_an_error():
    with pytest.raises(jax.errors.JaxRuntimeError, match="not a valid"):
        compiled(scaled, (jnp.arange(3),), options={"xla_cpu_experimental_ynn_fusion_type": "nonsense"}, factor=2)


def test_the_platforms_options_and_those_of_a_program_are_known():
    options: dict[str, str | int] = {**platforms.CPU.compiler_options, **platforms.GPU.compiler_options}
    options["xla_backend_optimization_level"] = 0
    assert programs._known(options) == options


@pytest.mark.parametrize("end", ["", "raise KeyboardInterrupt"])
def test_a_process_ends_at_once_and_silently_while_programs_wait(end):
    script = textwrap.dedent(
        f"""
        import signal, threading, time
        import jax.numpy as jnp
        from eigen_jax.training.programs import compiled, in_background

        started = threading.Event()

        def step(array, *, number):
            started.set()
            time.sleep(0.5)
            return array + number

        def task():
            for number in range(100):
                compiled(step, (jnp.arange(3),), number=number)

        in_background(task)
        started.wait()
        try:
            {end or "pass"}
        except KeyboardInterrupt:
            raise SystemExit(130)
        """
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=45)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130 if end else 0, "", "")
