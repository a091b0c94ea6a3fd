"""What each client has of a worker, and which clients come first while several wait.

Contract: `enter` and `leave` follow the announcements of each client through CONNECTING, RESERVED and RUNNING, and
`turn_lost` says that one of them had its turn and gave no job.  `rank` says who goes first while several wait: clients
within their limits, then those that have reached one, then those that have wasted places or turns.  If nobody else
waits it means nothing: a free slot is kept from nobody who waits alone.  `redeemed` names the clients whose rank time
has mended.  `held_until` is later than now only for a client whose connections stall.  A client is its certificate; for
the certificate `default`, certificate and source address.  Memory is bounded.  docs/placement.md.  Pure.
"""

from __future__ import annotations

from heapq import heappop, heappush
from math import inf

from cexec.protocol.base.limits import GO_DEADLINE, MAXIMUM_WEIGHT
from cexec.protocol.decisions.remembered import CONNECTING, RESERVED, RUNNING

FREE_HESITATION = 0.1  # seconds (ours) that a slot may be reserved for nothing: a client that chose another worker
JOB_FORGIVES = 0.5  # seconds (ours) of wasted time that a job makes good: cmap --delay holds a slot for so long
DECAY = 0.02  # seconds (ours) of wasted time that are forgotten in each second
NOTICED = 0.5  # seconds (ours) of wasted time from which on other clients go first
MOST_WASTED = 1.5  # seconds (ours) that are remembered: after a minute or two jobs a client is like all others
WITHDRAWN_COUNTS = 0.5  # seconds (ours) of wasted time more if another client had to get the slot instead
LEAST_TURN = 0.03  # seconds (ours) that a turn without a job counts at least
MOST_TURNS = 1.0  # seconds (ours) of lost turns that are remembered: most are races that another worker has won
BROKEN_COUNTS = 1.0  # seconds (ours) of wasted time that a client has at least when a job of it has broken off
STALLED_EACH = 4  # (ours) connection attempts of one client that may stall at a time
STALLED_PAUSE = 0.25  # seconds (ours) until a client with so many is looked at again
MAXIMUM_ACCOUNTS = 10_000  # clients (ours) whose wasted time is remembered
WITHIN, BEYOND, WASTEFUL = range(3)  # ranks of clients
COUNTED = (CONNECTING, RESERVED, RUNNING)  # states of announcements


