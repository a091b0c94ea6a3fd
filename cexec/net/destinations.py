"""The destinations of a datagram to a group on this machine, now.

Contract: `destinations` reads the interfaces and returns a list of `Destination`, one per datagram to send, and a dict
entry -> reason for what has nowhere to go.  Names and mdns are left out: they must be asked for, which takes time.
A label is the destination as a person reads it, with the port only where that is not the usual one: `192.168.1.255`,
`239.1.2.3%eth0`, `[ff02::77%eth0]:4000`.
"""

from __future__ import annotations

import _socket

from cexec.net.groups import ADDRESS, DEFAULT_IPV6_GROUP, LIMITED_BROADCAST, LOOPBACK_BROADCAST, MULTICAST, GroupEntry
from cexec.net.interfaces import interfaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cexec.net.groups import Sockaddr
    from cexec.net.interfaces import Interface

_DEFAULT_IPV6_ENTRY = GroupEntry(DEFAULT_IPV6_GROUP, MULTICAST, _socket.AF_INET6, DEFAULT_IPV6_GROUP, "", 1, None)


class Destination:
    """The destination of one datagram.

    The datagram goes through the interface with the index `interface` (0: the routes decide).  `hops` is None unless
    the destination is a multicast group.
    """

    __slots__ = ("family", "hops", "interface", "label", "sockaddr")

    def __init__(
        self, family: int, sockaddr: Sockaddr, label: str, interface: int = 0, hops: int | None = None
    ) -> None:
        self.family = family
        self.sockaddr = sockaddr
        self.label = label
        self.interface = interface
        self.hops = hops

    def __repr__(self) -> str:
        return f"Destination({self.label!r})"


def destinations(entries: Iterable[GroupEntry] | None, port: int) -> tuple[list[Destination], dict[str, str]]:
    """Returns a datagram's destinations, and entry -> reason for entries without one; None is the default group."""
    chosen: list[Destination] = []
    failures: dict[str, str] = {}
    found: list[Interface] | None = None  # read once, and only when an entry needs them
    if entries is None:
        found = interfaces()
        chosen = [Destination(_socket.AF_INET, (one, port), one) for one in default_broadcasts(found)]
        through = multicast_interfaces(_socket.AF_INET6, "", found, loopback=False)
        chosen += _through(_DEFAULT_IPV6_ENTRY, port, port, through)
        return chosen, {} if chosen else {"network": "no interface is up"}
    for entry in entries:
        own_port = entry.port or port
        if entry.kind == MULTICAST or entry.address == LIMITED_BROADCAST:
            found = interfaces() if found is None else found
            if entry.kind == MULTICAST:
                through = multicast_interfaces(entry.family, entry.interface, found)
            else:
                through = _broadcast_interfaces(entry.interface, found)
            chosen += _through(entry, own_port, port, through)
            if not through:
                failures[entry.text] = no_interface(entry.interface)
        elif entry.kind == ADDRESS:
            text = address_label(entry.address, entry.interface, own_port, port)
            sockaddr: Sockaddr = (entry.address, own_port)
            if entry.family == _socket.AF_INET6:
                sockaddr = (entry.address, own_port, 0, interface_index(entry.interface))
            chosen.append(Destination(entry.family, sockaddr, text))
    return chosen, failures


def _through(entry: GroupEntry, port: int, usual_port: int, through: Iterable[Interface]) -> list[Destination]:
    """One destination for each interface."""
    chosen: list[Destination] = []
    for one in through:
        ipv6 = entry.family == _socket.AF_INET6
        sockaddr: Sockaddr = (entry.address, port, 0, one.index) if ipv6 else (entry.address, port)
        hops = entry.hops if entry.kind == MULTICAST else None
        text = address_label(entry.address, one.name, port, usual_port)
        chosen.append(Destination(entry.family, sockaddr, text, one.index, hops))
    return chosen


def default_broadcasts(found: Iterable[Interface]) -> list[str]:
    """The broadcast address of every interface that is up, the loopback's last; only that when nothing is known."""
    loopbacks = [one for one in found if one.loopback]
    addresses = [
        address.broadcast
        for one in found
        if one.up and not one.loopback and not one.port
        for address in one.ipv4
        if address.broadcast
    ]
    if not loopbacks or any(one.up for one in loopbacks):
        addresses.append(LOOPBACK_BROADCAST)
    return list(dict.fromkeys(addresses))


def multicast_interfaces(
    family: int, wanted: str, found: Iterable[Interface], loopback: bool = True
) -> list[Interface]:
    """Returns the interfaces of a multicast group: the one that is asked for, or all that can do multicast.

    IPv4 passes on the loopback too, so that it works without a network; for IPv6 the kernel has no route there.
    """
    if wanted:
        return [one for one in found if wanted in (one.name, str(one.index))]
    ipv6 = family == _socket.AF_INET6
    return [
        one
        for one in found
        if one.up
        and (loopback and not ipv6 if one.loopback else one.multicast and not one.port)
        and (one.ipv6 if ipv6 else one.ipv4)
    ]


def _broadcast_interfaces(wanted: str, found: Sequence[Interface]) -> list[Interface]:
    """Returns the interfaces of 255.255.255.255: the one that is asked for, or all with a broadcast and an address."""
    if wanted:
        return multicast_interfaces(_socket.AF_INET, wanted, found)
    return [one for one in found if one.up and one.broadcast and one.ipv4 and not one.port]


def no_interface(wanted: str) -> str:
    """Why a group has nowhere to go."""
    return f"no interface {wanted}" if wanted else "no interface that can"


def interface_index(interface: str) -> int:
    """The index of an interface that is given by name or by index; 0 for none or when it does not exist now."""
    if interface.isdigit():
        return int(interface)
    try:
        return _socket.if_nametoindex(interface) if interface else 0
    except OSError:
        return 0


def address_label(address: str, interface: str, port: int, usual_port: int) -> str:
    """An address as a person reads it."""
    text = address + ("%" + interface if interface else "")
    if port == usual_port:
        return text
    return f"[{text}]:{port}" if ":" in text else f"{text}:{port}"
