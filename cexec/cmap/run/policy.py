"""The rules that a user sets: when to stop, how long a task may take, how fast and where tasks are started.

Contract: values and pure functions; what is on the command line becomes one of these or a `UsageError`.  Exit statuses
are those of GNU parallel.
"""

from __future__ import annotations

import math
import re
from collections import deque
from heapq import heappush, heappushpop

from cexec.cmap.inputs.notation import parse_duration, parse_percent, parse_whole
from cexec.errors import UsageError
from cexec.protocol.connection import options

NOW, SOON = "now", "soon"
FAIL, SUCCESS, DONE = "fail", "success", "done"
EXIT_MANY_FAILED = 101  # (GNU parallel) more than 100
EXIT_NO_WORKER = 111  # (ours) nobody took the tasks
EXIT_OTHER = 255  # (GNU parallel)
_HALT = re.compile(r"(now|soon),(fail|success|done)=(\d{1,9}%?)", re.ASCII)
_SLOTS = re.compile(r"([+-]?)(\d{1,6})", re.ASCII)
_RATE = re.compile(r"(\d{1,6})(?:/([smhd]))?", re.ASCII)
_PERIODS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}  # seconds
KILL = 9  # the worker ignores it, as every signal that the protocol does not name; the attempt is given up after it
_SIGNALS = {
    "HUP": options.HANGUP,
    "INT": options.INTERRUPT,
    "QUIT": options.QUIT,
    "KILL": KILL,
    "USR1": options.USER_1,
    "USR2": options.USER_2,
    "TERM": options.TERMINATE,
}
DEFAULT_TERM_SEQ = "TERM,200,TERM,100,TERM,50,KILL,25"  # (GNU parallel)


class Halt:
    """--halt: `fraction` of all tasks, or `count` of them.  `never` is None, not a `Halt`."""

    __slots__ = ("count", "fraction", "what", "when")

    def __init__(self, when: str, what: str, count: int = 0, fraction: float | None = None) -> None:
        self.when = when
        self.what = what
        self.count = count
        self.fraction = fraction

    def reached(self, succeeded: int, failed: int, total: int | None) -> bool:
        counted = {FAIL: failed, SUCCESS: succeeded, DONE: succeeded + failed}[self.what]
        if self.fraction is None:
            return counted >= self.count
        return counted > 0 and counted >= self.fraction * (total or 0)


def parse_halt(text: str) -> Halt | None:
    """`now,fail=1`, `soon,success=10%`, `never`."""
    if text == "never":
        return None
    match = _HALT.fullmatch(text)
    fraction = parse_percent(match[3]) if match else None
    if match is None or (fraction is None and not int(match[3])):
        raise UsageError(f"--halt is {text!r}, but must be never, or such as now,fail=1 or soon,done=50%")
    return Halt(match[1], match[2], int(match[3]) if fraction is None else 0, fraction)


def exit_status(
    *, succeeded: int, failed: int, total: int | None = None, halt: Halt | None = None, last: int | None = None
) -> int:
    """What cmap exits with when it has found workers.

    `last` is the exit status of the task with which --halt was reached, None if it was not.
    """
    if halt is not None:
        if last is not None and halt.what == SUCCESS:
            return 0
        if halt.fraction is not None:
            return math.ceil(100 * failed / total) if total else 0
        if last is not None and halt.count == 1:
            return last
    return min(failed, EXIT_MANY_FAILED)


class TimeLimit:
    """--timeout: `seconds`, or `fraction` of the median of the tasks that succeeded."""

    __slots__ = ("fraction", "seconds")

    def __init__(self, seconds: float | None = None, fraction: float | None = None) -> None:
        self.seconds = seconds
        self.fraction = fraction

    def of(self, median: float | None) -> float | None:
        """In seconds; None: no limit, or none yet."""
        if self.fraction is None:
            return self.seconds
        return None if median is None else self.fraction * median


def parse_timeout(text: str) -> TimeLimit:
    """`10`, `1m30s` or `200%`."""
    fraction = parse_percent(text)
    limit = TimeLimit(fraction=fraction) if fraction is not None else TimeLimit(parse_duration(text, "--timeout"))
    if not (limit.fraction or limit.seconds):
        raise UsageError(f"--timeout is {text!r}, but must be more than 0")
    return limit


