"""Groups: the addresses at which clients and workers of one network meet.

Contract: a group list is text, `ENTRY[,ENTRY...]`, and an entry is one of

    192.168.1.255  10.0.0.7     a broadcast or a host's address
    239.1.2.3      ff05::77     a multicast group; `%INTERFACE` picks one interface (all otherwise) and `/HOPS` at the
                                very end its TTL or hop limit (31 otherwise): `239.1.2.3%eth0:3010/8`
    name.example                a host's name, resolved when it is used, not here
    mdns                        whatever multicast DNS finds

each but `mdns` with an optional `:PORT` (IPv6: `[ff02::77%eth0]:3010/8`).  `parse_groups` refuses everything else with
GroupError, which names the entry.  An absent list (None) is the default group: the broadcast address of every interface
that is up, the loopback's 127.255.255.255, and DEFAULT_IPV6_GROUP (ff02::6365:7865, "cexe" in ASCII, link-local) on
every interface with IPv6 that can multicast.  docs/protocol.md section 2.

`destinations` turns a list into what a datagram is sent to now.
"""

from __future__ import annotations

import _socket

from cexec.errors import GroupError, UsageError
from cexec.protocol.limits import UDP_PORT
from cexec.system.interfaces import interfaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any, TypeAlias

    from cexec.system.interfaces import Interface

    Sockaddr: TypeAlias = tuple[Any, ...]  # (host, port), and for IPv6 (host, port, flow, scope)

DEFAULT_IPV6_GROUP = "ff02::6365:7865"  # (protocol)
LOOPBACK_BROADCAST = "127.255.255.255"  # (protocol)
LIMITED_BROADCAST = "255.255.255.255"
DEFAULT_HOPS = 31  # (protocol) TTL or hop limit of multicast, the ancestor's
HIGHEST_PORT = 65535

ADDRESS = "address"  # a literal that is no multicast group: a host's, or a broadcast address
MULTICAST = "multicast"
NAME = "name"
MDNS = "mdns"

_ALLOWED = (
    "allowed are addresses (broadcast, host, multicast with %interface and /hops) and host names, "
    "each with :port (IPv6: [address]:port), and mdns"
)
_LONGEST_NAME = 253  # characters (RFC 1035)


class GroupEntry:
    """One entry of a group list; `family` is 0 and `address` a name for NAME, both are empty for MDNS."""

    __slots__ = ("address", "family", "hops", "interface", "kind", "port", "text")

    def __init__(
        self, text: str, kind: str, family: int, address: str, interface: str, hops: int, port: int | None
    ) -> None:
        self.text = text
        self.kind = kind
        self.family = family
        self.address = address
        self.interface = interface  # a name or an index in digits, empty for all
        self.hops = hops
        self.port = port  # None: CEXEC_UDP_PORT's

    def __repr__(self) -> str:
        return f"GroupEntry({self.text!r}, {self.kind!r})"

    @property
    def loopback(self) -> bool:
        """Whether what is sent to the entry can never leave this machine."""
        if self.kind == ADDRESS:
            return self.address == "::1" or self.family == _socket.AF_INET and self.address.startswith("127.")
        if self.kind == MULTICAST:
            return self.interface == "lo" or self.family == _socket.AF_INET6 and multicast_scope(self.address) == 1
        return self.kind == NAME and self.address.lower() == "localhost"  # RFC 6761 section 6.3


class Destination:
    """Where one datagram goes: `interface` is the index to send through (0: the routes decide), `hops` 0 no multicast."""

    __slots__ = ("family", "hops", "interface", "label", "sockaddr")

    def __init__(self, family: int, sockaddr: Sockaddr, label: str, interface: int = 0, hops: int = 0) -> None:
        self.family = family
        self.sockaddr = sockaddr
        self.label = label
        self.interface = interface
        self.hops = hops

    def __repr__(self) -> str:
        return f"Destination({self.label!r})"


def parse_groups(text: str) -> list[GroupEntry]:
    """The entries of a group list; GroupError names the first bad one and says what is allowed."""
    return [_parse_entry(entry.strip()) for entry in text.split(",")]


def all_literal(text: str) -> bool:
    """Whether every entry of a list is a literal address: some shells set GROUP to the user's unix group."""
    try:
        return all(entry.kind in (ADDRESS, MULTICAST) for entry in parse_groups(text))
    except GroupError:
        return False


