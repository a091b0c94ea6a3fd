"""One of the two networks of a relay: hears its group and its answers, and sends to it.

Contract: `hear` returns datagrams for the group, `replies` those that were sent back to us alone; neither blocks.  A
datagram for this host alone is forwarded to its other processes, and datagrams that they forward are heard; of
announcements whose source a local user may have invented, few count (docs/protocol.md section 2.5).  Datagrams of this
host on its own loopback are ignored, unless the group is there.  `refresh` follows the interfaces.  Only the
constructor raises, and only `LocalError` and `UsageError`.
"""

from __future__ import annotations

from time import monotonic

from cexec.errors import CexecError
from cexec.net.announcer import Announcer
from cexec.net.group_sockets import GroupSockets
from cexec.net.heard_datagrams import HeardDatagrams, is_loopback
from cexec.net.route import OWN, UNKNOWN, link_of
from cexec.protocol.base.token_bucket import TokenBucket
from cexec.protocol.datagrams import datagram, forwarded
from cexec.relay.host_names import Names

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable

    from cexec.net.groups import Sockaddr
    from cexec.net.mdns import Registration
    from cexec.relay.networks import Network

FORWARDING_RATE = 2000.0  # datagrams a second (ours) that are passed on to other processes of this host
UNBELIEVED_RATE, UNBELIEVED_BURST = 0.2, 10.0  # announcements a second (ours) of sources that may be invented


class Side:
    """One network; `make_plan` returns its present form, and raises `CexecError` if it is not there."""

    def __init__(self, number: int, make_plan: Callable[[], Network], port: int) -> None:
        self.number = number
        self._make_plan = make_plan
        self._port = port
        self._forwarding = TokenBucket(FORWARDING_RATE, FORWARDING_RATE, monotonic())
        self._unbelieved = TokenBucket(UNBELIEVED_RATE, UNBELIEVED_BURST, monotonic())
        self._registration: Registration | None = None
        self._open(make_plan())

    def _open(self, network: Network) -> None:
        self._groups = GroupSockets(network.heard, self._port)
        self._heard = HeardDatagrams(self._groups)
        self._names = Names(network.sent_to, self._port)
        self._entries = self._names.entries(monotonic())
        self._announcer = Announcer(self._entries, self._port)
        self._network = network
        if network.registered and self._registration is None:
            from cexec.net.mdns import Registration

            self._registration = Registration(self._port, monotonic())

    @property
    def labels(self) -> list[str]:
        """The addresses that are sent to, for people."""
        return self._network.labels

    @property
    def loopback(self) -> bool:
        """True if answers can come from this host only."""
        return self._announcer.loopback

    @property
    def ipv6(self) -> bool:
        """True if an answer may come by IPv6."""
        return self._announcer.ipv6

    @property
    def failures(self) -> dict[str, str]:
        """The destinations that the last datagram could not be sent to, and why."""
        return self._announcer.failures

    def on_link(self, source: Sockaddr) -> bool:
        """True if a host is on a link of this network, not behind a router, or is this host."""
        link = link_of(str(source[0]), source[3] if len(source) == 4 else 0)
        return link is not None and (link in (OWN, UNKNOWN) or self._network.has_link(link))

    def hear(self, now: float) -> list[tuple[bytes, Sockaddr, _socket.socket]]:
        """Datagrams for the group or for this host, where they came from, and the socket that heard them."""
        found: list[tuple[bytes, Sockaddr, _socket.socket]] = []
        if self._registration is not None:
            self._registration.receive()
        passing: dict[_socket.socket, list[bytes]] = {}
        for data, source, via, unicast, passed_on, believed in self._heard.read():
            if passed_on:
                if believed or self._may_be_true(data, now):
                    found.append((data, source, via))
                continue
            if is_loopback(source) and not self._network.loopback:
                continue
            if unicast and forwarded.may_be_wrapped(data) and self._forwarding.left(now):
                self._forwarding.spend(1.0)
                self._heard.passed_on(data, source)
                passing.setdefault(via, []).append(forwarded.wrap(data, source))
            found.append((data, source, via))
        for via, datagrams in passing.items():
            self._groups.forward(datagrams, via)
        return found

    def _may_be_true(self, data: bytes, now: float) -> bool:
        """Bounds the connections to sources that a local user may have invented; other kinds cause none."""
        if data[datagram.KIND_AT] != datagram.ANNOUNCEMENT:
            return True
        if not self._unbelieved.left(now):
            return False
        self._unbelieved.spend(1.0)
        return True

    def replies(self) -> list[tuple[bytes, Sockaddr]]:
        """Datagrams that were sent back to where ours came from."""
        return self._announcer.receive()

    def send(self, data: bytes) -> list[str]:
        """Sends to the whole network; returns the labels of the destinations that took it."""
        return self._announcer.send(data)

    def believe(self, host: str) -> None:
        """Notes that a worker has answered from a host, or connected."""
        self._announcer.answered(host)

    def send_to(self, data: bytes, address: Sockaddr, via: _socket.socket) -> None:
        """Sends to one host, from the socket that heard it."""
        self._groups.send_to(data, address, via)

    def filenos(self) -> list[int]:
        """Returns the descriptors to wait for, which may differ on every call."""
        fds = self._groups.filenos() + self._announcer.filenos()
        if self._registration is not None and self._registration.fileno() >= 0:
            fds.append(self._registration.fileno())
        return fds

    def refresh(self) -> bool:
        """Follows the interfaces; returns True if anything changed.  If the network has gone away, it waits for it."""
        if self._registration is not None:
            self._registration.refresh(monotonic())
        try:
            network = self._make_plan()
            if network.texts != self._network.texts:
                self._close_sockets()
                self._open(network)
                return True
        except CexecError:
            pass
        entries = self._names.entries(monotonic())
        if [entry.text for entry in entries] != [entry.text for entry in self._entries]:
            self._entries = entries
            self._announcer.close()
            self._announcer = Announcer(entries, self._port)
        return self._groups.refresh()

    def news(self) -> str | None:
        """Returns a line for the log, once, or None."""
        return None if self._registration is None else self._registration.news()

    def close(self) -> None:
        """May be called again."""
        self._close_sockets()
        if self._registration is not None:
            self._registration.close()

    def _close_sockets(self) -> None:
        self._groups.close()
        self._announcer.close()
