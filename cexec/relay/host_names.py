"""Host names among a relay's targets, as addresses, without ever keeping the relay waiting for a name server.

Contract: `entries(now)` is the list with each name replaced by the addresses that are known of it now; called every few
seconds it looks names up again now and then, in a thread.  What is known stays until something else is.
"""

from __future__ import annotations

from cexec.net.destinations import address_label
from cexec.net.groups import ADDRESS, NAME, GroupEntry
from cexec.net.resolver import Resolver

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cexec.net.destinations import Destination

LOOK_UP_INTERVAL = 60.0  # seconds (ours)


class Names:
    """The names of one list."""

    __slots__ = ("_entries", "_known", "_look_up_at", "_port", "_resolver")

    def __init__(self, entries: Sequence[GroupEntry], port: int) -> None:
        self._entries = entries
        self._port = port
        self._known: dict[str, list[GroupEntry]] = {}
        self._look_up_at = 0.0
        self._resolver: Resolver | None = None

    def entries(self, now: float) -> list[GroupEntry]:
        names = [entry for entry in self._entries if entry.kind == NAME]
        if names and now >= self._look_up_at:
            self._look_up_at = now + LOOK_UP_INTERVAL
            self._resolver = Resolver(names, self._port)
        if self._resolver is not None:
            self._resolver.start()
            found: dict[str, list[GroupEntry]] = {}
            for one in self._resolver.results():
                found.setdefault(one.label, []).append(_literal(one))
            self._known |= found
            if len(found) == len(names):
                self._resolver = None
        return [one for entry in self._entries for one in self._addresses(entry)]

    def _addresses(self, entry: GroupEntry) -> list[GroupEntry]:
        if entry.kind != NAME:
            return [entry]
        return self._known.get(address_label(entry.address, "", entry.port or self._port, self._port), [])


def _literal(destination: Destination) -> GroupEntry:
    address, port = destination.sockaddr[:2]
    return GroupEntry(address_label(address, "", port, 0), ADDRESS, destination.family, address, "", 0, port)