def all_loopback(entries: Iterable[GroupEntry] | None) -> bool:
    """Whether every entry is loopback, so that nobody has to bind anything that others can reach."""
    return entries is not None and all(entry.loopback for entry in entries)


def groups_from_environment(environ: Mapping[str, str]) -> list[GroupEntry] | None:
    """CEXEC_GROUP's entries, else GROUP's when it can be nothing else, else None for the default group."""
    text = environ.get("CEXEC_GROUP", "").strip()
    if text:
        return parse_groups(text)
    text = environ.get("GROUP", "").strip()
    return parse_groups(text) if text and all_literal(text) else None


def udp_port_from_environment(environ: Mapping[str, str]) -> int:
    """CEXEC_UDP_PORT, or the protocol's."""
    text = environ.get("CEXEC_UDP_PORT", "").strip()
    if not text:
        return UDP_PORT
    port = _parse_port(text)
    if port is None:
        raise UsageError(f"CEXEC_UDP_PORT is {text!r}, but must be a port number from 1 to {HIGHEST_PORT}")
    return port


def _parse_port(text: str) -> int | None:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) <= HIGHEST_PORT):
        return None
    return int(text)


def _bad(text: str, why: str) -> GroupError:
    return GroupError(f"bad group entry {text!r}: {why}; {_ALLOWED}")


def _parse_entry(text: str) -> GroupEntry:
    if text.lower() == MDNS:
        return GroupEntry(text, MDNS, 0, "", "", 0, None)
    body, slash, hops_text = text.partition("/")
    host, port = _split_port(text, body)
    address, percent, interface = host.partition("%")
    if percent and not interface:
        raise _bad(text, "no interface after %")
    family = _literal_family(address)
    if family:
        address = _socket.inet_ntop(family, _socket.inet_pton(family, address))
    kind = (MULTICAST if is_multicast(family, address) else ADDRESS) if family else NAME
    _check_host(text, kind, family, address, interface)
    hops = DEFAULT_HOPS if kind == MULTICAST else 0
    if slash:
        if kind != MULTICAST:
            raise _bad(text, "only a multicast group has a hop limit, and there are no networks here")
        if not (hops_text.isascii() and hops_text.isdigit() and len(hops_text) <= 3 and int(hops_text) <= 255):
            raise _bad(text, "the hop limit must be 0 to 255")
        hops = int(hops_text)
    return GroupEntry(text, kind, family, address, interface, hops, port)


def _split_port(text: str, body: str) -> tuple[str, int | None]:
    if body.startswith("["):
        host, bracket, rest = body[1:].partition("]")
        if not bracket or rest and not rest.startswith(":") or ":" not in host:
            raise _bad(text, "brackets are for an IPv6 address before a port")
        port_text = rest[1:] if rest else None
    elif body.count(":") > 1:
        host, port_text = body, None
    else:
        host, colon, rest = body.partition(":")
        port_text = rest if colon else None
    if port_text is None:
        return host, None
    port = _parse_port(port_text)
    if port is None:
        raise _bad(text, f"the port must be 1 to {HIGHEST_PORT}")
    return host, port


def _literal_family(address: str) -> int:
    for family in (_socket.AF_INET, _socket.AF_INET6):
        try:
            _socket.inet_pton(family, address)
        except (OSError, ValueError):
            continue
        return family
    return 0


def _check_host(text: str, kind: str, family: int, address: str, interface: str) -> None:
    if kind == NAME:
        if not address:
            raise _bad(text, "it is empty")
        if address.lower() == MDNS or interface:
            raise _bad(text, "mdns takes no port" if not interface else "a name takes no %interface")
        plain = address.replace(".", "").replace("-", "").replace("_", "")
        if not (plain.isascii() and plain.isalnum()) or len(address) > _LONGEST_NAME or ".." in address:
            raise _bad(text, "neither an address nor a host name")
        if address.rstrip(".").rpartition(".")[2].isdigit():
            raise _bad(text, "not a complete IPv4 address")
        return
    packed = _socket.inet_pton(family, address)
    if family == _socket.AF_INET:
        if interface and kind == ADDRESS and address != LIMITED_BROADCAST:
            raise _bad(text, "only multicast and 255.255.255.255 take an %interface in IPv4")
        if packed[0] == 0 or packed[0] >= 240 and address != LIMITED_BROADCAST:
            raise _bad(text, "nothing can be sent to this address")
    elif kind == ADDRESS:
        if not any(packed) or packed[:12] == bytes(10) + b"\xff\xff":
            raise _bad(text, "nothing can be sent to this address (write IPv4 as 10.0.0.1)")
        if (packed[0] == 0xFE and packed[1] & 0xC0 == 0x80) != bool(interface):
            raise _bad(text, "a link-local address needs an %interface, and no other host's address takes one")


