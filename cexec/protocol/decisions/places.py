"""Who gets the next connection: places, and the clients that wait for one.

Contract: an announcement whose time has come is put to `bid`.  True: it is READY, it waits for its turn.  False: it
finds no place and gets none, since nothing proves where it comes from; its client has to be asked.  `take` draws the
next one that a connection is to be made for, `due` says when.  Clients that have proved themselves come first, and
connections to others never keep them from a place.  Clients of 0.1.0 cannot prove anything: they may wait, too, and
share a small quota beside those that have.  Pure.  docs/protocol.md section 2.8.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from cexec.protocol.decisions.remembered import CONNECTING, DELAYED, READY, SILENT, TRYING
from cexec.protocol.decisions.standing import Standing
from cexec.protocol.decisions.turns import Turns
from cexec.protocol.decisions.unproved import Unproved

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cexec.protocol.decisions.clients import ClientAccounts
    from cexec.protocol.decisions.remembered import Remembered, RememberedAnnouncement
    from cexec.protocol.decisions.reputation import Reputation
    from cexec.protocol.decisions.slots import Slots


class Places:
    """The lotteries of one worker, and the rules for those that take part."""

    __slots__ = ("_accounts", "_announcements", "_proved", "_reputation", "_slots", "_tries", "unproved")

    def __init__(
        self,
        random: Callable[[], float],
        announcements: Remembered,
        reputation: Reputation,
        slots: Slots,
        accounts: ClientAccounts,
    ) -> None:
        self.unproved = Unproved()
        self._accounts = accounts
        self._announcements = announcements
        self._reputation = reputation
        self._slots = slots
        self._proved = Turns(random, announcements, reputation, accounts)
        self._tries = Turns(random, announcements, reputation, accounts)  # of clients that are unproved

    def __len__(self) -> int:
        """Counts those that wait for their turn."""
        return len(self._proved) + len(self._tries)

    def bid(self, announcement: RememberedAnnouncement, now: float) -> bool:
        """Lets one wait for its turn, if it may."""
        self.discard(announcement)  # its standing may have changed while it was postponed
        if announcement.standing == Standing.PROVED:
            self._proved.add(announcement)
            return True
        place = self._slots.may_try(one_at_a_time=self._slowed(now), waiting=len(self._tries))
        if not self.unproved.may_try(announcement, now) or (announcement.proves and not place):
            return False
        self._tries.add(announcement)
        return place

    def proved(self, announcement: RememberedAnnouncement, now: float) -> None:
        """Takes one to those that come first, because its client has proved itself."""
        announcement.standing = Standing.PROVED
        self._announcements.stands(announcement)
        self.unproved.forgive(announcement.identity)
        announcement.tried_at = ""  # its client may answer by another way now
        self.discard(announcement)
        if announcement.state == READY:
            self._proved.add(announcement)
        elif announcement.state == DELAYED and announcement.timers.bid_at == inf:
            announcement.timers.bid_at = announcement.retry.heard(now, new_way=True) if announcement.retry.due else now
        if announcement.state in (DELAYED, READY):  # QUEUED also tells it that its proof has come
            announcement.telling.due = min(announcement.telling.due, now + SILENT)

    def doubted(self, announcement: RememberedAnnouncement, standing: Standing, now: float) -> None:
        """The way by which a client was proved is gone: it has to bid again."""
        announcement.standing = standing
        self._announcements.stands(announcement)
        self.discard(announcement)
        if announcement.state == READY:
            announcement.state, announcement.timers.bid_at = DELAYED, now

    def connected(self, announcement: RememberedAnnouncement) -> None:
        """Only the announcer can have answered a first flight, and it did so where we had connected to."""
        announcement.standing = Standing.PROVED
        self._announcements.stands(announcement)
        self.unproved.answered(announcement)

    def add(self, announcement: RememberedAnnouncement) -> None:
        """Lets one wait whose client is known: a lease, or one that was connected a moment ago."""
        self._proved.add(announcement)

    def discard(self, announcement: RememberedAnnouncement) -> None:
        """Takes one out, or does nothing."""
        self._proved.discard(announcement)
        self._tries.discard(announcement)

    @property
    def clients(self) -> int:
        """Counts the clients that wait and have proved themselves."""
        return self._proved.clients

    @property
    def proved_waiting(self) -> Iterable[RememberedAnnouncement]:
        """Those of such clients, the longest waiting first."""
        return self._proved

    def reconsider(self, client: bytes) -> None:
        """Asks again if others that wait go before this client."""
        self._proved.reconsider(client)
        self._tries.reconsider(client)

    def recovered(self) -> None:
        """Ends all rests."""
        self._proved.recovered()
        self._tries.recovered()

    def wanted_by_others(self, client: bytes) -> bool:
        """Returns True if another client waits that has proved itself and does not go behind this one."""
        return self._proved.best_rank(client) <= self._accounts.rank(client)

    def take(self, now: float) -> tuple[RememberedAnnouncement, int] | None:
        """Draws the next one; returns it with its new state."""
        for client in self._accounts.redeemed(now):
            self.reconsider(client)
        if self._may_connect(now):
            announcement = self._proved.take(now)
            if announcement is not None:
                return announcement, CONNECTING
        if not self._tries or not self._may_try(now):
            return None
        spare = not self._slots.may_try(one_at_a_time=self._slowed(now))
        announcement = self._tries.take(now)
        if announcement is None:
            return None
        if spare:
            self.unproved.spend_spare_try()
        self.unproved.tried(announcement, now)
        return announcement, TRYING

    def due(self, now: float) -> float:
        """Returns the time at which `take` will draw one, or inf."""
        times = [inf]
        if self._may_connect(now):
            times.append(self._proved.due(now))
        if self._tries and self._may_try(now):
            times.append(self._tries.due(now))
        return min(times)

    def _slowed(self, now: float) -> bool:
        """A slowed worker tries one job at a time."""
        return self._reputation.slowness(now) > 0.0

    def _may_connect(self, now: float) -> bool:
        return self._slots.may_connect(one_at_a_time=self._slowed(now))

    def _may_try(self, now: float) -> bool:
        spare = self.unproved.spare_try(now)
        return self._slots.may_try(one_at_a_time=self._slowed(now), spare=spare)