class Median:
    """Of what has been added, once there are enough values; each costs the logarithm of their number."""

    ENOUGH = 3  # (ours) values before the median is believed

    def __init__(self) -> None:
        self._lower: list[float] = []  # negative: the greatest comes first
        self._upper: list[float] = []

    def add(self, value: float) -> None:
        if len(self._lower) > len(self._upper):
            heappush(self._upper, -heappushpop(self._lower, -value))
        else:
            heappush(self._lower, -heappushpop(self._upper, value))

    @property
    def value(self) -> float | None:
        if len(self._lower) + len(self._upper) < self.ENOUGH:
            return None
        if len(self._lower) > len(self._upper):
            return -self._lower[0]
        return (self._upper[0] - self._lower[0]) / 2


class Pace:
    """--delay between any two starts and --rate, which allows `count` starts in any `period`; seconds."""

    def __init__(self, delay: float = 0.0, count: int = 0, period: float = 1.0) -> None:
        self._delay = delay
        self._period = period
        self._starts: deque[float] = deque(maxlen=max(1, count))
        self._limited = count > 0

    def next_start(self) -> float:
        """The earliest time of the next start."""
        if not self._starts:
            return -math.inf
        earliest = self._starts[-1] + self._delay
        if self._limited and len(self._starts) == self._starts.maxlen:
            earliest = max(earliest, self._starts[0] + self._period)
        return earliest

    def started(self, now: float) -> None:
        self._starts.append(now)


def parse_pace(delay: str, rate: str) -> Pace:
    """`0.5` and `100`, `600/m`, `10/h`; empty: none."""
    match = _RATE.fullmatch(rate or "0")
    count = int(match[1]) if match else 0
    if rate and not count:
        raise UsageError(f"--rate is {rate!r}, but must be such as 100 or 600/m")
    period = _PERIODS[match[2] or "s"] if match else 1.0
    return Pace(parse_duration(delay, "--delay") if delay else 0.0, count, period)


class Placement:
    """-j: how many tasks a worker gets at once, never more than it has slots.  As in parallel: `4`, `50%`, `+0`, `-1`.

    Nothing and `0` (in parallel: as many as possible) are all slots: their number is for the worker's owner to set.
    """

    def __init__(self, text: str = "") -> None:
        self._fraction = parse_percent(text)
        match = _SLOTS.fullmatch(text or "0")
        if match is None and self._fraction is None:
            raise UsageError(f"-j is {text!r}, but must be such as 4, 50%, or -1 for all slots but one")
        self._sign, self._number = (match[1], int(match[2])) if match else ("", 0)

    def limit(self, slots: int) -> int:
        """For a worker with so many slots."""
        if self._fraction is not None:
            wanted = round(slots * self._fraction)
        elif self._sign:
            wanted = slots - self._number if self._sign == "-" else slots
        else:
            wanted = self._number or slots
        return max(1, min(wanted, slots))


def parse_term_seq(text: str) -> list[tuple[int, float]]:
    """`TERM,200,KILL,25`: signals, and how many seconds each may take to have an effect."""
    words = text.split(",")
    steps = []
    for name, wait in zip(words[::2], words[1::2], strict=False):
        number = _SIGNALS.get(name.removeprefix("SIG"))
        if number is None:
            raise UsageError(f"--term-seq {text}: {name!r} is none of {', '.join(_SIGNALS)}")
        steps.append((number, parse_whole(wait, f"--term-seq {text}: wait in ms") / 1000))
    if not steps or len(words) % 2:
        raise UsageError(f"--term-seq is {text!r}, but must be such as {DEFAULT_TERM_SEQ}")
    return steps


class Policy:
    """All rules of one call.

    `retries`: how often a task is tried in all, as in GNU parallel.  `crash_limit`: how many of its workers a task may
    take with it (0: any number).  `speculate`: a task may run this many times as long as the median before an idle
    worker tries it too (0: never).
    """

    __slots__ = ("crash_limit", "halt", "pace", "placement", "retries", "speculate", "timeout")

    def __init__(
        self,
        *,
        retries: int = 1,
        crash_limit: int = 5,
        speculate: float = 0.0,
        halt: Halt | None = None,
        timeout: TimeLimit | None = None,
        pace: Pace | None = None,
        placement: Placement | None = None,
    ) -> None:
        self.retries = retries
        self.crash_limit = crash_limit
        self.speculate = speculate
        self.halt = halt
        self.timeout = timeout or TimeLimit()
        self.pace = pace or Pace()
        self.placement = placement or Placement()
