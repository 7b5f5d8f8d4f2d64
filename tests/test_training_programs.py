"""Compiled programs: compiled once whoever asks, in the background too, and options that are not known."""

import dataclasses
import functools
import gc
import logging
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import pytest
from training_data import wait_for_background

from eigen_jax import platforms
from eigen_jax.training.programs import Programs, compiled, known_options, peak_bytes

ARRAY = jnp.arange(3)
TRACED: list[int] = []


def scaled(array, *, factor):
    TRACED.append(factor)
    return array * factor


@pytest.fixture
def programs() -> Iterator[Programs]:
    """Holds three, and nobody has traced."""
    TRACED.clear()
    with Programs(3) as made:
        yield made


def program_of(factor: int, programs: Programs | None):
    return compiled(scaled, (ARRAY,), programs=programs, factor=factor)


def test_a_program_is_compiled_once_for_arrays_and_for_their_shapes_and_in_the_background_too(programs):
    programs.in_background(lambda: program_of(4, programs))
    wait_for_background(programs)
    assert program_of(4, programs)(ARRAY).tolist() == [0, 4, 8]
    assert TRACED == [4]
    program = compiled(scaled, (jax.ShapeDtypeStruct((3,), jnp.int32),), programs=programs, factor=2)
    assert program_of(2, programs) is program
    assert program(ARRAY).tolist() == [0, 2, 4]
    assert program_of(3, programs)(ARRAY).tolist() == [0, 3, 6]
    assert TRACED == [4, 2, 3]


def test_only_the_newest_programs_are_kept(programs):
    for factor in (1, 2, 3, 1, 4, 1):
        program_of(factor, programs)
    assert TRACED == [1, 2, 3, 4]
    program_of(2, programs)
    assert TRACED == [1, 2, 3, 4, 2]


def test_without_an_owner_jax_remembers_and_compiles_once(programs):
    assert [program_of(5, None)(ARRAY).tolist() for _ in range(3)] == [[0, 5, 10]] * 3
    assert program_of(6, None)(ARRAY).tolist() == [0, 6, 12]
    assert TRACED == [5, 6]


def test_what_is_compiled_goes_with_its_owner_and_others_keep_theirs(programs):
    for close in (Programs.close, lambda dropped: None):
        owner = Programs()
        program = weakref.ref(program_of(7, owner))
        kept = program_of(7, programs)
        owner.in_background(functools.partial(program_of, 8, owner))
        wait_for_background(owner)
        close(owner)
        del owner
        deadline = time.monotonic() + 10  # the thread that compiled may hold its last task for a moment
        while program() is not None and time.monotonic() < deadline:
            gc.collect()
        assert program() is None
        assert program_of(7, programs) is kept


def test_a_closed_owner_compiles_nothing_ahead(programs):
    moment = Moment(1)
    programs.in_background(lambda: [halting(ARRAY, moment=moment), program_of(9, programs)])
    programs.in_background(lambda: program_of(2, programs))
    assert moment.entered.wait(60)
    threading.Timer(0.2, moment.left.set).start()
    programs.close()
    assert TRACED == [1]
    programs.in_background(lambda: program_of(2, programs))
    assert programs._thread is None
    assert program_of(3, programs)(ARRAY).tolist() == [0, 3, 6]
    assert TRACED == [1, 3]


def halting(array, *, moment):
    TRACED.append(moment.number)
    moment.entered.set()
    assert moment.left.wait(60)
    if moment.failures:
        raise moment.failures.pop()
    return array + moment.number


@dataclasses.dataclass(eq=False)
class Moment:
    """A compilation that halts in its middle."""

    number: int
    failures: list[Exception] = dataclasses.field(default_factory=list)
    entered: threading.Event = dataclasses.field(default_factory=threading.Event)
    left: threading.Event = dataclasses.field(default_factory=threading.Event)


@pytest.mark.parametrize(("failures", "traces"), [([], [5]), ([RuntimeError("no memory left")], [5, 5])])
def test_who_asks_while_it_is_compiled_waits_and_hears_nothing_of_a_failure(programs, failures, traces):
    moment = Moment(5, [*failures])
    programs.in_background(lambda: compiled(halting, (ARRAY,), programs=programs, moment=moment))
    assert moment.entered.wait(60)
    threading.Timer(0.2, moment.left.set).start()
    assert compiled(halting, (ARRAY,), programs=programs, moment=moment)(ARRAY).tolist() == [5, 6, 7]
    assert traces == TRACED


def test_an_error_in_the_background_is_raised_where_the_program_is_asked_for(programs, capfd):
    moment = Moment(2, [RuntimeError("it cannot be"), RuntimeError("it cannot be")])
    moment.left.set()
    programs.in_background(lambda: compiled(halting, (ARRAY,), programs=programs, moment=moment))
    wait_for_background(programs)
    assert capfd.readouterr() == ("", "")
    with pytest.raises(RuntimeError, match="it cannot be"):
        compiled(halting, (ARRAY,), programs=programs, moment=moment)
    assert TRACED == [2, 2]


