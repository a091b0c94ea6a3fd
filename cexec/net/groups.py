"""Groups: the addresses at which clients and workers of one network meet.

Contract: a group list is text, `ENTRY[,ENTRY...]`, and an entry is one of

    192.168.1.255  10.0.0.7     a broadcast or a host's address
    239.1.2.3      ff05::77     a multicast group; `%INTERFACE` picks one interface (all otherwise) and `/HOPS` at the
                                very end its TTL or hop limit (31 otherwise): `239.1.2.3%eth0:3010/8`
    name.example                a host's name, resolved when it is used, not here
    mdns                        all workers that multicast DNS finds

each but `mdns` with an optional `:PORT` (IPv6: `[ff02::77%eth0]:3010/8`).  `parse_groups` refuses everything else with
GroupError, which names the entry.  An absent list (None) is the default group: the broadcast address of every interface
that is up, the loopback's 127.255.255.255, and DEFAULT_IPV6_GROUP (ff02::6365:7865, "cexe" in ASCII, link-local) on
every interface with IPv6 that can multicast.  docs/protocol.md section 2.

What an entry means on this machine now is the business of `destinations` and `listen_plan`.  Sockaddr is, here and in
all of `system`, what the kernel's sockets take: (host, port), and for IPv6 (host, port, flow, scope).
"""

from __future__ import annotations

import _socket

from cexec.common_errors import CexecError, UsageError
from cexec.protocol.base.limits import UDP_PORT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any, TypeAlias

    from cexec.errors import GroupError

    Sockaddr: TypeAlias = tuple[Any, ...]

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
    """One entry of a group list; `family` is 0 for NAME, whose `address` is the name, and for MDNS, which has none."""

    __slots__ = ("address", "family", "hops", "interface", "kind", "port", "text")

    def __init__(
        self, text: str, kind: str, family: int, address: str, interface: str, hops: int, port: int | None
    ) -> None:
        self.text = text
        self.kind = kind
        self.family = family
        self.address = address
        self.interface = interface  # a name or an index in digits; empty: all, or none for an address
        self.hops = hops  # TTL or hop limit of MULTICAST, else 0
        self.port = port  # None: the usual one

    def __repr__(self) -> str:
        return f"GroupEntry({self.text!r}, {self.kind!r})"

    @property
    def loopback(self) -> bool:
        """Returns True if a datagram to the entry can never leave this machine."""
        if self.kind == ADDRESS:
            return self.address == "::1" or (self.family == _socket.AF_INET and self.address.startswith("127."))
        if self.kind == MULTICAST:
            return self.interface == "lo" or (self.family == _socket.AF_INET6 and multicast_scope(self.address) == 1)
        return self.kind == NAME and self.address.lower() == "localhost"  # RFC 6761 section 6.3


def parse_groups(text: str) -> list[GroupEntry]:
    """The entries of a group list; GroupError names the first bad one and says what is allowed."""
    return [_parse_entry(entry.strip()) for entry in text.split(",")]


def all_literal(text: str) -> bool:
    """Returns True if every entry of a list is a literal address: some shells set GROUP to the user's unix group."""
    try:
        return all(entry.kind in (ADDRESS, MULTICAST) for entry in parse_groups(text))
    except CexecError:  # a `GroupError`: nothing else is raised there
        return False


def all_loopback(entries: Iterable[GroupEntry] | None) -> bool:
    """Returns True if every entry is loopback, so that no socket has to be reachable from other machines."""
    return entries is not None and all(entry.loopback for entry in entries)


def uses_ipv6(entries: Iterable[GroupEntry] | None) -> bool:
    """Returns True if an answer to a datagram may come by IPv6."""
    return entries is None or any(entry.family != _socket.AF_INET for entry in entries)


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
    from cexec.errors import GroupError  # most groups are right

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
        if not bracket or (rest and not rest.startswith(":")) or ":" not in host:
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
        if packed[0] == 0 or (packed[0] >= 240 and address != LIMITED_BROADCAST):
            raise _bad(text, "nothing can be sent to this address")
    elif kind == ADDRESS:
        if not any(packed) or packed[:12] == bytes(10) + b"\xff\xff":
            raise _bad(text, "nothing can be sent to this address (write IPv4 as 10.0.0.1)")
        if (packed[0] == 0xFE and packed[1] & 0xC0 == 0x80) != bool(interface):
            raise _bad(text, "a link-local address needs an %interface, and no other host's address takes one")


def is_multicast(family: int, address: str) -> bool:
    """Returns True if a literal is a multicast group."""
    first = _socket.inet_pton(family, address)[0]
    return first == 0xFF if family == _socket.AF_INET6 else first & 0xF0 == 0xE0


def multicast_scope(address: str) -> int:
    """The scope of an IPv6 multicast group (RFC 4291 section 2.7): 1 this interface, 2 this link."""
    return _socket.inet_pton(_socket.AF_INET6, address)[1] & 0xF
