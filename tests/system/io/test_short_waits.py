"""Waits that ask before they sleep, with a clock of the test's own."""

from __future__ import annotations

import pytest

from cexec.system.io import short_waits
from cexec.system.io.short_waits import LEAST_PAUSE, LONG_PAUSE, LONGEST_PAUSE, QUICK, RUN, SPIN, VAIN, ShortWaits

READY = [(7, 1)]
SOON, LATER = SPIN / 4, SPIN * 2  # seconds until the answer comes; both are short waits
ASKED, SLEPT, BOTH = "asked", "slept", "asked, then slept"
SLICE = 0.003  # seconds for which another process keeps the CPU


class Answers:
    """A poll object whose answers come when the test says, and what the waits have done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.taken = 0.000_002  # seconds, of a `sched_yield`
        self._due = self.now
        self._polls: list[int] = []
        self._waits = ShortWaits(self._poll)
        monkeypatch.setattr(short_waits, "monotonic", lambda: self.now)
        monkeypatch.setattr(short_waits, "sched_yield", self._yield)

    def _yield(self) -> None:
        self.now += self.taken

    def _poll(self, milliseconds: int) -> list[tuple[int, int]]:
        self._polls.append(milliseconds)
        limit = self.now + milliseconds / 1000
        self.now = max(self.now, min(limit, self._due))
        return READY if self.now >= self._due else []

    def wait(self, after: float, seconds: float = 1.0) -> str:
        """One wait, whose answer comes after so many seconds; returns what it did."""
        self._due = self.now + after
        self._polls.clear()
        assert self._waits.wait(seconds) == (READY if after <= seconds + 0.001 else [])
        asked, slept = 0 in self._polls, any(self._polls)
        return BOTH if asked and slept else ASKED if asked else SLEPT


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    return Answers(monkeypatch)


def test_a_wait_asks_first_when_the_waits_before_it_were_short(answers: Answers) -> None:
    assert [answers.wait(SOON) for _ in range(RUN + 3)] == [SLEPT] * RUN + [ASKED] * 3


def test_waits_that_are_not_short_sleep_at_once(answers: Answers) -> None:
    """Keys that a person presses cost no CPU time."""
    assert {answers.wait(after) for after in (QUICK, 0.1, 0.5) * RUN} == {SLEPT}
    assert [answers.wait(SOON) for _ in range(RUN)] == [SLEPT] * RUN


def test_a_wait_asks_for_a_moment_only(answers: Answers) -> None:
    for _ in range(RUN):
        answers.wait(SOON)
    began = answers.now
    assert answers.wait(0.5) == BOTH
    assert answers.now - began == pytest.approx(0.5, abs=0.002)
    assert answers.wait(5.0, seconds=0.2) == SLEPT


def test_after_a_pause_in_the_conversation_some_short_waits_sleep_and_ever_more_if_asking_is_in_vain(
    answers: Answers,
) -> None:
    pauses = []
    for _ in range(3):
        slept = 0
        while answers.wait(SOON) == SLEPT:
            slept += 1
        pauses.append(slept)
        assert answers.wait(0.5) == BOTH
    assert pauses == [RUN, LEAST_PAUSE + RUN, LEAST_PAUSE + RUN]  # answers that came at once halve the pause again
    vain = []
    for _ in range(3):
        slept = 0
        while (did := answers.wait(LATER)) == SLEPT:
            slept += 1
        assert did == BOTH
        vain.append(slept)
        for _ in range(VAIN - 1):
            assert answers.wait(LATER) == BOTH
    assert vain[1] > vain[0] and vain[2] - RUN == 2 * (vain[1] - RUN)


def test_after_a_wait_that_does_not_get_the_cpu_back_many_sleep_and_ever_more(answers: Answers) -> None:
    """Beside two busy loops on two CPUs a message took twice as long when each wait asked."""
    for _ in range(RUN):
        answers.wait(SOON)
    pauses = []
    answers.taken = SLICE
    assert answers.wait(SOON) == ASKED
    for _ in range(12):
        slept = 0
        while answers.wait(SOON) == SLEPT:
            slept += 1
        pauses.append(slept - RUN)
    assert pauses[:4] == [LONG_PAUSE, 2 * LONG_PAUSE, 4 * LONG_PAUSE, 8 * LONG_PAUSE]
    assert pauses[-1] == LONGEST_PAUSE


def test_a_wait_that_does_not_get_the_cpu_back_ends_at_its_time(answers: Answers) -> None:
    """Regression: it slept for all its time after it had lost a part of that."""
    for _ in range(RUN):
        answers.wait(SOON)
    answers.taken, began = 0.4, answers.now
    assert answers.wait(5.0, seconds=0.5) == BOTH
    assert answers.now - began == pytest.approx(0.5, abs=0.002)
