"""What each client has of a worker, and which clients come first while several wait.

Contract: `enter` and `leave` follow the announcements of each client through CONNECTING, RESERVED and RUNNING.
`rank` says who goes first while several wait: clients within their limits, then those that have reached one, then those
that have wasted places.  If nobody else waits it means nothing.  `held_until` is later than now only for a client that
keeps places and gives no jobs.  A client is its certificate; for the certificate `default`, certificate and source
address.  Memory is bounded.  docs/placement.md.  Pure.
"""

from __future__ import annotations

from math import inf

from cexec.protocol.base.limits import GO_DEADLINE, MAXIMUM_WEIGHT
from cexec.protocol.decisions.remembered import CONNECTING, RESERVED, RUNNING

FREE_HESITATION = 0.1  # seconds (ours) that a slot may be reserved for nothing: a client that chose another worker
JOB_FORGIVES = 0.5  # seconds (ours) of wasted time that a job makes good: cmap --delay holds a slot for so long
DECAY = 0.02  # seconds (ours) of wasted time that are forgotten in each second
NOTICED = 0.5  # seconds (ours) of wasted time from which on other clients go first
BROKEN_COUNTS = 1.0  # seconds (ours) of wasted time that a client has at least when a job of it has broken off
TOLERATED = 1.5  # seconds (ours) of wasted time without a hold: the client was stopped, or its host is busy
HOLD_FACTOR = 10.0  # (ours) seconds of hold for each wasted second beyond that
LONGEST_HOLD = 60.0  # seconds (ours)
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

    __slots__ = ("held_until", "jobs", "noted_at", "places", "reserved", "stalled", "wasted")

    def __init__(self, now: float) -> None:
        self.jobs = self.places = self.stalled = 0
        self.reserved: dict[bytes, float] = {}  # when each slot was reserved, by identity
        self.wasted = 0.0  # seconds, at `noted_at`
        self.noted_at = now
        self.held_until = -inf

    @property
    def idle(self) -> bool:
        return not self.jobs and not self.places

    def note(self, seconds: float, now: float) -> None:
        """Adds to the wasted time, after what has been forgotten meanwhile."""
        forgotten = DECAY * max(0.0, now - self.noted_at)
        self.wasted = max(0.0, max(0.0, self.wasted - forgotten) + seconds)
        self.noted_at = now

    def kept_waiting(self, seconds: float, now: float) -> None:
        """A slot was reserved for so long, and no job ran in it; more than GO_DEADLINE is not the client's doing."""
        wasted = min(seconds, GO_DEADLINE) - FREE_HESITATION
        if wasted <= 0.0:
            return
        self.note(wasted, now)
        if self.wasted > TOLERATED:
            hold = min(HOLD_FACTOR * (self.wasted - TOLERATED), LONGEST_HOLD)
            self.held_until = max(self.held_until, now + hold)


class ClientAccounts:
    """The accounts of all clients of one worker."""

    __slots__ = ("_accounts", "limits")

    def __init__(self, limits: ClientLimits) -> None:
        self.limits = limits
        self._accounts: dict[bytes, ClientAccount] = {}  # the oldest one comes first

    def __len__(self) -> int:
        return len(self._accounts)

    def enter(self, client: bytes, identity: bytes, state: int, now: float) -> None:
        """An announcement is in this state from now on."""
        if state not in COUNTED:
            return
        account = self._accounts.get(client)
        if account is None:
            self._forget(now)
            account = self._accounts[client] = ClientAccount(now)
        if state == RUNNING:
            account.jobs += 1
            if account.wasted:
                account.note(-JOB_FORGIVES, now)
        else:
            account.places += 1
            if state == RESERVED:
                account.reserved[identity] = now

    def leave(self, client: bytes, identity: bytes, state: int, now: float, *, stalled: bool = False) -> None:
        """It is no longer in this state.  `stalled`: the connection attempt had stalled."""
        account = self._accounts.get(client)
        if account is None or state not in COUNTED:
            return
        if state == RUNNING:
            account.jobs -= 1
            return
        account.places -= 1
        account.stalled -= stalled
        if state == RESERVED:
            account.kept_waiting(now - account.reserved.pop(identity, now), now)

    def broke(self, client: bytes, now: float) -> None:
        """A job of this client broke off: others go first until it has done some, but it is not held for that."""
        account = self._accounts.get(client)
        if account is not None:
            account.note(0.0, now)
            account.wasted = max(account.wasted, BROKEN_COUNTS)

    def stall(self, client: bytes) -> None:
        """A connection attempt of this client does not get on."""
        self._accounts[client].stalled += 1

    def rank(self, client: bytes) -> int:
        """Returns WITHIN, BEYOND or WASTEFUL: while several clients wait, those of the lowest rank go first."""
        account = self._accounts.get(client)
        if account is None:
            return WITHIN
        if account.wasted >= NOTICED:
            return WASTEFUL
        within = account.jobs < self.limits.jobs and account.places < self.limits.places
        return WITHIN if within else BEYOND

    def held_until(self, client: bytes, now: float) -> float:
        """Returns the time before which this client gets no place, even if nobody else waits."""
        account = self._accounts.get(client)
        if account is None:
            return -inf
        return max(account.held_until, now + STALLED_PAUSE if account.stalled >= STALLED_EACH else -inf)

    def reason(self, client: bytes, weight: int, now: float, *, others: bool) -> str:
        """Says which limit this client has met, and who can change it; empty if none.

        `weight`: as it was asked for.  `others`: another client waits, too.
        """
        account = self._accounts.get(client)
        limits, words = self.limits, []
        if account is not None and now < account.held_until:
            seconds = account.held_until - now
            words.append(f"this client had slots reserved and gave no jobs: it has to wait for {seconds:.0f} s")
        elif account is not None and others and account.jobs >= limits.jobs:
            jobs = "a job" if account.jobs == 1 else f"{account.jobs} jobs"
            words.append(f"this client has {jobs} here, and others that wait go first (cservice --per-client jobs=N)")
        elif account is not None and others and account.places >= limits.places:
            jobs = "a job of this client is" if account.places == 1 else f"{account.places} jobs of this client are"
            words.append(f"{jobs} on the way here, and others that wait go first (cservice --per-client places=N)")
        if weight > limits.weight:
            words.append(f"its weight of {weight} counts as {limits.weight} (cservice --max-weight N)")
        return "; ".join(words)

    def held(self, now: float) -> int:
        """Counts the clients that are held now."""
        return sum(now < account.held_until for account in self._accounts.values())

    def _forget(self, now: float) -> None:
        """Makes room: old accounts go that say nothing any more, and at the bound also others without jobs."""
        for _ in range(2):
            client, oldest = next(iter(self._accounts.items()), (b"", None))
            if oldest is None:
                return
            harmless = now >= oldest.held_until and oldest.wasted <= DECAY * (now - oldest.noted_at)
            full = len(self._accounts) >= MAXIMUM_ACCOUNTS
            del self._accounts[client]
            if not oldest.idle or not (harmless or full):
                self._accounts[client] = oldest  # it is the youngest now
