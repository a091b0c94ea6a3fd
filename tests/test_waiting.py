"""Waits for a condition: as short as it may be, and cheap."""

from __future__ import annotations

import os
import subprocess
import time

import pytest

from tests.waiting import PAUSE, REST, all_asleep, comes_true, wait_until


class Clock:
    """Stands for the clocks: a look costs what the test says, and a pause passes at once."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.used = 0.0
        self.pauses: list[float] = []
        patch.setattr(time, "monotonic", lambda: self.now)
        patch.setattr(time, "thread_time", lambda: self.used)
        patch.setattr(time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def look(self, cost: float, answer: bool) -> bool:
        self.used += cost
        self.now += cost
        return answer


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_what_is_true_is_not_waited_for(clock: Clock) -> None:
    assert comes_true(lambda: clock.look(0.0, True))
    assert clock.pauses == []


def test_a_costly_look_is_taken_less_often(clock: Clock) -> None:
    answers = [False, False, True]
    assert comes_true(lambda: clock.look(0.001, answers.pop(0)))
    assert clock.pauses == [PAUSE, PAUSE]
    clock.pauses.clear()
    answers = [False, False, True]
    assert comes_true(lambda: clock.look(0.1, answers.pop(0)))
    assert clock.pauses == pytest.approx([REST * 0.1] * 2)


def test_patience_ends(clock: Clock) -> None:
    assert not comes_true(lambda: clock.look(0.0, False), patience=1.0)
    assert 1.0 <= clock.now < 1.1
    with pytest.raises(AssertionError, match="it has not come true in 1 s: why"):
        wait_until(lambda: False, 1.0, explain=lambda: "why")


def test_a_process_that_has_ended_is_not_asleep() -> None:
    """Regression: a test that lists processes and then looks at them failed if one of them ended in between."""
    with subprocess.Popen(["true"], stdin=subprocess.DEVNULL) as process:
        pass
    assert not all_asleep(process.pid)
    assert not all_asleep(os.getpid(), process.pid)
