"""The network interfaces that this machine has now.

Contract: `interfaces()` is one read of the kernel's tables (two netlink dumps on Linux, about 0.1 ms; psutil elsewhere)
and never raises: a kernel that refuses to tell yields what is known, at worst an empty list.  Addresses are text as
`inet_ntop` writes it, without a scope suffix; an interface's index is the scope of its link-local addresses.
Nothing is cached here: each call sees the interfaces of that moment.
"""

from __future__ import annotations

import _socket
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# <net/if.h>
_IFF_UP = 0x1
_IFF_BROADCAST = 0x2
_IFF_LOOPBACK = 0x8
_IFF_RUNNING = 0x40
_IFF_MULTICAST = 0x1000

# <linux/netlink.h> and <linux/rtnetlink.h>
_REQUEST_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
DUMP_INTERRUPTED = 0x10  # NLM_F_DUMP_INTR: the table changed while it was read
_NLMSG_ERROR, NLMSG_DONE = 2, 3
RTM_NEWLINK, RTM_GETLINK, RTM_NEWADDR, RTM_GETADDR = 16, 18, 20, 22
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST = 1, 2, 4
_IFLA_IFNAME, _IFLA_LINKINFO, _IFLA_EXT_MASK = 3, 18, 29
_IFLA_INFO_KIND, _IFLA_INFO_SLAVE_KIND = 1, 4
_SKIP_STATISTICS = 8  # RTEXT_FILTER_SKIP_STATS: two thirds of every answer
_ATTRIBUTE_TYPE = 0x3FFF  # without the "nested" and "network order" bits
_HEADER = 16  # bytes of a netlink message header
_REPLY_SIZE = 65536  # bytes: more than the kernel puts into one answer
_PATIENCE = 5  # tries (ours) when the table changes while it is read

_LOWER_LAYER = (b"bridge", b"bond", b"team")  # masters whose ports carry frames, not addresses of their own


class Ipv4Address:
    """One IPv4 address of an interface; `broadcast` is None where the link or the prefix has none."""

    __slots__ = ("address", "broadcast", "prefix")

    def __init__(self, address: str, prefix: int, broadcast: str | None) -> None:
        self.address = address
        self.prefix = prefix
        self.broadcast = broadcast


class Interface:
    """One interface: `up` means administratively up and with a carrier, `port` that it belongs to a bridge or bond;
    `kind` is what Linux calls one that is no hardware: "veth", "bridge", "wireguard".  `ipv6_prefixes` are the lengths
    of the prefixes of `ipv6`.
    """

    __slots__ = (
        "broadcast", "index", "ipv4", "ipv6", "ipv6_prefixes", "kind", "loopback", "multicast", "name", "port", "up"
    )  # fmt: skip

    def __init__(self, name: str, index: int, flags: int, port: bool = False, kind: str = "") -> None:
        self.name = name
        self.index = index
        self.up = flags & (_IFF_UP | _IFF_RUNNING) == _IFF_UP | _IFF_RUNNING
        self.broadcast = bool(flags & _IFF_BROADCAST)
        self.multicast = bool(flags & _IFF_MULTICAST)
        self.loopback = bool(flags & _IFF_LOOPBACK)
        self.port = port
        self.kind = kind
        self.ipv4: list[Ipv4Address] = []
        self.ipv6: list[str] = []
        self.ipv6_prefixes: list[int] = []

    def addresses(self) -> list[str]:
        """Every address of the interface, IPv4 first."""
        return [one.address for one in self.ipv4] + self.ipv6

    def add_ipv4(self, address: str, prefix: int, broadcast: str | None) -> None:
        """Note an address; a broadcast address that nobody set is computed, as the kernel does for its routes."""
        if broadcast in ("0.0.0.0", address):  # some clouds and container engines set these, to mean none
            broadcast = None
        if broadcast is None and (self.broadcast or self.loopback) and prefix < 31:
            number = int.from_bytes(_socket.inet_aton(address), "big") | (1 << 32 - prefix) - 1
            broadcast = _socket.inet_ntoa(number.to_bytes(4, "big"))
        self.ipv4.append(Ipv4Address(address, prefix, broadcast))

    def add_ipv6(self, address: str, prefix: int) -> None:
        self.ipv6.append(address)
        self.ipv6_prefixes.append(prefix)


def interfaces() -> list[Interface]:
    """All interfaces, by index, with the addresses they have at this moment."""
    try:
        found = from_netlink() if hasattr(_socket, "AF_NETLINK") else from_psutil()
    except (OSError, ImportError, IndexError, ValueError):
        found = {}
    return [found[index] for index in sorted(found)]


def on_link(host: str, scope: int, found: Iterable[Interface]) -> bool:
    """Returns True for a neighbour: in the network of an interface that is up, and not its broadcast address."""
    ipv6 = ":" in host
    family = _socket.AF_INET6 if ipv6 else _socket.AF_INET
    number = int.from_bytes(_socket.inet_pton(family, host), "big")
    for one in found:
        if not one.up or (scope and one.index != scope):
            continue
        if ipv6:
            networks = list(zip(one.ipv6, one.ipv6_prefixes, strict=True))
        else:
            if any(host == address.broadcast for address in one.ipv4):
                return False
            networks = [(address.address, address.prefix) for address in one.ipv4]
        for address, prefix in networks:
            shift = (128 if ipv6 else 32) - prefix
            own = int.from_bytes(_socket.inet_pton(family, address), "big")
            if prefix and own >> shift == number >> shift:
                return True
    return False


def has_network() -> bool:
    """Returns True if any interface but the loopback is up."""
    return any(one.up and not one.loopback for one in interfaces())


