"""Ctrl-C, SIGTERM and SIGHUP: what is under way is saved, the exit code is the conventional one."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from eigen_jax.store.locks import StoppedError
from experiments.commands import UNFINISHED, Interrupted, command, held_off

HELD_OFF = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ANY = pytest.mark.parametrize("number", HELD_OFF, ids=lambda number: number.name)
BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)


@pytest.fixture(autouse=True)
def handlers():
    """Checks that the handlers of all of these signals are afterwards what they were before."""
    ours = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
    before = [signal.getsignal(number) for number in HELD_OFF]
    yield before
    assert [signal.getsignal(number) for number in HELD_OFF] == before
    signal.signal(signal.SIGHUP, ours)


def save_when_asked(*signals: signal.Signals) -> None:
    """A command that gets signals, goes on until it asks, saves, and leaves."""
    with held_off() as should_stop:
        assert not should_stop()
        for number in signals:
            os.kill(os.getpid(), number)
        assert should_stop()
        assert should_stop(), "it does not forget"
        raise StoppedError("saved")


@ANY
def test_a_first_signal_is_held_off_and_then_named(number, capfd):
    with pytest.raises(Interrupted) as caught:
        save_when_asked(number)
    assert caught.value.args == (number,)
    assert capfd.readouterr().err == f"{number.name}: saving what is under way; once more to leave without\n"


def test_time_that_is_over_ends_a_command_with_a_code_of_its_own(capfd):
    @command
    def work() -> None:
        with held_off(stop_at=0.0) as should_stop:
            assert should_stop()
            raise StoppedError("saved")

    assert work() == UNFINISHED
    assert capfd.readouterr() == ("", "stopped when its time was over, and saved; the same command goes on\n")


@BOTH
@pytest.mark.parametrize("first", HELD_OFF, ids=lambda number: number.name)
def test_a_second_signal_leaves_at_once(first, number, capfd):
    with pytest.raises(KeyboardInterrupt):
        save_when_asked(first, number)
    assert len(capfd.readouterr().err.splitlines()) == 1


@ANY
@pytest.mark.parametrize("hangups", [1, 2])
def test_a_terminal_that_closes_while_work_is_saved_does_not_end_it(number, hangups, capfd):
    with pytest.raises(Interrupted) as caught:
        save_when_asked(number, *[signal.SIGHUP] * hangups)
    assert caught.value.args == (number,)
    assert len(capfd.readouterr().err.splitlines()) == 1


def test_a_hangup_that_was_ignored_stays_ignored(capfd):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with held_off() as should_stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not should_stop()
    finally:
        signal.signal(signal.SIGHUP, before)
    assert capfd.readouterr() == ("", "")


def test_a_signal_is_held_off_where_nobody_can_be_told(monkeypatch):
    monkeypatch.setattr(os, "write", Mock(side_effect=OSError(errno.EIO, "Input/output error")))
    with pytest.raises(Interrupted):
        save_when_asked(signal.SIGHUP)


@ANY
def test_work_that_ends_before_it_asks_has_ended_well(number, capfd):
    with held_off() as should_stop:
        assert not should_stop()
        assert capfd.readouterr() == ("", "")
        os.kill(os.getpid(), number)
    assert should_stop()


def test_other_errors_pass_and_handlers_are_restored(handlers):
    def failing() -> None:
        with held_off():
            assert signal.getsignal(signal.SIGINT) not in handlers
            raise ValueError("another")

    with pytest.raises(ValueError, match="another"):
        failing()


@pytest.mark.parametrize(
    ("signals", "code", "last"),
    [
        ([signal.SIGINT], 130, "stopped by SIGINT, and saved; the same command goes on"),
        ([signal.SIGTERM], 143, "stopped by SIGTERM, and saved; the same command goes on"),
        ([signal.SIGHUP], 129, "stopped by SIGHUP, and saved; the same command goes on"),
        ([signal.SIGINT] * 2, 130, "interrupted; the same command goes on from what was saved last"),
    ],
)
def test_a_command_says_how_to_go_on_and_exits_with_the_signals_code(signals, code, last, capfd):
    assert command(lambda: save_when_asked(*signals))() == code
    assert capfd.readouterr().err.splitlines()[-1] == last


def test_ctrl_c_where_nothing_holds_it_off_is_told_in_one_line(capfd):
    assert command(lambda: os.kill(os.getpid(), signal.SIGINT))() == 130
    assert len(capfd.readouterr().err.splitlines()) == 1


@pytest.mark.slow
def test_a_process_exits_with_the_code_that_shells_expect():
    program = (
        "import signal, sys, test_interruption as ours\n"
        "sys.exit(ours.command(lambda: ours.save_when_asked(signal.SIGTERM))())"
    )
    tests = Path(__file__).resolve().parent
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (tests.parent, tests)))}
    ended = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert ended.returncode == 143
    assert ended.stderr.splitlines() == [
        "SIGTERM: saving what is under way; once more to leave without",
        "stopped by SIGTERM, and saved; the same command goes on",
    ]
