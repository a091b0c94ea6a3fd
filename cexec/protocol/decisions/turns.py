"""Whose turn it is: the lottery of those that wait for a slot, and the rests of a slowed worker.

Contract: announcements that are READY are in the lottery from `add` to `discard`; `due` says when the next one may be
taken, `take` takes it.  One that is drawn while this worker rests from the jobs of its client, or while its client is
held (`clients`), is postponed: it is DELAYED for a while, at most until its time has come or until `recovered`.  Pure.
"""

from __future__ import annotations

from math import inf

from cexec.protocol.decisions.lottery import Waiting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cexec.protocol.decisions.clients import ClientAccounts
    from cexec.protocol.decisions.remembered import Remembered, RememberedAnnouncement
    from cexec.protocol.decisions.reputation import Reputation


LONGEST_POSTPONED = (
    2.0  # seconds (ours) until a rest is judged again, because rivals may have lost their jobs meanwhile
)


class Turns:
    """The announcements of one worker that wait for a slot."""

    __slots__ = ("_accounts", "_announcements", "_postponed", "_reputation", "_waiting")

    def __init__(
        self,
        random: Callable[[], float],
        announcements: Remembered,
        reputation: Reputation,
        accounts: ClientAccounts,
    ) -> None:
        self._announcements = announcements
        self._reputation = reputation
        self._accounts = accounts
        self._waiting = Waiting(random, accounts.rank)
        self._postponed: dict[bytes, RememberedAnnouncement] = {}

    def __len__(self) -> int:
        """Counts those in the lottery."""
        return len(self._waiting)

    def __iter__(self) -> Iterator[RememberedAnnouncement]:
        """Iterates over those in the lottery, the longest waiting first."""
        return map(self._remembered, self._waiting)

    @property
    def clients(self) -> int:
        """Counts the clients in the lottery."""
        return self._waiting.clients

    def add(self, announcement: RememberedAnnouncement) -> None:
        """Lets one take part, because its time has come."""
        announcement.wait()
        self._postponed.pop(announcement.identity, None)
        targeted = announcement.targeted and not announcement.leased
        client, weight = announcement.origin.client, min(announcement.weight, self._accounts.limits.weight)
        self._waiting.add(announcement.identity, weight, client=client, targeted=targeted)
        self._announcements.arm(announcement)

    def discard(self, announcement: RememberedAnnouncement) -> None:
        """Takes one out, also if it was postponed; or does nothing."""
        self._waiting.discard(announcement.identity)
        self._postponed.pop(announcement.identity, None)

    def reconsider(self, client: bytes) -> None:
        """Asks again if others that wait go before this client."""
        self._waiting.reconsider(client)

    def best_rank(self, but: bytes) -> int:
        """Returns the lowest rank of the clients in the lottery, without this one; `lottery.RANKS` if it is empty."""
        return self._waiting.best_rank(but)

    def due(self, now: float) -> float:
        """Returns the time at which the next one may be taken, or inf if none waits."""
        return self._next(now)[1] if self._waiting else inf

    def take(self, now: float) -> RememberedAnnouncement | None:
        """Draws one that may be taken now."""
        while self._waiting:
            targeted, due = self._next(now)
            if now < due:
                break
            announcement = self._draw(targeted=targeted)
            for_us = announcement.targeted and not announcement.leased
            client = announcement.origin.client
            held_until = self._accounts.held_until(client, now)
            if self._reputation.slowness(now):
                held_until = max(held_until, self._reputation.client_held_until(client, now, targeted=for_us))
            if now >= held_until:
                return announcement
            announcement.postpone(min(held_until, now + LONGEST_POSTPONED))
            self._postponed[announcement.identity] = announcement
            self._announcements.arm(announcement)
        return None

    def recovered(self) -> None:
        """Ends all rests."""
        for announcement in list(self._postponed.values()):
            self.add(announcement)

    def _draw(self, *, targeted: bool) -> RememberedAnnouncement:
        return self._remembered(self._waiting.draw(targeted=targeted))

    def _remembered(self, identity: bytes) -> RememberedAnnouncement:
        announcement = self._announcements.get(identity)
        assert announcement is not None  # what waits is remembered
        return announcement

    def _next(self, now: float) -> tuple[bool, float]:
        """Returns if only targeted ones are drawn next, and when; a slowed worker leaves the others to rivals first."""
        if not self._reputation.slowness(now):
            return False, -inf
        held_until = self._reputation.held_until(now)
        if now < held_until and self._waiting.any_targeted:
            return True, self._reputation.held_until(now, targeted=True)
        return False, held_until