def from_netlink() -> dict[int, Interface]:
    channel = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW, _socket.NETLINK_ROUTE)
    try:
        found: dict[int, Interface] = {}
        extra = b"".join(_native(value, size) for value, size in ((8, 2), (_IFLA_EXT_MASK, 2), (_SKIP_STATISTICS, 4)))
        for body in read_table(channel, RTM_GETLINK, RTM_NEWLINK, bytes(16) + extra):
            _add_link(found, body)
        for body in read_table(channel, RTM_GETADDR, RTM_NEWADDR, bytes(8)):
            _add_address(found, body)
        return found
    finally:
        channel.close()


def _native(value: int, size: int) -> bytes:
    return value.to_bytes(size, sys.byteorder)


def _number(data: bytes) -> int:
    return int.from_bytes(data, sys.byteorder)


def read_table(channel: _socket.socket, request: int, answer: int, body: bytes) -> list[bytes]:
    """The bodies of all `answer` messages to one dump request, read again when the table changed meanwhile."""
    for sequence in range(1, _PATIENCE + 1):
        size = _HEADER + len(body)
        header = ((size, 4), (request, 2), (_REQUEST_DUMP, 2), (sequence, 4), (0, 4))
        channel.send(b"".join(_native(value, width) for value, width in header) + body)
        bodies, consistent = _answers(channel, answer)
        if consistent:
            break
    return bodies


def _answers(channel: _socket.socket, answer: int) -> tuple[list[bytes], bool]:
    bodies: list[bytes] = []
    consistent = True
    while True:
        data = channel.recv(_REPLY_SIZE)
        start = 0
        while start + _HEADER <= len(data):
            size = _number(data[start : start + 4])
            kind = _number(data[start + 4 : start + 6])
            if _number(data[start + 6 : start + 8]) & DUMP_INTERRUPTED:
                consistent = False
            if kind == answer:
                bodies.append(data[start + _HEADER : start + _aligned(size)])
            elif kind == NLMSG_DONE:
                return bodies, consistent
            elif kind == _NLMSG_ERROR:
                raise OSError(-int.from_bytes(data[start + 16 : start + 20], sys.byteorder, signed=True), "netlink")
            start += max(_HEADER, _aligned(size))


def _aligned(size: int) -> int:
    return size + 3 & ~3


def parse_attributes(data: bytes, start: int) -> dict[int, bytes]:
    """The attributes (length, type, value, padding to 4 bytes) from `start` on, which is a multiple of 2."""
    # a dump has hundreds of them, and this is three times as fast as slices of bytes
    pairs = memoryview(data)[: len(data) & ~1].cast("H")
    found: dict[int, bytes] = {}
    end = len(data) - 3
    while start < end:
        size = pairs[start >> 1]
        found[pairs[(start >> 1) + 1] & _ATTRIBUTE_TYPE] = data[start + 4 : start + size]
        start += size + 3 & ~3 or 4
    return found


def _add_link(found: dict[int, Interface], body: bytes) -> None:
    index, flags = _number(body[4:8]), _number(body[8:12])
    attributes = parse_attributes(body, 16)
    name = attributes.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode("utf-8", "surrogateescape")
    information = parse_attributes(attributes.get(_IFLA_LINKINFO, b""), 0)
    port = information.get(_IFLA_INFO_SLAVE_KIND, b"").rstrip(b"\0") in _LOWER_LAYER
    kind = information.get(_IFLA_INFO_KIND, b"").rstrip(b"\0").decode("ascii", "replace")
    found[index] = Interface(name, index, flags, port, kind)


def _add_address(found: dict[int, Interface], body: bytes) -> None:
    interface = found.get(_number(body[4:8]))
    attributes = parse_attributes(body, 8)
    own = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS)  # on a point-to-point link that is the other end
    if interface is None or not own:
        return
    if body[0] == _socket.AF_INET:
        broadcast = attributes.get(_IFA_BROADCAST)
        interface.add_ipv4(_socket.inet_ntoa(own), body[1], _socket.inet_ntoa(broadcast) if broadcast else None)
    elif body[0] == _socket.AF_INET6:
        interface.add_ipv6(_socket.inet_ntop(_socket.AF_INET6, own), body[1])


def from_psutil() -> dict[int, Interface]:
    """The same from psutil, for systems without netlink; its statistics name the flags from version 5.9.3 on."""
    import psutil

    states = psutil.net_if_stats()
    found: dict[int, Interface] = {}
    for name, addresses in psutil.net_if_addrs().items():
        state = states.get(name)
        words = getattr(state, "flags", "").split(",")
        flags = (_IFF_UP | _IFF_RUNNING) * bool(state is not None and state.isup)
        flags |= _IFF_BROADCAST * ("broadcast" in words) | _IFF_MULTICAST * ("multicast" in words)
        flags |= _IFF_LOOPBACK * ("loopback" in words)
        try:
            interface = Interface(name, _socket.if_nametoindex(name), flags)
        except OSError:
            continue
        for one in addresses:
            if one.family == _socket.AF_INET:
                prefix = bin(int.from_bytes(_socket.inet_aton(one.netmask or "255.255.255.255"), "big")).count("1")
                interface.add_ipv4(one.address, prefix, one.broadcast)
            elif one.family == _socket.AF_INET6:
                mask = _socket.inet_pton(_socket.AF_INET6, one.netmask) if one.netmask else bytes(15)
                interface.add_ipv6(one.address.partition("%")[0], int.from_bytes(mask, "big").bit_count())
        found[interface.index] = interface
    return found
