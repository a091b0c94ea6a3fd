"""The datagrams of a group that concern the applications of a process; the one place where datagrams are forwarded.

Contract: `GroupReceiver.receive(now)` never blocks and returns (datagram, source, socket) for everything whose mac1 is
right under one of the keys.  The kernel gives a unicast datagram to one process of a host only: it is passed on to the
others, also where its key is unknown here, since it may be another process's; what has been passed on to us comes with
its original source, and is never passed on again.  `Datagram.doubted` is True if its source may be invented, because
another user, or somebody who is not known, has passed it on.  docs/protocol.md section 2.5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cexec.net.heard_datagrams import HeardDatagrams
from cexec.protocol.base.token_bucket import TokenBucket
from cexec.protocol.datagrams import datagram, forwarded

if TYPE_CHECKING:
    import _socket
    from collections.abc import Sequence

    from cexec.net.group_sockets import GroupSockets
    from cexec.net.groups import Sockaddr
    from cexec.protocol.datagrams.datagram import Datagram

KNOWN_RATE, UNKNOWN_RATE = 5000.0, 500.0  # unicast datagrams a second (ours) that are passed on, by whether mac1 fits
MAXIMUM_STRANGERS = 100  # datagrams (ours) that are kept between two looks


class GroupReceiver:
    """Reads the sockets of one group."""

    def __init__(
        self, groups: GroupSockets, mac1_keys: Sequence[bytes], now: float, *, keep_strangers: bool = False
    ) -> None:
        """`keep_strangers`: what is of unknown applications is kept for `take_strangers`."""
        self._groups = groups
        self._keys = [datagram.BegunHashes(key) for key in mac1_keys]
        self._known = TokenBucket(KNOWN_RATE, KNOWN_RATE, now)
        self._unknown = TokenBucket(UNKNOWN_RATE, UNKNOWN_RATE, now)
        self._strangers: list[tuple[bytes, Sockaddr]] | None = [] if keep_strangers else None
        self._heard = HeardDatagrams(groups)

    def receive(self, now: float) -> list[tuple[Datagram, Sockaddr, _socket.socket]]:
        """Returns the datagrams that have come."""
        found: list[tuple[Datagram, Sockaddr, _socket.socket]] = []
        passing: dict[_socket.socket, list[bytes]] = {}
        for data, source, via, unicast, _, believed in self._heard.read():
            parsed = datagram.parse_keyed(data, self._keys)
            if unicast:
                bucket = self._unknown if parsed is None else self._known
                if bucket.left(now) and forwarded.may_be_wrapped(data):
                    bucket.spend(1.0)
                    self._heard.passed_on(data, source)
                    passing.setdefault(via, []).append(forwarded.wrap(data, source))
            if parsed is not None:
                parsed.unicast, parsed.doubted = unicast, not believed
                found.append((parsed, source, via))
            elif self._strangers is not None and forwarded.may_be_wrapped(data):
                self._strangers.append((data, source))
                del self._strangers[MAXIMUM_STRANGERS:]
        for via, datagrams in passing.items():
            self._groups.forward(datagrams, via)
        return found

    def pass_strangers_over(self) -> None:
        """Keeps none of them from now on."""
        self._strangers = None

    def take_strangers(self) -> list[tuple[bytes, Sockaddr]]:
        """Whole datagrams of this protocol under keys that are not known here, with their sources."""
        if self._strangers is None:
            return []
        taken, self._strangers = self._strangers, []
        return taken
