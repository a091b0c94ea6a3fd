"""The rules that a user sets: when to stop, how long a task may take, how fast and where tasks are started.

Contract: values and pure functions; what is on the command line becomes one of these or a `UsageError`.  Exit statuses
are those of GNU parallel.
"""

from __future__ import annotations

import math
import re
from collections import deque
from dataclasses import dataclass, field
from heapq import heappush, heappushpop

from cexec.cmap.inputs.notation import parse_percent
from cexec.errors import UsageError
from cexec.protocol.connection import options
from cexec.system.units import parse_duration, parse_whole

NOW, SOON = "now", "soon"
FAIL, SUCCESS, DONE = "fail", "success", "done"
EXIT_MANY_FAILED = 101  # (GNU parallel) more than 100
EXIT_NO_WORKER = 111  # (ours) no worker took the tasks
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


@dataclass(slots=True, frozen=True)
class Halt:
    """--halt: `fraction` of all tasks, or `count` of them.  `never` is None, not a `Halt`."""

    when: str
    what: str
    count: int = 0
    fraction: float | None = None
    text: str = ""  # as the user wrote it

    def reached(self, succeeded: int, failed: int, total: int | None) -> bool:
        counted = {FAIL: failed, SUCCESS: succeeded, DONE: succeeded + failed}[self.what]
        if self.fraction is None:
            return counted >= self.count
        return counted > 0 and counted >= self.fraction * (total or 0)


def parse_halt(text: str, option: str = "--halt") -> Halt | None:
    """Reads `now,fail=1`, `soon,success=10%` or `never`."""
    if text == "never":
        return None
    match = _HALT.fullmatch(text)
    fraction = parse_percent(match[3]) if match else None
    if match is None or (fraction is None and not int(match[3])):
        raise UsageError(f"{option} is {text!r}, but must be never, or such as now,fail=1 or soon,done=50%")
    return Halt(match[1], match[2], int(match[3]) if fraction is None else 0, fraction, text)


def exit_status(
    *, succeeded: int, failed: int, total: int | None = None, halt: Halt | None = None, last: int | None = None
) -> int:
    """Returns what cmap exits with when it has found workers.

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


@dataclass(slots=True, frozen=True)
class TimeLimit:
    """--timeout: `seconds`, or `fraction` of the median of the tasks that succeeded."""

    seconds: float | None = None
    fraction: float | None = None

    def of(self, median: float | None) -> float | None:
        """Returns the limit in seconds; None if there is no limit, or not yet."""
        if self.fraction is None:
            return self.seconds
        return None if median is None else self.fraction * median


def parse_timeout(text: str, option: str = "--timeout") -> TimeLimit:
    """Reads `10`, `1m30s` or `200%`."""
    fraction = parse_percent(text)
    limit = TimeLimit(fraction=fraction) if fraction is not None else TimeLimit(parse_duration(text, option))
    if not (limit.fraction or limit.seconds):
        raise UsageError(f"{option} is {text!r}, but must be more than 0")
    return limit


NO_LIMIT = TimeLimit()


class Median:
    """The median of what has been added, once there are enough values; each costs the logarithm of their number."""

    ENOUGH = 3  # (ours) values before the median is believed

    def __init__(self) -> None:
        self._lower: list[float] = []  # negative: the greatest comes first
        self._upper: list[float] = []
        self.value: float | None = None  # None as long as there are too few

    def add(self, value: float) -> None:
        if len(self._lower) > len(self._upper):
            heappush(self._upper, -heappushpop(self._lower, -value))
        else:
            heappush(self._lower, -heappushpop(self._upper, value))
        lower, upper = len(self._lower), len(self._upper)
        if lower + upper >= self.ENOUGH:
            self.value = -self._lower[0] if lower > upper else (self._upper[0] - self._lower[0]) / 2


@dataclass(slots=True, frozen=True)
class Rate:
    """--rate: `count` starts in any `period`, in seconds."""

    count: int
    period: float = 1.0


def parse_rate(text: str, option: str = "--rate") -> Rate:
    """Reads `100`, `600/m` or `10/h`."""
    match = _RATE.fullmatch(text)
    if match is None or not int(match[1]):
        raise UsageError(f"{option} is {text!r}, but must be such as 100 or 600/m")
    return Rate(int(match[1]), _PERIODS[match[2] or "s"])


class Pace:
    """--delay between any two starts, in seconds, and --rate."""

    def __init__(self, delay: float = 0.0, rate: Rate | None = None) -> None:
        self._delay = delay
        self._rate = rate
        self._starts: deque[float] = deque(maxlen=1 if rate is None else rate.count)

    @property
    def slows(self) -> bool:
        """True if there is anything to wait for."""
        return bool(self._delay or self._rate)

    def next_start(self) -> float:
        """Returns the earliest time of the next start."""
        if not self._starts:
            return -math.inf
        earliest = self._starts[-1] + self._delay
        if self._rate is not None and len(self._starts) == self._starts.maxlen:
            earliest = max(earliest, self._starts[0] + self._rate.period)
        return earliest

    def started(self, now: float) -> None:
        self._starts.append(now)


@dataclass(slots=True, frozen=True)
class Placement:
    """-j: how many tasks a worker gets at once, never more than it has slots.

    `fraction` of the slots, or `count` of them; a count below 0 is that of the slots that stay free.  0, in GNU
    parallel as many as possible, is all slots: their number is for the worker's owner to set.
    """

    count: int = 0
    fraction: float | None = None

    def limit(self, slots: int) -> int:
        """Returns the limit for a worker with so many slots."""
        if self.fraction is not None:
            wanted = round(slots * self.fraction)
        elif self.count <= 0:
            wanted = slots + self.count
        else:
            wanted = self.count
        return max(1, min(wanted, slots))


ALL_SLOTS = Placement()


def parse_placement(text: str, option: str = "-j") -> Placement:
    """Reads `4`, `50%`, `-1` or, as GNU parallel has it, `+0`, which is all slots."""
    fraction, match = parse_percent(text), _SLOTS.fullmatch(text)
    if fraction is not None:
        return Placement(fraction=fraction)
    if match is None:
        raise UsageError(f"{option} is {text!r}, but must be such as 4, 50%, or -1 for all slots but one")
    return Placement(0 if match[1] == "+" else int(text))


def parse_term_seq(text: str, option: str = "--term-seq") -> list[tuple[int, float]]:
    """Reads `TERM,200,KILL,25`; returns signals, and how many seconds each may take to have an effect."""
    words = text.split(",")
    steps = []
    for name, wait in zip(words[::2], words[1::2], strict=False):
        number = _SIGNALS.get(name.removeprefix("SIG"))
        if number is None:
            raise UsageError(f"{option} {text}: {name!r} is none of {', '.join(_SIGNALS)}")
        steps.append((number, parse_whole(wait, f"{option} {text}: wait in ms") / 1000))
    if not steps or len(words) % 2:
        raise UsageError(f"{option} is {text!r}, but must be such as {DEFAULT_TERM_SEQ}")
    return steps


@dataclass(slots=True, kw_only=True)
class Policy:
    """All rules of one call.

    `retries`: how often a task is tried in all, as in GNU parallel.  `crash_limit`: how many of its workers a task may
    take with it (0: any number).  `speculate`: a task may run this many times as long as the median before an idle
    worker tries it too (0: never).
    """

    retries: int = 1
    crash_limit: int = 5
    speculate: float = 0.0
    halt: Halt | None = None
    timeout: TimeLimit = NO_LIMIT
    pace: Pace = field(default_factory=Pace)
    placement: Placement = ALL_SLOTS
