"""A worker's alerts on their way: which are to be sent again, and when.

Contract: a pure machine.  An `Outbox` says when to send which datagram again, until a logger has acknowledged it or it
has been sent often enough.  docs/protocol.md section 5.2.
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
        timers = self._timers
        while timers and timers[0][0] <= now:
            timer = heappop(timers)
            if not self._valid(*timer):
                continue
            sequence = timer[1]
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
