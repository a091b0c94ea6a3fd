"""The slots that are reserved for clients, and those that are taken back because another client waits.

Contract: CONFIRM reserves a slot, and a job fills it.  `patience` says how long the others wait for that: a little more
than the client took for its answer to the first flight, which is a round trip and the time that its process needs.
Whoever has not given its job by then is `late`; nothing follows while nobody else waits.  `surplus` names one that is
late for each other client that waits, those that have wasted most first.  The worker takes it back (WITHDRAW), which
leads to `left`, unless the job comes first.  Pure.  docs/placement.md.
"""

from __future__ import annotations

from cexec.protocol.decisions.clients import NOTICED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cexec.protocol.decisions.remembered import RememberedAnnouncement

PATIENCE = 0.1  # seconds (ours) that the others wait for the job of a client that is near and not busy
LATENCY_FACTOR = 1.5  # (ours) times what the client took for its last answer
MOST_LATENCY = 0.5  # seconds (ours) more that a client gets for that, because it may pretend
MOST_OF_WASTEFUL = 0.3  # seconds (ours) likewise, of a client that has wasted a place before
OFTEN = 1.2  # seconds (ours) that a client has wasted, more than once, from which on it gets nothing for that
LEASE_PATIENCE = 0.5  # seconds (ours) for the next job of a lease: `cmap --delay` waits between two jobs


def patience(latency: float, *, leased: bool, wasted: float) -> float:
    """Returns the seconds from CONFIRM for which others wait for a job.

    `latency`: seconds that the client took for its answer to the first flight.  `wasted`: see `clients`.
    """
    wasteful = wasted >= NOTICED
    most = 0.0 if wasted >= OFTEN else MOST_OF_WASTEFUL if wasteful else MOST_LATENCY
    seconds = PATIENCE + min(LATENCY_FACTOR * max(0.0, latency), most)
    return max(seconds, LEASE_PATIENCE) if leased and not wasteful else seconds


class Reservations:
    """Those that are late, and those that are being taken back."""

    __slots__ = ("_late", "_withdrawing")

    def __init__(self) -> None:
        self._late: dict[bytes, RememberedAnnouncement] = {}  # the longest late first
        self._withdrawing: set[bytes] = set()

    def late(self, announcement: RememberedAnnouncement) -> None:
        """Its client has not given a job in time."""
        self._late[announcement.identity] = announcement

    def left(self, identity: bytes) -> bool:
        """The slot is not reserved for it any more; returns True if it was to be taken back."""
        self._late.pop(identity, None)
        withdrawing = identity in self._withdrawing
        self._withdrawing.discard(identity)
        return withdrawing

    def surplus(
        self, waiting: int, rank: Callable[[bytes], int], wanted: Callable[[bytes], bool]
    ) -> RememberedAnnouncement | None:
        """Returns one to be taken back, or None.

        `waiting`: clients that wait.  `rank` of a client, and `wanted`: another client waits that does not go behind
        it.
        """
        if len(self._withdrawing) >= waiting:
            return None
        found = [one for one in self._late.values() if wanted(one.origin.client)]
        if not found:
            return None
        worst = max(found, key=lambda one: rank(one.origin.client))
        del self._late[worst.identity]
        self._withdrawing.add(worst.identity)
        return worst
