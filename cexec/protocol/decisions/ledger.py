"""A logger's account of the numbers that workers give to their jobs: which have come, and which never will.

Contract: `heard` returns True if a number is news.  `gaps(now)` returns runs of numbers that are missing for good:
those that did not come for PATIENCE after a higher one, and are not of running jobs.  Numbers below the first one that
was heard are news once, too, and no gaps: nobody listened then.

Memory is bounded, whatever numbers a worker makes up: what is missing is kept as *holes* between two numbers.  A series
that has too many of them gives up the oldest one, and so does a ledger.  What is given up early is a gap of the next
call of `gaps`, so nothing is lost silently.  Pure.  docs/protocol.md section 5.2.
"""

from __future__ import annotations

from bisect import bisect_right
from math import inf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

PATIENCE = 60.0  # seconds (ours) after which a number that has not come is missing: longer than all copies take
MAXIMUM_SERIES = 4096  # (ours) that a ledger follows
MAXIMUM_HOLES = 2048  # (ours) of one series
MAXIMUM_HOLES_IN_ALL = 16_384  # (ours) about 4 MB


class Gap:
    """Numbers from `first` to `last` of a worker's jobs never came."""

    __slots__ = ("first", "last", "series", "worker")

    def __init__(self, series: bytes, worker: str, first: int, last: int) -> None:
        self.series = series
        self.worker = worker
        self.first = first
        self.last = last


class _Hole:
    """Numbers that have not come.  They are given up at `due`, or never if they are older than our account."""

    __slots__ = ("due", "first", "last")

    def __init__(self, first: int, last: int, due: float) -> None:
        self.first = first
        self.last = last
        self.due = due


class _Series:
    """All numbers up to `highest` have come or were given up, except for those in the holes, which are in order."""

    __slots__ = ("highest", "holes", "running", "worker")

    def __init__(self, first: int, running: Sequence[int] | None, worker: str) -> None:
        self.highest = first
        self.holes = [_Hole(1, first - 1, inf)] if first > 1 else []
        self.running = running
        self.worker = worker

    def find(self, number: int) -> int | None:
        """Returns the index of the hole that a number is in."""
        index = bisect_right(self.holes, number, key=lambda hole: hole.first) - 1
        return index if index >= 0 and number <= self.holes[index].last else None


class Ledger:
    """The numbers of each series that one logger has heard."""

    def __init__(self) -> None:
        self._series: dict[bytes, _Series] = {}  # the one that was heard last is the last
        self._holes = 0  # in all
        self._given_up: list[Gap] = []
        self._due = inf  # not later than the first hole

    def knows(self, series: bytes, sequence: int) -> bool:
        """Returns True if `heard` would say that this number is no news."""
        known = self._series.get(series)
        return known is not None and sequence <= known.highest and known.find(sequence) is None

    def heard(self, series: bytes, sequence: int, running: Sequence[int] | None, worker: str, now: float) -> bool:
        """Returns True if this number is new."""
        known = self._series.pop(series, None)
        if known is None:
            self._begin(series, sequence, running, worker)
            return True
        self._series[series] = known
        if sequence > known.highest:
            if sequence > known.highest + 1:
                self._add(series, known, _Hole(known.highest + 1, sequence - 1, now + PATIENCE))
            known.highest, known.running, known.worker = sequence, running, worker
            return True
        index = known.find(sequence)
        if index is None:
            return False
        self._fill(series, known, index, sequence)
        return True

    def gaps(self, now: float) -> list[Gap]:
        """Returns the numbers that were given up since the last call, as runs."""
        if now >= self._due:
            self._due = inf
            for series, known in self._series.items():
                if known.holes:
                    self._look(series, known, now)
        given_up, self._given_up = self._given_up, []
        return given_up

    def next_timeout(self) -> float | None:
        """Returns when a missing number may be given up."""
        return None if self._due == inf else self._due

    def _begin(self, series: bytes, first: int, running: Sequence[int] | None, worker: str) -> None:
        if len(self._series) >= MAXIMUM_SERIES:
            oldest = next(iter(self._series))
            forgotten = self._series.pop(oldest)
            self._holes -= len(forgotten.holes)
            for hole in forgotten.holes:
                self._give_up(oldest, forgotten, hole)
        known = self._series[series] = _Series(first, running, worker)
        self._holes += len(known.holes)

    def _add(self, series: bytes, known: _Series, hole: _Hole) -> None:
        """Adds a hole above all others."""
        known.holes.append(hole)
        self._holes += 1
        self._due = min(self._due, hole.due)
        self._make_room(series, known)

    def _fill(self, series: bytes, known: _Series, index: int, number: int) -> None:
        hole = known.holes[index]
        parts = [_Hole(first, last, hole.due) for first, last in _without(hole, [number])]
        known.holes[index : index + 1] = parts
        self._holes += len(parts) - 1
        self._make_room(series, known)

    def _make_room(self, series: bytes, known: _Series) -> None:
        """Gives the lowest holes up while there are too many."""
        while len(known.holes) > MAXIMUM_HOLES:
            self._drop_first(series, known)
        while self._holes > MAXIMUM_HOLES_IN_ALL:
            self._drop_first(*max(self._series.items(), key=lambda one: len(one[1].holes)))

    def _drop_first(self, series: bytes, known: _Series) -> None:
        self._holes -= 1
        self._give_up(series, known, known.holes.pop(0))

    def _look(self, series: bytes, known: _Series, now: float) -> None:
        """Gives up what is due.  Numbers of running jobs are looked at again later."""
        left: list[_Hole] = []
        for hole in known.holes:
            if hole.due > now:
                left.append(hole)
                continue
            if known.running is None:  # which jobs run is too much to be told
                left.append(_Hole(hole.first, hole.last, now + PATIENCE))
                continue
            running = sorted(number for number in set(known.running) if hole.first <= number <= hole.last)
            for first, last in _without(hole, running):
                self._give_up(series, known, _Hole(first, last, now))
            left += [_Hole(number, number, now + PATIENCE) for number in running]
        self._holes += len(left) - len(known.holes)
        known.holes = left
        self._due = min([self._due, *(hole.due for hole in left)])

    def _give_up(self, series: bytes, known: _Series, hole: _Hole) -> None:
        if hole.due == inf:
            return
        last = self._given_up[-1] if self._given_up else None
        if last is not None and last.series == series and last.last == hole.first - 1:
            last.last = hole.last
        else:
            self._given_up.append(Gap(series, known.worker, hole.first, hole.last))


def _without(hole: _Hole, numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Returns the runs that are left of a hole without these numbers of it, which are in order."""
    runs: list[tuple[int, int]] = []
    first = hole.first
    for number in numbers:
        if number > first:
            runs.append((first, number - 1))
        first = number + 1
    return [*runs, (first, hole.last)] if first <= hole.last else runs
