"""Which jobs hear that another client waits for their slot.

Contract: `began` and `ended` follow the jobs that run.  Some of them `hear`: their clients give the slot back before
the job would end by itself, if they are told that it is wanted.  `choose` names those that are to be told, each job at
most once: one for each announcement that has waited for WAITED seconds and may get the slot.  It is to be called at
`next_look`, while no slot is free and clients wait that have proved themselves.  A job that has been told counts for
PATIENCE seconds as one that gives its slot back; then another one is told for the same announcement.  Memory is bounded
by the slots.  Pure.  docs/placement.md and docs/protocol.md section 4.4.
"""

from __future__ import annotations

from collections import Counter
from math import inf

from cexec.protocol.decisions.remembered import STILL_HEARD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cexec.protocol.decisions.clients import ClientAccounts
    from cexec.protocol.decisions.remembered import Origin, RememberedAnnouncement

WAITED = 0.5  # seconds (ours) after which no other worker has taken the job: most races are over long before
PATIENCE = 2.0  # seconds (ours) for a client to give its slot back, until another job is told, too
LOOK_INTERVAL = 0.25  # seconds (ours) between two looks at those that wait


class WantedSlots:
    """The jobs that run on one worker, the oldest first."""

    __slots__ = ("_accounts", "_hearing", "_look_at", "_running", "_told")

    def __init__(self, accounts: ClientAccounts) -> None:
        self._accounts = accounts
        self._running: dict[bytes, RememberedAnnouncement] = {}
        self._hearing: set[bytes] = set()  # those of them that hear, and were not told yet
        self._told: dict[bytes, float] = {}  # when those were told that are running still
        self._look_at = -inf

    def began(self, job: RememberedAnnouncement, *, hears: bool) -> None:
        """A job has its slot; `hears`: its client wants to be told."""
        self._running[job.identity] = job
        if hears:
            self._hearing.add(job.identity)

    def ended(self, identity: bytes) -> None:
        """The slot of a job is free."""
        self._running.pop(identity, None)
        self._hearing.discard(identity)
        self._told.pop(identity, None)

    def next_look(self) -> float:
        """Returns when those that wait are to be looked at; inf if nobody is to be told."""
        return self._look_at if self._hearing else inf

    def choose(self, waiting: Iterable[RememberedAnnouncement], now: float) -> list[bytes]:
        """Returns the jobs that are to be told.  `waiting`: of clients that are proved, the longest waiting first."""
        self._look_at = now + LOOK_INTERVAL
        given = [self._running[identity] for identity, when in self._told.items() if now < when + PATIENCE]
        left = [job for identity, job in self._running.items() if identity in self._hearing]
        shares = _Shares(self._running.values(), self._accounts)
        in_vain: set[object] = set()  # what wants no slot of these jobs; there may be thousands that are alike
        found = []
        for one in waiting:
            if not left:
                break
            if now < one.heard_at + WAITED or not (one.leased or now < one.heard_last + STILL_HEARD):
                continue
            alike = shares.kind(one)
            if alike in in_vain:
                continue
            job = shares.best(one, given)  # it will have that slot soon
            if job is not None:
                given.remove(job)
            elif (job := shares.best(one, left)) is not None:
                left.remove(job)
                found.append(job.identity)
            if job is None:
                in_vain.add(alike)
            else:
                shares.move(job, one)
        for identity in found:
            self._hearing.discard(identity)
            self._told[identity] = now
        return found


class _Shares:
    """How many slots each client and each family has, as it would be after the slots that are wanted have changed."""

    def __init__(self, running: Iterable[RememberedAnnouncement], accounts: ClientAccounts) -> None:
        self._accounts = accounts
        self._clients: Counter[bytes] = Counter()
        self._families: Counter[tuple[bytes, bytes]] = Counter()
        self._left: Counter[bytes] = Counter()  # slots that a client has lost
        for job in running:
            self._count(job.origin, 1)

    def kind(self, one: RememberedAnnouncement) -> object:
        """Returns what `best` depends on: two announcements of the same kind want the same slots."""
        origin = one.origin
        family = origin.family if (origin.client, origin.family) in self._families else None
        return origin.client, family, self._weight(one)

    def best(self, one: RememberedAnnouncement, jobs: list[RememberedAnnouncement]) -> RememberedAnnouncement | None:
        """Returns the job of the client with the greatest share, the oldest one, of those whose slot is wanted."""
        wanted = [job for job in jobs if self._wants(one, job)]
        return max(wanted, key=lambda job: self._clients[job.origin.client] / self._weight(job), default=None)

    def move(self, job: RememberedAnnouncement, one: RememberedAnnouncement) -> None:
        """Gives the slot of the job to the announcement."""
        self._count(job.origin, -1)
        self._count(one.origin, 1)
        self._left[job.origin.client] += 1

    def _wants(self, one: RememberedAnnouncement, job: RememberedAnnouncement) -> bool:
        """Returns True if the announcement would take part in the draw for this slot, and has a smaller share."""
        waits, holds = one.origin, job.origin
        if waits.client == holds.client:
            if waits.family == holds.family:
                return False
            has, other = self._families[waits.client, waits.family], self._families[holds.client, holds.family]
        else:
            fewer = 1 + self._left[holds.client]
            if self._accounts.rank(waits.client) > self._accounts.rank(holds.client, fewer):
                return False
            has, other = self._clients[waits.client], self._clients[holds.client]
        return has * self._weight(job) < other * self._weight(one)

    def _weight(self, one: RememberedAnnouncement) -> int:
        return min(one.weight, self._accounts.limits.weight)

    def _count(self, origin: Origin, change: int) -> None:
        self._clients[origin.client] += change
        self._families[origin.client, origin.family] += change
