"""Plans which sockets hear a group on this machine, as it is now.

Contract: `ListenPlan` makes of a group list and the machine's interfaces a list of `Listening`, one per socket that
ought to be open; it opens nothing.  The default group and `mdns` are heard at every address; any other entry at its
own, so that a socket on 127.255.255.255 hears that broadcast only.  docs/protocol.md section 2.
"""

from __future__ import annotations

import _socket
from typing import TYPE_CHECKING

from cexec.net.destinations import (
    address_label,
    default_broadcasts,
    interface_index,
    multicast_interfaces,
    no_interface,
)
from cexec.net.groups import (
    ADDRESS,
    DEFAULT_IPV6_GROUP,
    LIMITED_BROADCAST,
    LOOPBACK_BROADCAST,
    MDNS,
    MULTICAST,
    NAME,
    multicast_scope,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cexec.net.groups import GroupEntry
    from cexec.net.interfaces import Interface

ANY = {_socket.AF_INET: "0.0.0.0", _socket.AF_INET6: "::"}
_LINK_LOCAL_SCOPE = 2


class Listening:
    """One socket: `key` is (family, address, port, scope) to bind; `unicast` says whether what comes was sent to this
    machine alone, None when each datagram must be asked; `memberships` are (group, interface index) -> label.
    """

    __slots__ = ("key", "labels", "memberships", "unicast")

    def __init__(self, key: tuple[int, str, int, int], unicast: bool | None) -> None:
        self.key = key
        self.unicast = unicast
        self.labels: list[str] = []  # what the socket hears besides its memberships
        self.memberships: dict[tuple[str, int], str] = {}

    def __repr__(self) -> str:
        return f"Listening({self.key!r})"


class ListenPlan:
    """The sockets for `entries` (None: the default group) on a machine with the interfaces `found`.

    `resolved` has the (family, address) pairs of the names, by entry.  `hearings` is the result, `unheard` entry ->
    reason for what needs an interface or a name that is not there.
    """

    __slots__ = ("_broadcasts", "_found", "_hearings", "_port", "unheard")

    def __init__(
        self,
        entries: Sequence[GroupEntry] | None,
        port: int,
        found: Sequence[Interface],
        resolved: Mapping[str, Sequence[tuple[int, str]]],
    ) -> None:
        self.unheard: dict[str, str] = {}
        self._port = port
        self._found = found
        self._broadcasts = {address.broadcast for one in found for address in one.ipv4}
        self._broadcasts |= {LIMITED_BROADCAST, LOOPBACK_BROADCAST}
        self._hearings: dict[tuple[int, str, int, int], Listening] = {}
        if entries is None:
            self._hear_default()
            return
        if any(entry.kind == MDNS for entry in entries):  # first: it covers addresses that would be bound otherwise
            self._hear_any(["every address of this machine"])
        for entry in entries:
            own_port = entry.port or port
            if entry.kind == MULTICAST:
                self._hear_multicast(entry, own_port)
            elif entry.kind == ADDRESS:
                text = address_label(entry.address, entry.interface, own_port, port)
                self._hear_address(entry.family, entry.address, own_port, entry.interface, text)
            elif entry.kind == NAME:
                self._hear_name(entry, own_port, resolved.get(entry.text, ()))

    @property
    def hearings(self) -> list[Listening]:
        """One for each socket."""
        return list(self._hearings.values())

    def _hear(self, family: int, address: str, port: int, scope: int, unicast: bool | None) -> Listening:
        key = (family, address, port, scope)
        return self._hearings.setdefault(key, Listening(key, unicast))

    def _hear_any(self, labels: Iterable[str]) -> Listening:
        """Every address of the usual port; the IPv6 socket, for memberships."""
        self._hear(_socket.AF_INET, ANY[_socket.AF_INET], self._port, 0, None).labels += labels
        return self._hear(_socket.AF_INET6, ANY[_socket.AF_INET6], self._port, 0, None)

    def _hear_default(self) -> None:
        ipv6 = self._hear_any(default_broadcasts(self._found))
        for one in multicast_interfaces(_socket.AF_INET6, "", self._found, loopback=False):
            text = address_label(DEFAULT_IPV6_GROUP, one.name, self._port, self._port)
            ipv6.memberships[DEFAULT_IPV6_GROUP, one.index] = text

    def _hear_address(self, family: int, address: str, port: int, interface: str, text: str) -> None:
        covering = self._hearings.get((family, ANY[family], port, 0))
        if covering is not None:
            covering.labels.append(text)
            return
        unicast = address not in self._broadcasts
        self._hear(family, address, port, interface_index(interface), unicast).labels.append(text)
        if unicast:  # where a process that the kernel gave a unicast datagram to passes it on
            self._hear(_socket.AF_INET, LOOPBACK_BROADCAST, port, 0, False)

    def _hear_name(self, entry: GroupEntry, port: int, addresses: Sequence[tuple[int, str]]) -> None:
        for family, address in addresses:
            self._hear_address(family, address, port, "", entry.text)
        if not addresses:
            self.unheard[entry.text] = "no such name"

    def _hear_multicast(self, entry: GroupEntry, port: int) -> None:
        chosen = multicast_interfaces(entry.family, entry.interface, self._found)
        if not chosen:
            self.unheard[entry.text] = no_interface(entry.interface)
        # In IPv6 the kernel binds a group of this scope only together with its interface, and a socket that has joined
        # a group on one interface hears it from every interface that anybody here has joined it on.
        narrow = entry.family == _socket.AF_INET6 and (
            entry.interface != "" or multicast_scope(entry.address) <= _LINK_LOCAL_SCOPE
        )
        for one in chosen:
            hearing = self._hear(entry.family, entry.address, port, one.index if narrow else 0, False)
            hearing.memberships[entry.address, one.index] = address_label(entry.address, one.name, port, self._port)
