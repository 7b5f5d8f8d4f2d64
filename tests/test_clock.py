"""The clock of work: what counts, and what does not. Under a clock of the wall that is moved by hand."""

import threading

import pytest

from eigen_jax.clock import WorkClock


class Wall:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def watched(wall: Wall, **rest) -> tuple[WorkClock, "threading.Event"]:
    """A clock that is being watched, and an event that is set at each of its looks."""
    looked = threading.Event()

    def is_held() -> bool:
        looked.set()
        return False

    return WorkClock(now=wall, is_held=is_held, **rest), looked


def passes(wall: Wall, looked: threading.Event, *seconds: float) -> None:
    """So many seconds pass, with a look after each time."""
    for each in seconds:
        wall.now += each
        looked.clear()
        assert looked.wait(60)
        looked.clear()
        assert looked.wait(60)  # so that one look lies wholly behind


def test_a_clock_that_nobody_watches_counts_all_but_its_pauses():
    clock = WorkClock(now=(wall := Wall()))
    wall.now += 500
    assert clock() == 500
    with clock.paused():
        wall.now += 50
        assert clock() == 500
    wall.now += 3
    assert clock() == 503


def test_of_a_stop_a_second_counts_and_of_work_everything():
    clock, looked = watched(wall := Wall())
    wall.now += 7
    with clock:
        passes(wall, looked, 0.5, 0.9, 0.25)
        assert clock() == pytest.approx(8.65)
        passes(wall, looked, 3_600, 0.5)  # as after SIGSTOP and SIGCONT: no look for an hour
        assert clock() == pytest.approx(10.15)


def test_a_process_that_is_to_hold_still_does_and_its_time_does_not_count():
    held = threading.Event()
    held.set()
    clock = WorkClock(now=(wall := Wall()), is_held=held.is_set)
    went_on = threading.Event()
    with clock:
        while not clock.held:
            pass

        def wait() -> None:
            clock.wait_while_held()
            went_on.set()

        waiting = threading.Thread(target=wait)
        waiting.start()
        wall.now += 0.75
        assert not went_on.wait(0.3)
        assert clock() == 0
        held.clear()
        assert went_on.wait(60)
        waiting.join()
        wall.now += 0.5
        assert clock() == 0.5


def test_the_alarm_is_given_once_at_the_seconds_of_work_that_were_asked_for():
    given: list[float] = []
    clock, looked = watched(wall := Wall(), alarm_at=2.0, alarm=given.append)
    with clock:
        passes(wall, looked, 0.75, 900)  # 1.75 s of work
        assert given == []
        with clock.paused():
            passes(wall, looked, 0.75)
        assert given == []
        passes(wall, looked, 0.75, 0.75)
    assert given == [2.5]
