"""The addresses that a relay connects to: few that have not answered as a client does.

Contract: mac1 does not cover where an announcement comes from, nor its reply port, so who has recorded one could let a
relay connect to any port that it can reach.  `begin` returns True if the relay may connect to the client of an
announcement now; each new address takes one of MOST_NEW, of which NEW_RATE a second come back.  `answered` gives it
back at once: the address has sent a second flight, so there is a client.  Pure.  docs/protocol.md section 6.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cexec.protocol.base.token_bucket import TokenBucket

if TYPE_CHECKING:
    from cexec.relay.announcement_table import RelayedAnnouncement

NEW_RATE = 0.5  # addresses a second (ours) that need not have answered: 30 a minute
MOST_NEW = 64.0  # (ours) of them at once: many clients may begin in the same moment


class NewAddresses:
    """The addresses of one relay."""

    __slots__ = ("_new", "refused")

    def __init__(self, now: float) -> None:
        self._new = TokenBucket(NEW_RATE, MOST_NEW, now)
        self.refused = 0  # connections that were not made, since the last line about them

    def begin(self, entry: RelayedAnnouncement, now: float) -> bool:
        """Returns True if a connection may be made."""
        if entry.tried == entry.client:
            return True
        if not self._new.left(now):
            self.refused += 1
            return False
        self._new.spend(1.0)
        entry.tried, entry.answered = entry.client, False
        return True

    def answered(self, entry: RelayedAnnouncement) -> None:
        """Notes that a client has answered there."""
        if not entry.answered:
            entry.answered = True
            self._new.give_back(1.0)