class ClientLimits:
    """The limits of one client while others wait.

    `jobs` that run at once, `places` on the way to a slot: connection attempts and reserved slots.  `weight` bounds its
    share in the lottery, whether others wait or not.
    """

    __slots__ = ("jobs", "places", "weight")

    def __init__(self, *, jobs: int, places: int, weight: int = MAXIMUM_WEIGHT) -> None:
        self.jobs = jobs
        self.places = places
        self.weight = weight

    @classmethod
    def of_slots(cls, slots: int) -> ClientLimits:
        """Returns the default: one client never keeps a worker of several slots to itself while another waits."""
        return cls(jobs=max(1, slots - 1), places=max(1, slots // 2))


class ClientAccount:
    """What one client has now, and what it has wasted."""

    __slots__ = ("jobs", "listed", "lost", "noted_at", "places", "reserved", "stalled", "wasted")

    def __init__(self, now: float) -> None:
        self.jobs = self.places = self.stalled = 0
        self.reserved: dict[bytes, float] = {}  # when each slot was reserved, by identity
        self.wasted = 0.0  # seconds for which slots were reserved in vain, at `noted_at`
        self.lost = 0.0  # seconds of turns without a job, at `noted_at`
        self.listed = False  # among those that are WASTEFUL
        self.noted_at = now

    @property
    def idle(self) -> bool:
        return not self.jobs and not self.places

    def note(self, seconds: float, now: float) -> None:
        """Adds to the wasted time, after what has been forgotten meanwhile."""
        forgotten = DECAY * max(0.0, now - self.noted_at)
        self.wasted = max(0.0, max(0.0, self.wasted - forgotten) + seconds)
        self.lost = max(0.0, self.lost - forgotten)
        self.noted_at = now

    def made_good(self, now: float) -> None:
        """A job begins."""
        self.note(-JOB_FORGIVES, now)
        self.lost = max(0.0, self.lost - JOB_FORGIVES)

    def turn_lost(self, seconds: float, now: float) -> None:
        """It was its turn for so long, and no job came of that."""
        self.note(0.0, now)
        self.lost = min(self.lost + max(seconds, LEAST_TURN), MOST_TURNS)

    def within_from(self) -> float:
        """Returns the time after which it is not wasteful any more."""
        return self.noted_at + (max(self.wasted, self.lost) - NOTICED) / DECAY

    def kept_waiting(self, seconds: float, now: float, *, withdrawn: bool = False) -> None:
        """A slot was reserved for so long, and no job ran in it; more than GO_DEADLINE is not the client's doing."""
        wasted = min(seconds, GO_DEADLINE) - FREE_HESITATION + (WITHDRAWN_COUNTS if withdrawn else 0.0)
        if wasted > 0.0:
            self.note(wasted, now)
            self.wasted = min(self.wasted, MOST_WASTED)


class ClientAccounts:
    """The accounts of all clients of one worker."""

    __slots__ = ("_accounts", "_now", "_wasteful", "limits")

    def __init__(self, limits: ClientLimits) -> None:
        self.limits = limits
        self._now = -inf
        self._wasteful: list[tuple[float, bytes]] = []  # until when, and the client: a heap
        self._accounts: dict[bytes, ClientAccount] = {}  # the oldest one comes first

    def __len__(self) -> int:
        return len(self._accounts)

    def enter(self, client: bytes, identity: bytes, state: int, now: float) -> None:
        """An announcement is in this state from now on."""
        self._now = now
        if state not in COUNTED:
            return
        account = self._accounts.get(client)
        if account is None:
            self._forget(now)
            account = self._accounts[client] = ClientAccount(now)
        if state == RUNNING:
            account.jobs += 1
            if account.wasted or account.lost:
                account.made_good(now)
        else:
            account.places += 1
            if state == RESERVED:
                account.reserved[identity] = now

    def leave(
        self, client: bytes, identity: bytes, state: int, now: float, *, stalled: bool = False, withdrawn: bool = False
    ) -> None:
        """It is no longer in this state.

        `stalled`: the connection attempt had stalled.  `withdrawn`: the slot was taken back for another client.
        """
        self._now = now
        account = self._accounts.get(client)
        if account is None or state not in COUNTED:
            return
        if state == RUNNING:
            account.jobs -= 1
            return
        account.places -= 1
        account.stalled -= stalled
        if state == RESERVED:
            account.kept_waiting(now - account.reserved.pop(identity, now), now, withdrawn=withdrawn)
            self._list(client, account)

    def turn_lost(self, client: bytes, seconds: float, now: float) -> None:
        """It was the turn of this client for so long, and it gave no job."""
        self._now = now
        account = self._accounts.get(client)
        if account is not None:
            account.turn_lost(seconds, now)
            self._list(client, account)

    def broke(self, client: bytes, now: float) -> None:
        """A job of this client broke off: others go first until it has done some, but it is not held for that."""
        account = self._accounts.get(client)
        if account is not None:
            account.note(0.0, now)
            account.wasted = max(account.wasted, BROKEN_COUNTS)
            self._list(client, account)

    def stall(self, client: bytes) -> None:
        """A connection attempt of this client does not get on."""
        self._accounts[client].stalled += 1

    def rank(self, client: bytes, fewer: int = 0) -> int:
        """Returns WITHIN, BEYOND or WASTEFUL: while several clients wait, those of the lowest rank go first.

        `fewer`: as if so many jobs of the client had ended.
        """
        account = self._accounts.get(client)
        if account is None:
            return WITHIN
        if self._now <= account.within_from():
            return WASTEFUL
        within = account.jobs - fewer < self.limits.jobs and account.places < self.limits.places
        return WITHIN if within else BEYOND

    def wasted(self, client: bytes, now: float) -> float:
        """Returns the seconds that this client has wasted, as far as they are not forgotten."""
        account = self._accounts.get(client)
        if account is None:
            return 0.0
        return max(0.0, max(account.wasted, account.lost) - DECAY * max(0.0, now - account.noted_at))

    def redeemed(self, now: float) -> list[bytes]:
        """Returns the clients that were WASTEFUL and are not any more, because time has passed."""
        self._now = now
        found = []
        while self._wasteful and self._wasteful[0][0] < now:
            client = heappop(self._wasteful)[1]
            account = self._accounts.get(client)
            if account is not None:
                account.listed = False
                self._list(client, account)
                found += [] if account.listed else [client]
        return found

    def held_until(self, client: bytes, now: float) -> float:
        """Returns the time before which this client gets no place, even if nobody else waits."""
        account = self._accounts.get(client)
        return -inf if account is None or account.stalled < STALLED_EACH else now + STALLED_PAUSE

    def reason(self, client: bytes, weight: int, *, others: bool) -> str:
        """Says which limit this client has met, and who can change it; empty if none.

        `weight`: as it was asked for.  `others`: another client waits, too.
        """
        account = self._accounts.get(client)
        limits, words = self.limits, []
        if others and self.rank(client) == WASTEFUL:
            words.append("this client had slots reserved and gave no jobs, so others that wait go first")
        elif account is not None and others and account.jobs >= limits.jobs:
            jobs = "a job" if account.jobs == 1 else f"{account.jobs} jobs"
            words.append(f"this client has {jobs} here, and others that wait go first (cservice --per-client jobs=N)")
        elif account is not None and others and account.places >= limits.places:
            jobs = "a job of this client is" if account.places == 1 else f"{account.places} jobs of this client are"
            words.append(f"{jobs} on the way here, and others that wait go first (cservice --per-client places=N)")
        if weight > limits.weight:
            words.append(f"its weight of {weight} counts as {limits.weight} (cservice --max-weight N)")
        return "; ".join(words)

    def wasteful(self, now: float) -> int:
        """Counts the clients that go behind the others because they have wasted places or turns."""
        self._now = now
        return sum(now <= account.within_from() for account in self._accounts.values())

    def _list(self, client: bytes, account: ClientAccount) -> None:
        """Notes when a client that is WASTEFUL has to be looked at again."""
        until = account.within_from()
        if not account.listed and self._now <= until:
            account.listed = True
            heappush(self._wasteful, (until, client))

    def _forget(self, now: float) -> None:
        """Makes room: old accounts go that say nothing any more, and at the bound also others without jobs."""
        for _ in range(2):
            client, oldest = next(iter(self._accounts.items()), (b"", None))
            if oldest is None:
                return
            harmless = max(oldest.wasted, oldest.lost) <= DECAY * (now - oldest.noted_at)
            full = len(self._accounts) >= MAXIMUM_ACCOUNTS
            del self._accounts[client]
            if not oldest.idle or not (harmless or full):
                self._accounts[client] = oldest  # it is the youngest now
