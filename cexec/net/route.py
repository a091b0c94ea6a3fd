"""Asks the kernel's routes: by which address others see this host, and who is on which link.

Contract: nothing is sent.  `address_towards` never raises.  `link_of` returns the index of the interface on whose link
a host is, OWN for this host itself, or None for a host behind a router or without any route; and UNKNOWN where there is
no netlink to ask.
"""

from __future__ import annotations

import _socket
import sys

from cexec.net.announcer import open_datagram_socket
from cexec.net.destinations import interface_index
from cexec.net.interfaces import parse_attributes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cexec.net.groups import GroupEntry, Sockaddr


OWN, UNKNOWN = 0, -1  # no interface has these indexes

# <linux/rtnetlink.h> and <linux/netlink.h>
_REQUEST = 1  # NLM_F_REQUEST
_RTM_NEWROUTE, _RTM_GETROUTE = 24, 26
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_VIA = 1, 4, 5, 18
_RTN_UNICAST, _RTN_LOCAL = 1, 2
_HEADER, _ROUTE = 16, 12  # bytes of a netlink message header and of a struct rtmsg
_ANSWER_SIZE = 8192  # bytes: one route with all its attributes


def link_of(host: str, scope: int = 0) -> int | None:
    """The index of the interface on whose link `host` is; `scope`: that of an IPv6 address."""
    if not hasattr(_socket, "AF_NETLINK"):
        return UNKNOWN
    family = _socket.AF_INET6 if ":" in host else _socket.AF_INET
    try:
        packed = _socket.inet_pton(family, host.partition("%")[0])
        body = _ask(family, packed, scope)
    except (OSError, ValueError):
        return None
    kind, attributes = body[7], parse_attributes(body, _ROUTE)
    if kind == _RTN_LOCAL:
        return OWN
    if kind != _RTN_UNICAST or _RTA_GATEWAY in attributes or _RTA_VIA in attributes:
        return None
    return int.from_bytes(attributes.get(_RTA_OIF, b""), sys.byteorder) or None


def _ask(family: int, packed: bytes, scope: int) -> bytes:
    """Returns the body of the kernel's answer; OSError if there is no route."""
    attributes = _attribute(_RTA_DST, packed)
    if scope:
        attributes += _attribute(_RTA_OIF, scope.to_bytes(4, sys.byteorder))
    route = bytes([family, 8 * len(packed)]) + bytes(_ROUTE - 2)
    size = _HEADER + len(route) + len(attributes)
    header = ((size, 4), (_RTM_GETROUTE, 2), (_REQUEST, 2), (1, 4), (0, 4))
    channel = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW, _socket.NETLINK_ROUTE)
    try:
        channel.send(b"".join(value.to_bytes(width, sys.byteorder) for value, width in header) + route + attributes)
        answer = channel.recv(_ANSWER_SIZE)
    finally:
        channel.close()
    if int.from_bytes(answer[4:6], sys.byteorder) != _RTM_NEWROUTE:
        number = -int.from_bytes(answer[_HEADER : _HEADER + 4], sys.byteorder, signed=True)
        raise OSError(number, "no route")
    return answer[_HEADER : int.from_bytes(answer[:4], sys.byteorder)]


def _attribute(kind: int, value: bytes) -> bytes:
    return (4 + len(value)).to_bytes(2, sys.byteorder) + kind.to_bytes(2, sys.byteorder) + value


def address_towards(entry: GroupEntry) -> str:
    """The address of ours that a datagram to a group's ADDRESS would come from, without scope; empty: none would."""
    sockaddr: Sockaddr = (entry.address, entry.port or 1)
    if ":" in entry.address:
        sockaddr = (*sockaddr, 0, interface_index(entry.interface))
    try:
        asking = open_datagram_socket(entry.family)
    except OSError:
        return ""
    try:
        asking.connect(sockaddr)
        return str(asking.getsockname()[0]).partition("%")[0]
    except OSError:
        return ""
    finally:
        asking.close()
