"""Alerts that arrive: the worker's outbox, and the logger's ledger.

Contract: pure machines.  An `Outbox` says when to send which datagram again, until a logger has acknowledged it or it
has been sent often enough.  A `Ledger` tells news from copies, and names the numbers that never came: `heard` returns
whether an alert is news, `gaps(now)` the runs of numbers that are missing for good.  docs/protocol.md section 5.2.
"""

from __future__ import annotations

from heapq import heappop, heappush

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

FIRST_INTERVAL = 0.5  # seconds (ours) between the first and the second copy, then twice as long each time
TRANSMISSIONS = 5  # (protocol) while nobody has ever acknowledged
TRANSMISSIONS_TO_LOGGERS = 9  # (ours) when there is a logger
MANY_WAITING = 64  # alerts (ours): with more of them, and no sign of a logger, one copy of each has to do
LONGEST_INTERVAL = 8.0  # seconds (ours)
MAXIMUM_WAITING = 4096  # alerts (ours) that wait for an acknowledgement; the oldest goes
PATIENCE = 60.0  # seconds (ours) after which a number that has not come is missing: longer than all copies take
MAXIMUM_SERIES = 4096  # (ours) that a ledger follows
MAXIMUM_EARLY = 65536  # numbers (ours) beyond a hole, for each series


class Outbox:
    """The alerts of one worker that are still to be sent (again).

    Where many short jobs end and nobody has ever acknowledged, copies would be most of the work.  There a logger hears
    enough first copies to acknowledge one, and then gets more of all that wait.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[float, float, int, bytes]] = {}  # due, interval, copies sent, datagram
        self._timers: list[tuple[float, int]] = []  # due, and of what; one for each that waits, and some that did
        self._loggers = False

    def add(self, sequence: int, data: bytes, now: float) -> None:
        if len(self._waiting) >= MAXIMUM_WAITING:
            del self._waiting[next(iter(self._waiting))]
        self._arm(sequence, now, FIRST_INTERVAL, 0, data)

    def acknowledged(self, sequences: Sequence[int]) -> None:
        """A logger has these."""
        self._loggers = True
        for sequence in sequences:
            self._waiting.pop(sequence, None)

    def next_timeout(self) -> float | None:
        while self._timers and not self._valid(*self._timers[0]):
            heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def due(self, now: float) -> list[tuple[bytes, int]]:
        """Returns the datagrams to be sent now, with the number of earlier copies of each."""
        result: list[tuple[bytes, int]] = []
        limit = TRANSMISSIONS_TO_LOGGERS if self._loggers else TRANSMISSIONS
        sparing = not self._loggers and len(self._waiting) > MANY_WAITING
        while (due := self.next_timeout()) is not None and due <= now:
            _, sequence = heappop(self._timers)
            _, interval, copies, data = self._waiting.pop(sequence)
            if not copies or not sparing:
                result.append((data, copies))
            if copies + 1 < limit:
                self._arm(sequence, now + interval, min(2 * interval, LONGEST_INTERVAL), copies + 1, data)
        return result

    def _arm(self, sequence: int, due: float, interval: float, copies: int, data: bytes) -> None:
        self._waiting[sequence] = (due, interval, copies, data)
        heappush(self._timers, (due, sequence))

    def _valid(self, due: float, sequence: int) -> bool:
        return sequence in self._waiting and self._waiting[sequence][0] == due

    @property
    def empty(self) -> bool:
        return not self._waiting


class Gap:
    """Numbers from `first` to `last` of a worker's jobs never came."""

    __slots__ = ("first", "last", "series", "worker")

    def __init__(self, series: bytes, worker: str, first: int, last: int) -> None:
        self.series = series
        self.worker = worker
        self.first = first
        self.last = last


class _Series:
    __slots__ = ("before", "early", "missing_since", "next", "running", "start", "worker")

    def __init__(self, sequence: int, worker: str) -> None:
        self.start = sequence
        self.next = sequence  # all from the start to here have come or were given up
        self.before: set[int] = set()  # of jobs that ran when we began to listen
        self.early: set[int] = set()
        self.running: Sequence[int] | None = ()
        self.worker = worker
        self.missing_since: dict[int, float] = {}


class Ledger:
    """The numbers of each series that one logger has heard."""

    def __init__(self) -> None:
        self._series: dict[bytes, _Series] = {}

    def heard(self, series: bytes, sequence: int, running: Sequence[int] | None, worker: str, now: float) -> bool:
        """Returns True if this number is new.  Numbers below the first one that was heard count as new for a while."""
        known = self._series.get(series)
        if known is None:
            if len(self._series) >= MAXIMUM_SERIES:
                del self._series[next(iter(self._series))]
            known = self._series[series] = _Series(sequence, worker)
        if sequence < known.start:
            if sequence in known.before or len(known.before) >= MAXIMUM_EARLY:
                return False
            known.before.add(sequence)
            return True
        if sequence < known.next or sequence in known.early or len(known.early) >= MAXIMUM_EARLY:
            return False
        highest = max(known.early, default=known.next - 1)
        known.early.add(sequence)
        if sequence > highest:
            known.running = running
            for missing in range(max(highest + 1, sequence - MAXIMUM_EARLY), sequence):
                known.missing_since[missing] = now
        known.missing_since.pop(sequence, None)
        self._advance(known)
        return True

    def gaps(self, now: float) -> list[Gap]:
        """Returns the numbers that were given up since the last call, as runs."""
        found: list[Gap] = []
        for series, known in self._series.items():
            if known.running is None:
                continue
            lost = sorted(
                number
                for number, since in known.missing_since.items()
                if now - since >= PATIENCE and number not in known.running
            )
            for number in lost:
                del known.missing_since[number]
                known.early.add(number)
                if found and found[-1].series == series and found[-1].last == number - 1:
                    found[-1].last = number
                else:
                    found.append(Gap(series, known.worker, number, number))
            self._advance(known)
        return found

    def next_timeout(self) -> float | None:
        """Returns when a missing number may be given up."""
        times = [since + PATIENCE for known in self._series.values() for since in known.missing_since.values()]
        return min(times, default=None)

    def _advance(self, known: _Series) -> None:
        while known.next in known.early:
            known.early.discard(known.next)
            known.next += 1