def reciprocal_root(array, *, power):
    TRACED.append(power)
    return 1 / jnp.sqrt(array) ** power


@pytest.fixture
def looking_for_nans() -> Iterator[None]:
    """As with JAX_DEBUG_NANS, in a thread that has mapped a function: JAX 0.10 then looks no more by itself."""
    jax.config.update("jax_debug_nans", True)
    jax.vmap(jax.jit(lambda number: number + 1))(ARRAY)
    yield
    jax.config.update("jax_debug_nans", False)


def test_a_nan_that_is_looked_for_is_found_where_it_arises_and_at_every_call(programs, looking_for_nans):
    arguments = (jnp.ones(3),)
    program = compiled(reciprocal_root, arguments, programs=programs, donate=(0,), power=2)
    assert program(*arguments).tolist() == [1, 1, 1]
    with pytest.raises(FloatingPointError, match=r"\(nan\) encountered in sqrt"):
        program(-jnp.ones(3))
    assert compiled(reciprocal_root, arguments, programs=programs, donate=(0,), power=2) is program
    ahead = threading.Event()
    programs.in_background(ahead.set)
    assert not ahead.wait(0.2)


def test_with_jit_disabled_a_function_runs_as_it_stands_at_every_call(programs):
    with jax.disable_jit():
        program = program_of(5, programs)
        assert [program(ARRAY).tolist() for _ in range(2)] == [[0, 5, 10]] * 2
    assert TRACED == [5, 5]
    assert program_of(5, programs)(ARRAY).tolist() == [0, 5, 10]
    assert isinstance(program_of(5, programs), jax.stages.Compiled)


def test_the_oldest_of_many_tasks_are_dropped(programs):
    moment, done = Moment(0), threading.Event()
    seen: list[int] = []
    programs.in_background(lambda: halting(ARRAY, moment=moment))
    assert moment.entered.wait(60)
    for number in range(10):
        programs.in_background(functools.partial(seen.append, number))
    programs.in_background(done.set)
    moment.left.set()
    assert done.wait(60)
    assert seen == [7, 8, 9]


def test_a_compiler_option_that_is_not_known_is_left_out_with_one_warning(programs, monkeypatch, caplog):
    platform = dataclasses.replace(platforms.CPU, compiler_options={"xla_of_a_later_year": "1"})
    monkeypatch.setattr(platforms, "current", lambda: platform)
    with caplog.at_level(logging.WARNING, logger="eigen_jax"):
        for factor in (2, 3):
            assert program_of(factor, programs)(ARRAY).tolist() == [0, factor, 2 * factor]
    assert [record.getMessage() for record in caplog.records] == [
        "this jaxlib does not know the compiler option xla_of_a_later_year; training may be slower without it"
    ]


def test_the_platforms_options_and_those_of_a_program_are_known_and_a_value_that_cannot_be_is_an_error(programs):
    options: dict[str, str | int] = {**platforms.CPU.compiler_options, **platforms.GPU.compiler_options}
    options["xla_backend_optimization_level"] = 0
    assert known_options(options) == options
    with pytest.raises(jax.errors.JaxRuntimeError, match="not a valid"):
        compiled(
            scaled,
            (ARRAY,),
            programs=programs,
            options={"xla_cpu_experimental_ynn_fusion_type": "nonsense"},
            factor=2,
        )


PROGRAMS_THAT_WAIT = """
import threading, time
import jax.numpy as jnp
from eigen_jax.training.programs import (Programs, compiled)

programs = Programs()
started = threading.Event()

def step(array, *, number):
    started.set()
    time.sleep(0.5)
    return array + number

programs.in_background(
    lambda: [compiled(step, (jnp.arange(3),), programs=programs, number=number) for number in range(100)]
)
started.wait()
try:
    END
except KeyboardInterrupt:
    raise SystemExit(130)
"""


@pytest.mark.parametrize("end", ["pass", pytest.param("raise KeyboardInterrupt", marks=pytest.mark.slow)])
def test_a_process_ends_at_once_and_silently_while_programs_wait(end):
    script = [sys.executable, "-c", PROGRAMS_THAT_WAIT.replace("END", end)]
    ended = subprocess.run(script, capture_output=True, text=True, timeout=45)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0 if end == "pass" else 130, "", "")


def product(left, right, added):
    return left @ right, added + 1.0


def test_the_peak_is_of_arguments_and_results_without_what_one_overwrites(programs):
    left, right, added = jnp.ones((100, 30)), jnp.ones((30, 50)), jnp.ones((70,))
    kept, donated = (compiled(product, (left, right, added), programs=programs, donate=d) for d in ((), (2,)))
    arguments, results = 4 * (100 * 30 + 30 * 50 + 70), 4 * (100 * 50 + 70)
    index = 2 * 8  # a pointer to each of the two results
    peak = peak_bytes(kept)
    assert peak is not None
    assert arguments + results <= peak <= arguments + results + index
    assert peak_bytes(donated) == peak - 4 * 70
    assert peak_bytes(compiled(product, (left, right, added), programs=None)) is None
