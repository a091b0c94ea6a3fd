"""Waits for descriptors that ask before they sleep, where answers come quickly.

Contract: `ShortWaits.wait(seconds)` returns what `poll` does after at most so many seconds, and a millisecond more if
this process has the CPU.  It asks for at most SPIN seconds, and only after RUN short waits in a row, so a wait costs no
CPU time where answers take longer.  docs/performance.md, "A small message".
"""

from __future__ import annotations

from posix import sched_yield  # as in the launchers: a call of `make install` does without `os`
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

SPIN = 0.000_1  # seconds (ours) for which a short wait asks before it sleeps
QUICK = 0.000_3  # seconds (ours): a wait that took less was short, and so the next one may be
RUN = 4  # short waits (ours) in a row, after which the next one asks first
VAIN = 4  # (ours) waits in a row that asked in vain, after which the next ones sleep at once
LEAST_PAUSE = 8  # short waits (ours) that do so; twice as many each time, half of them when asking has helped
LONG_PAUSE = 256  # short waits (ours) that do so after others have needed the CPU
LONGEST_PAUSE = 8192  # (ours): one wait of so many may lose the CPU for a moment on a machine that is always busy


class ShortWaits:
    """The waits of one pump.  `poll` takes milliseconds.

    To fall asleep and be woken takes longer than all else that a short message needs, most of all in a virtual machine,
    and half of its CPU time.  So where answers come quickly, a wait asks again and again for a moment before it sleeps.
    In between it lets others run, because the one that is to answer may need this CPU.  If it does not get the CPU back
    at once, others have work to do, and many waits sleep before one asks again: a process that sleeps is the first to
    be served then.
    """

    __slots__ = ("_pause", "_short", "_vain", "poll")

    def __init__(self, poll: Callable[[int], list[tuple[int, int]]]) -> None:
        self.poll = poll
        self._short = 0  # short waits in a row; below 0, so many more of them must have slept before they count
        self._vain = 0
        self._pause = LEAST_PAUSE

    def wait(self, seconds: float) -> list[tuple[int, int]]:
        """Returns what `poll` does after at most `seconds`."""
        poll, begin = self.poll, monotonic()
        if self._short < RUN:
            ready = poll(int(seconds * 1000) + 1)
            self._short = self._short + 1 if monotonic() - begin < QUICK else min(self._short, 0)
            return ready
        end = now = begin + min(SPIN, seconds)
        while not (ready := poll(0)) and (now := monotonic()) < end:
            sched_yield()
        if ready:
            now = monotonic()
        if now - begin >= QUICK:
            self._rest(LONG_PAUSE)
        elif ready:
            self._vain, self._pause = 0, max(self._pause // 2, LEAST_PAUSE)
        if ready:
            return ready
        ready = poll(int(max(begin + seconds - now, 0.0) * 1000) + 1)
        self._vain += 1
        if self._vain >= VAIN or monotonic() - begin >= QUICK:
            self._rest(LEAST_PAUSE)
        return ready

    def _rest(self, least: int) -> None:
        """Lets the next waits sleep: `least` short ones, or twice as many as the last time."""
        self._pause = max(self._pause, least)
        self._short, self._vain = min(self._short, -self._pause), 0
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
