"""Ctrl-C and SIGTERM: what is under way is saved, the exit code is the conventional one."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from eigen_jax.resumable import StoppedError
from experiments.interruption import Interrupted, held_off
from experiments.runner import run_command

BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)


@pytest.fixture(autouse=True)
def handlers():
    """Checks that the handlers of both signals are afterwards what they were before."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    yield before
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def save_when_asked(number: signal.Signals, *, times: int = 1) -> None:
    """A command that gets a signal, goes on until it asks, saves, and leaves."""
    with held_off() as should_stop:
        assert not should_stop()
        for _ in range(times):
            os.kill(os.getpid(), number)
        assert should_stop()
        assert should_stop(), "it does not forget"
        raise StoppedError("saved")


@BOTH
def test_a_first_signal_is_held_off_and_then_named(number, capfd):
    with pytest.raises(Interrupted) as caught:
        save_when_asked(number)
    assert caught.value.number == number
    assert capfd.readouterr().err == f"{number.name}: saving what is under way; once more to leave without\n"


@BOTH
def test_a_second_signal_leaves_at_once(number, capfd):
    with pytest.raises(KeyboardInterrupt):
        save_when_asked(number, times=2)
    assert len(capfd.readouterr().err.splitlines()) == 1


def test_ctrl_c_after_sigterm_leaves_at_once():
    def command() -> None:
        with held_off():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        command()


@BOTH
def test_work_that_ends_before_it_asks_has_ended_well(number):
    with held_off() as should_stop:
        os.kill(os.getpid(), number)
    assert should_stop()


def test_without_a_signal_nothing_is_said_or_changed(capfd):
    with held_off() as should_stop:
        assert not should_stop()
    assert capfd.readouterr() == ("", "")


def test_other_errors_pass_and_handlers_are_restored(handlers):
    def command() -> None:
        with held_off():
            assert signal.getsignal(signal.SIGINT) not in handlers
            raise ValueError("another")

    with pytest.raises(ValueError, match="another"):
        command()


@BOTH
def test_a_command_that_was_stopped_says_how_to_go_on_and_exits_with_the_signals_code(number, capfd):
    assert run_command(lambda: save_when_asked(number)) == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    last = capfd.readouterr().err.splitlines()[-1]
    assert last == f"stopped by {number.name}, and saved; the same command goes on"


def test_a_command_that_was_left_at_once_says_so(capfd):
    assert run_command(lambda: save_when_asked(signal.SIGINT, times=2)) == 130
    last = capfd.readouterr().err.splitlines()[-1]
    assert last == "interrupted; the same command goes on from what was saved last"


def test_ctrl_c_where_nothing_holds_it_off_is_told_in_one_line(capfd):
    assert run_command(lambda: os.kill(os.getpid(), signal.SIGINT)) == 130
    assert len(capfd.readouterr().err.splitlines()) == 1


PROGRAM = """
    import sys, time
    from eigen_jax.resumable import StoppedError
    from experiments.interruption import held_off
    from experiments.runner import run_command

    def command():
        with held_off() as should_stop:
            print("ready", flush=True)
            while not should_stop():
                time.sleep(0.01)
            raise StoppedError("saved")

    sys.exit(run_command(command))
"""


def test_a_process_exits_with_the_code_that_shells_expect():
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAM)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[1],
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 143
    assert err.splitlines() == [
        "SIGTERM: saving what is under way; once more to leave without",
        "stopped by SIGTERM, and saved; the same command goes on",
    ]