def is_multicast(family: int, address: str) -> bool:
    """Whether a literal is a multicast group."""
    first = _socket.inet_pton(family, address)[0]
    return first == 0xFF if family == _socket.AF_INET6 else first & 0xF0 == 0xE0


def multicast_scope(address: str) -> int:
    """The scope of an IPv6 multicast group (RFC 4291 section 2.7): 1 this interface, 2 this link."""
    return _socket.inet_pton(_socket.AF_INET6, address)[1] & 0xF


def label(address: str, interface: str, port: int, default_port: int) -> str:
    """An address as a person reads it: the port only where it is not the usual one."""
    text = address + ("%" + interface if interface else "")
    if port == default_port:
        return text
    return f"[{text}]:{port}" if ":" in text else f"{text}:{port}"


def default_broadcasts(found: Iterable[Interface]) -> list[str]:
    """The broadcast address of every interface that is up, and the loopback's last."""
    addresses: list[str] = []
    loopback = False
    for interface in found:
        if interface.loopback:
            loopback = loopback or interface.up
        elif interface.up and not interface.port:
            addresses += [one.broadcast for one in interface.ipv4 if one.broadcast]
    return [*dict.fromkeys(addresses), *([LOOPBACK_BROADCAST] if loopback or not addresses else [])]


def multicast_interfaces(family: int, wanted: str, found: Iterable[Interface], loopback: bool) -> list[Interface]:
    """Where a multicast group is sent and joined: the interface that is asked for, or all that can."""
    if wanted:
        return [one for one in found if wanted in (one.name, str(one.index))]
    return [
        one
        for one in found
        if one.up
        and (loopback if one.loopback else one.multicast and not one.port)
        and (one.ipv6 if family == _socket.AF_INET6 else one.ipv4)
    ]


def destinations(entries: Iterable[GroupEntry] | None, port: int) -> Iterator[Destination]:
    """What a datagram is sent to now, the names and mdns aside: those must be asked for, which takes time."""
    if entries is None:
        found = interfaces()
        for address in default_broadcasts(found):
            yield Destination(_socket.AF_INET, (address, port), address)
        group = GroupEntry("", MULTICAST, _socket.AF_INET6, DEFAULT_IPV6_GROUP, "", 1, None)
        yield from _multicast_destinations(group, port, multicast_interfaces(_socket.AF_INET6, "", found, False))
        return
    for entry in entries:
        if entry.kind == MULTICAST:
            chosen = multicast_interfaces(entry.family, entry.interface, interfaces(), True)
            yield from _multicast_destinations(entry, port, chosen)
        elif entry.kind == ADDRESS:
            yield from _address_destinations(entry, port)


def _multicast_destinations(entry: GroupEntry, default: int, chosen: Iterable[Interface]) -> Iterator[Destination]:
    port = entry.port or default
    for one in chosen:
        address: Sockaddr = (entry.address, port)
        if entry.family == _socket.AF_INET6:
            address = (entry.address, port, 0, one.index)
        text = label(entry.address, one.name, port, default)
        yield Destination(entry.family, address, text, one.index, entry.hops)


def _address_destinations(entry: GroupEntry, default: int) -> Iterator[Destination]:
    port = entry.port or default
    if entry.address == LIMITED_BROADCAST:
        for one in interfaces():
            if entry.interface in (one.name, str(one.index)) or not entry.interface and one.up and one.broadcast:
                text = label(entry.address, one.name, port, default)
                yield Destination(entry.family, (entry.address, port), text, one.index)
        return
    text = label(entry.address, entry.interface, port, default)
    if entry.family == _socket.AF_INET:
        yield Destination(entry.family, (entry.address, port), text)
    else:
        yield Destination(entry.family, (entry.address, port, 0, interface_index(entry.interface)), text)


def interface_index(interface: str) -> int:
    """The index of an interface that is given by name or by index; 0 for none or when it does not exist now."""
    if interface.isdigit():
        return int(interface)
    try:
        return _socket.if_nametoindex(interface) if interface else 0
    except OSError:
        return 0
