"""The datagrams that one group hears, each with the source that it came from, whichever process of the host has got it.

Contract: `HeardDatagrams(groups).read()` never blocks and yields for each one that may be of this protocol (data,
source, via, unicast, forwarded, believed): first those that other processes pass on, then those that have come by
themselves.  `unicast` is True if a datagram was sent to this machine alone, so that only this process has got it.
`believed` is False if another user, or somebody who is not known, has passed a datagram on: its source may be invented.
A copy of what is believed already is left out then; `passed_on` notes what this process passes on itself.  A source
that no host can have is left out always.  docs/protocol.md section 2.5.

In a flood these are plain tuples for a reason: making a NamedTuple takes 0.5 us, an eighth of all that an ignored
datagram costs (docs/performance.md, "Ignored datagrams").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cexec.errors import ProtocolError
from cexec.net.connecting import peer_family
from cexec.protocol.datagrams import datagram, forwarded

if TYPE_CHECKING:
    import _socket
    from collections.abc import Iterator
    from typing import TypeAlias

    from cexec.net.group_sockets import GroupSockets
    from cexec.net.groups import Sockaddr

    # data, source, the socket that heard it, and the three flags of the contract
    HeardDatagram: TypeAlias = tuple[bytes, Sockaddr, _socket.socket, bool, bool, bool]

MAXIMUM_BELIEVED = 4096  # (ours) datagrams whose copies from elsewhere are known


class HeardDatagrams:
    """What comes to one group."""

    def __init__(self, groups: GroupSockets) -> None:
        self._groups = groups
        self._believed: dict[tuple[bytes, bytes, Sockaddr], None] = {}  # by number of transmission, mac1 and source

    def read(self) -> Iterator[HeardDatagram]:
        for wrapped, via, believed in self._groups.receive_forwarded():
            yield from self._unwrap(wrapped, via, believed=believed)
        for data, source, via, unicast in self._groups.receive(prefix=datagram.PREFIX):
            if len(data) <= datagram.INNER_START:
                continue
            if data[datagram.KIND_AT] != datagram.FORWARDED:
                yield data, source, via, unicast, False, True
            elif is_loopback(source):
                yield from self._unwrap(data, via, believed=False)

    def passed_on(self, data: bytes, source: Sockaddr) -> None:
        """Notes a datagram that comes back from the loopback."""
        if len(self._believed) >= MAXIMUM_BELIEVED:
            del self._believed[next(iter(self._believed))]
        self._believed[_copy(data, source)] = None

    def _unwrap(self, wrapped: bytes, via: _socket.socket, *, believed: bool) -> Iterator[HeardDatagram]:
        original = forwarded.unwrap(wrapped)
        if original is None or not may_be_source(original[1]):
            return
        if believed:
            self.passed_on(*original)
        elif _copy(*original) in self._believed:
            return
        yield *original, via, False, True, believed


def may_be_source(source: Sockaddr) -> bool:
    """Returns True if a host may have this address and port; somebody has written them into a datagram."""
    try:
        peer_family(source)
    except ProtocolError:
        return False
    return True


def is_loopback(source: Sockaddr) -> bool:
    """The kernel drops what claims such a source and comes from outside."""
    return bool(source[0].startswith("127."))


def _copy(data: bytes, source: Sockaddr) -> tuple[bytes, bytes, Sockaddr]:
    return data[datagram.COUNTER], data[datagram.MAC1_START : datagram.INNER_START], source[:2]
