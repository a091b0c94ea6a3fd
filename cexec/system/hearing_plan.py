"""Which sockets hear a group on this machine, as it is now.

Contract: `plan_hearing` makes of a group list and the machine's interfaces a list of `Hearing`, one per socket that ought
to be open; it opens nothing.  The default group and `mdns` are heard at every address; any other entry at its own, so that
a socket on 127.255.255.255 hears that broadcast only.  docs/protocol.md section 2.
"""

from __future__ import annotations

import _socket

from cexec.system.groups import (
    ADDRESS,
    DEFAULT_IPV6_GROUP,
    LIMITED_BROADCAST,
    LOOPBACK_BROADCAST,
    MDNS,
    MULTICAST,
    default_broadcasts,
    interface_index,
    label,
    multicast_interfaces,
    multicast_scope,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cexec.system.groups import GroupEntry
    from cexec.system.interfaces import Interface

_ANY = {_socket.AF_INET: "0.0.0.0", _socket.AF_INET6: "::"}
_LINK_LOCAL_SCOPE = 2


class Hearing:
    """One socket: `key` is (family, address, port, scope) to bind; `unicast` says whether what comes was sent to this
    machine alone, None when each datagram must be asked; `memberships` are (group, interface index) -> label."""

    __slots__ = ("key", "labels", "memberships", "unicast")

    def __init__(self, key: tuple[int, str, int, int], unicast: bool | None) -> None:
        self.key = key
        self.unicast = unicast
        self.labels: list[str] = []
        self.memberships: dict[tuple[str, int], str] = {}

    @property
    def text(self) -> str:
        """The address and port for an error message."""
        return label(self.key[1], "", self.key[2], 0)


class _Plan:
    def __init__(self, port: int, found: Sequence[Interface]) -> None:
        self.port = port
        self.found = found
        self.broadcasts = {one.broadcast for interface in found for one in interface.ipv4} | {LIMITED_BROADCAST}
        self.hearings: dict[tuple[int, str, int, int], Hearing] = {}

    def hear(self, family: int, address: str, port: int, scope: int, unicast: bool | None) -> Hearing:
        key = (family, address, port, scope)
        return self.hearings.setdefault(key, Hearing(key, unicast))

    def hear_any(self, labels: Iterable[str]) -> None:
        for family, address in _ANY.items():
            self.hear(family, address, self.port, 0, None)
        self.hearings[_socket.AF_INET, _ANY[_socket.AF_INET], self.port, 0].labels += labels

    def hear_address(self, family: int, address: str, port: int, interface: str, text: str) -> None:
        covering = self.hearings.get((family, _ANY[family], port, 0))
        if covering is not None:
            covering.labels.append(text)
            return
        unicast = address not in self.broadcasts
        self.hear(family, address, port, interface_index(interface), unicast).labels.append(text)
        if unicast:  # where another process, which the kernel gave a unicast datagram to, passes it on
            self.hear(_socket.AF_INET, LOOPBACK_BROADCAST, port, 0, False)

    def hear_multicast(self, entry: GroupEntry, port: int) -> None:
        per_interface = entry.family == _socket.AF_INET6 and multicast_scope(entry.address) <= _LINK_LOCAL_SCOPE
        if not per_interface:
            self.hear(entry.family, entry.address, port, 0, False)
        for one in multicast_interfaces(entry.family, entry.interface, self.found, True):
            scope = one.index if per_interface else 0
            hearing = self.hear(entry.family, entry.address, port, scope, False)
            hearing.memberships[entry.address, one.index] = label(entry.address, one.name, port, self.port)


def plan_hearing(
    entries: Sequence[GroupEntry] | None,
    port: int,
    found: Sequence[Interface],
    resolved: Mapping[str, Iterable[tuple[int, str]]],
) -> list[Hearing]:
    """The sockets for a group list; `resolved` has the (family, address) pairs of the names in it, by entry."""
    plan = _Plan(port, found)
    if entries is None:
        plan.hear_any(default_broadcasts(found))
        any_ipv6 = plan.hearings[_socket.AF_INET6, _ANY[_socket.AF_INET6], port, 0]
        for one in multicast_interfaces(_socket.AF_INET6, "", found, False):
            any_ipv6.memberships[DEFAULT_IPV6_GROUP, one.index] = label(DEFAULT_IPV6_GROUP, one.name, port, port)
        return list(plan.hearings.values())
    if any(entry.kind == MDNS for entry in entries):  # first: it covers addresses that would be bound otherwise
        plan.hear_any(["every address of this machine"])
    for entry in entries:
        own_port = entry.port or port
        if entry.kind == MULTICAST:
            plan.hear_multicast(entry, own_port)
        elif entry.kind == ADDRESS:
            text = label(entry.address, entry.interface, own_port, port)
            plan.hear_address(entry.family, entry.address, own_port, entry.interface, text)
        else:
            for family, address in resolved.get(entry.text, ()):
                plan.hear_address(family, address, own_port, "", entry.text)
    return list(plan.hearings.values())
