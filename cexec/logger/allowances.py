"""Bounds the CPU time, lines and datagrams that others cost a logger, for each source and in all.

Contract: each `may_...` returns whether something may be done now, and counts it if so.  What is left alone is counted,
too, and `told(now)` returns it every TELLING_INTERVAL, so that no alert is lost silently.  `fresh` is True for an alert
that was made just now by the clocks of both sides.  Anybody can send a recorded alert again, to a logger that does not
know it yet, so those that are not fresh have smaller allowances.  They are not refused: a board without a clock is a
worker, too.  An *author* is a certificate; the one that all clients share is told apart by address.  Memory is bounded.
docs/protocol.md section 5.2.
"""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING, NamedTuple

from cexec.protocol.base.keys import DEFAULT_CLIENT_NAME
from cexec.protocol.base.source_rates import SourceRates

if TYPE_CHECKING:
    from collections.abc import Hashable

    from cexec.protocol.datagrams.alert import Alert

FRESH_FOR = 600.0  # seconds (ours) between the clock in an alert and ours
TELLING_INTERVAL = 10.0  # seconds (ours) between two accounts of what was left alone
MAXIMUM_NAMES = 256  # (ours) in one of them; the others are told together
OTHERS = "others"


class Rates(NamedTuple):
    """Holds the limits of one source and of all sources, each as (a second, at once)."""

    each: tuple[float, float]
    total: tuple[float, float]


OPENING = Rates((0.4, 4.0), (0.8, 8.0))  # seconds (ours) of CPU time; an alert takes 0.0003
LINES = Rates((500.0, 20_000.0), (2500.0, 100_000.0))  # (ours)
OLD_LINES = Rates((5.0, 500.0), (20.0, 2000.0))  # (ours) about alerts that are not fresh
REPEATED = Rates((10.0, 200.0), (100.0, 2000.0))  # (ours) acknowledgements of copies
UNKNOWN = Rates((1 / 60, 5.0), (0.5, 30.0))  # lines (ours) about unknown keys

TOO_FAST = "they come too fast"
NOT_FRESH = "they are old, or its clock is wrong"
UNKNOWN_KEYS = "unknown keys"


class LeftAlone(NamedTuple):
    """So many alerts were not written.  `name` is of their author; "" if they were not read either."""

    alerts: int
    name: str
    reason: str


class Allowances:
    """Those of one logger."""

    def __init__(self, now: float) -> None:
        self._opening = SourceRates(*OPENING, now)
        self._lines = SourceRates(*LINES, now)
        self._old_lines = SourceRates(*OLD_LINES, now)
        self._repeated = SourceRates(*REPEATED, now)
        self._unknown = SourceRates(*UNKNOWN, now)
        self._left_alone: dict[tuple[str, str], int] = {}  # by author and reason
        self._tell_at: float | None = None

    def may_open(self, host: str, now: float) -> bool:
        """Whether an alert from this host may be opened; `opened` says what that took."""
        if self._opening.left(host, now):
            return True
        self.leave_alone("", TOO_FAST, now)
        return False

    def opened(self, host: str, seconds: float, now: float) -> None:
        self._opening.spend(host, seconds, now)

    def may_write(self, told: Alert, host: str, now: float) -> bool:
        """Whether there may be a line about this alert."""
        author = _author(told, host)
        if not fresh(told) and not self._old_lines.take(author, now):
            reason = NOT_FRESH
        elif not self._lines.take(author, now):
            reason = TOO_FAST
        else:
            return True
        self.leave_alone(told.certificate.name, reason, now)
        return False

    def may_repeat(self, host: str, now: float) -> bool:
        """Whether a copy may be acknowledged, or an alert whose source may be invented."""
        return self._repeated.take(host, now)

    def may_tell_unknown(self, host: str, now: float) -> bool:
        """Whether there may be a line about an unknown key."""
        if self._unknown.take(host, now):
            return True
        self.leave_alone(UNKNOWN_KEYS, TOO_FAST, now)
        return False

    def leave_alone(self, name: str, reason: str, now: float, count: int = 1) -> None:
        """Counts what is not written."""
        key = (name, reason)
        if key not in self._left_alone and len(self._left_alone) >= MAXIMUM_NAMES:
            key = (OTHERS, reason)
        self._left_alone[key] = self._left_alone.get(key, 0) + count
        if self._tell_at is None:
            self._tell_at = now + TELLING_INTERVAL

    def told(self, now: float) -> list[LeftAlone]:
        """Returns what was left alone, if it is time to tell it."""
        if self._tell_at is None or now < self._tell_at:
            return []
        self._tell_at = None
        left_alone, self._left_alone = self._left_alone, {}
        return [LeftAlone(count, name, reason) for (name, reason), count in left_alone.items()]

    def next_timeout(self) -> float | None:
        return self._tell_at


def fresh(told: Alert) -> bool:
    """Returns True if an alert was made just now, as far as clocks tell."""
    return abs(time() - told.clock / 1000) < FRESH_FOR


def _author(told: Alert, host: str) -> Hashable:
    certificate = told.certificate
    return certificate.public_key, host if certificate.name == DEFAULT_CLIENT_NAME else ""
