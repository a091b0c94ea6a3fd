"""Forwarding: how a datagram that the kernel gave to one process reaches the other processes of its host.

Contract: `wrap` makes a datagram of kind FORWARDED, `unwrap` returns what was wrapped and where it came from, or None
for everything else.  It has no mac1 of its own, because the process that wraps it need not know the key.  The process
that unwraps it must have received it from its own host, checks the mac1 inside, and never wraps it again.  `pack` makes
messages of several of them for an AF_UNIX socket, and `split` returns what is in one; what is damaged is left out.
docs/protocol.md section 2.5.
"""

from __future__ import annotations

from ipaddress import ip_address

from cexec.errors import ProtocolError
from cexec.protocol.base.limits import MAXIMUM_DATAGRAM, MAXIMUM_FORWARDED
from cexec.protocol.base.wire import Reader, Writer
from cexec.protocol.datagrams import datagram

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, TypeAlias

    Sockaddr: TypeAlias = tuple[Any, ...]  # (host, port), and for IPv6 (host, port, flow, scope)

NO_MAC1 = bytes(datagram.MAC1_SIZE)
MAXIMUM_MESSAGE = 49_152  # (ours) bytes of a message on an AF_UNIX socket, of which few may wait


def may_be_wrapped(data: bytes) -> bool:
    """Returns True if `data` has the shape of a datagram of this protocol and is not a wrapped one."""
    return (
        datagram.INNER_START < len(data) <= MAXIMUM_DATAGRAM
        and data.startswith(datagram.PREFIX)
        and data[datagram.KIND_AT] in datagram.KINDS
        and data[datagram.KIND_AT] != datagram.FORWARDED
    )


def wrap(data: bytes, source: Sockaddr) -> bytes:
    """`data`, for which `may_be_wrapped` is true, and the address that it came from."""
    scope = source[3] if len(source) == 4 else 0
    address = ip_address(source[0].partition("%")[0]).packed
    inner = bytes(Writer().short_bytes(address).u16(source[1]).u32(scope).raw(data))
    return datagram.PREFIX + bytes([datagram.FORWARDED, 0, 0]) + bytes(4) + NO_MAC1 + inner


def unwrap(data: bytes) -> tuple[bytes, Sockaddr] | None:
    """Returns the original datagram and the address that it came from."""
    if not data.startswith(datagram.PREFIX) or len(data) > MAXIMUM_FORWARDED:
        return None
    if data[datagram.KIND_AT : datagram.KIND_AT + 1] != bytes([datagram.FORWARDED]):
        return None
    reader = Reader(data[datagram.INNER_START :])
    try:
        host, port, scope = str(ip_address(reader.short_bytes())), reader.u16(), reader.u32()
        inner = reader.rest()
    except (ProtocolError, ValueError):
        return None
    if not may_be_wrapped(inner):
        return None
    return inner, (host, port, 0, scope) if ":" in host else (host, port)


def pack(datagrams: Iterable[bytes]) -> list[bytes]:
    """Returns messages that hold these wrapped datagrams, each with its length before it."""
    messages: list[bytes] = []
    parts: list[bytes] = []
    size = 0
    for data in datagrams:
        if size + 2 + len(data) > MAXIMUM_MESSAGE:
            messages.append(b"".join(parts))
            parts, size = [], 0
        parts.append(len(data).to_bytes(2, "big") + data)
        size += 2 + len(data)
    return [*messages, b"".join(parts)] if parts else messages


def split(message: bytes) -> list[bytes]:
    """Returns the wrapped datagrams of a message."""
    found: list[bytes] = []
    start = 0
    while start + 2 < len(message):
        end = start + 2 + int.from_bytes(message[start : start + 2], "big")
        if end > len(message) or end == start + 2:
            break
        found.append(message[start + 2 : end])
        start = end
    return found
