"""A sender's datagram sockets: send to a group, hear the answers.

Contract: `Announcer(entries, port)` opens at most one UDP socket for each of IPv4 and IPv6, when first needed, bound to
any free port (on the loopback when every entry is loopback).  `send(data)` sends one datagram to every destination that
exists at this moment (interfaces are read again each time) and returns the labels of those that the kernel took;
`failures` says what became of the others.  `receive()` never blocks.  No method raises because of the network.
With `mdns` in the group, or after `browse()`, what multicast DNS finds is sent the last datagram at once, by `receive`,
and later ones, all of them once it has answered (`found_hosts`).  `send_parting(data)` sends to what is known by then
and waits for nothing, also after `close`.  `clocks()` is what announcements say of the time.  docs/protocol.md section
2.
"""

from __future__ import annotations

import _socket
import errno
import sys
from time import clock_gettime, monotonic, time

from cexec.net.destinations import Destination, address_label, destinations
from cexec.net.groups import MDNS, NAME, all_loopback, uses_ipv6
from cexec.protocol.base.limits import MAXIMUM_DATAGRAM
from cexec.system.reason import reason_of

try:
    from time import CLOCK_BOOTTIME
except ImportError:  # only Linux has it
    from time import CLOCK_MONOTONIC as CLOCK_BOOTTIME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cexec.net.found_hosts import FoundHosts
    from cexec.net.groups import GroupEntry, Sockaddr
    from cexec.net.mdns import Browser, Registration
    from cexec.net.resolver import Resolver

LINUX = sys.platform == "linux"
_IP_MTU_DISCOVER, _IP_PMTUDISC_DONT = 10, 0  # <linux/in.h>: let routers fragment, so that no path MTU is a black hole
_IP_UNICAST_IF = 50  # <linux/in.h>: the interface of what goes to 255.255.255.255
LONGEST_SEARCH, _SHORT_SEARCH = 2.0, 0.6  # seconds (ours) that `settle` waits; the second if there are other entries
_QUIET_SEARCH = 0.2  # seconds (ours) that it waits after the last find
_INTERFACES_KEPT = 1.0  # seconds (ours) that interfaces count as unchanged
_MAXIMUM_RECEIVED = 256  # datagrams (ours) in one call of receive


def open_datagram_socket(family: int) -> _socket.socket:
    """A non-blocking UDP socket that may broadcast and whose multicast is also heard on this machine."""
    created = _socket.socket(family, _socket.SOCK_DGRAM, _socket.IPPROTO_UDP)
    try:
        created.setblocking(False)
        if family == _socket.AF_INET6:
            created.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 1)
            created.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_MULTICAST_LOOP, 1)
        else:
            created.setsockopt(_socket.SOL_SOCKET, _socket.SO_BROADCAST, 1)
            created.setsockopt(_socket.IPPROTO_IP, _socket.IP_MULTICAST_LOOP, 1)
            if LINUX:
                created.setsockopt(_socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DONT)
    except OSError:
        created.close()
        raise
    return created


def send_datagram(via: _socket.socket, data: bytes, destination: Destination) -> None:
    """Send to one destination, through the interface that it names."""
    limited = destination.interface and destination.hops is None and LINUX
    if destination.hops is not None:
        _aim_multicast(via, destination.family, destination.interface, destination.hops)
    elif limited:
        via.setsockopt(_socket.IPPROTO_IP, _IP_UNICAST_IF, destination.interface.to_bytes(4, "big"))
    try:
        via.sendto(data, destination.sockaddr)
    finally:
        if limited:
            via.setsockopt(_socket.IPPROTO_IP, _IP_UNICAST_IF, 0)


def _aim_multicast(via: _socket.socket, family: int, interface: int, hops: int) -> None:
    if family == _socket.AF_INET6:
        via.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_MULTICAST_IF, interface)
        via.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_MULTICAST_HOPS, hops)
    else:
        request = bytes(8) + interface.to_bytes(4, sys.byteorder)  # struct ip_mreqn
        via.setsockopt(_socket.IPPROTO_IP, _socket.IP_MULTICAST_IF, request)
        via.setsockopt(_socket.IPPROTO_IP, _socket.IP_MULTICAST_TTL, hops)


class Announcer:
    """Sends one application's datagrams to its group; see the module's contract."""

    __slots__ = (
        "_browser", "_chosen", "_closed", "_entries", "_found", "_last", "_looked", "_mdns", "_port", "_resolver",
        "_sockets", "_unused", "failures", "ipv6", "loopback",
    )  # fmt: skip

    def __init__(self, entries: Sequence[GroupEntry] | None, port: int) -> None:
        self.loopback = all_loopback(entries)  # nothing leaves this machine, so the listener need not be seen outside
        self.ipv6 = uses_ipv6(entries)  # a worker may come by IPv6
        self.failures: dict[str, str] = {}  # label -> why the last transmission did not go there
        self._entries = entries
        self._port = port
        self._sockets: dict[int, _socket.socket] = {}
        self._closed = False
        self._found: FoundHosts | None = None  # by multicast DNS
        self._last = b""  # what was sent last
        self._chosen: list[Destination] = []  # by addresses and interfaces, when these were looked at
        self._unused: dict[str, str] = {}  # and what they had no place for
        self._looked = float("-inf")
        self._mdns = any(entry.kind == MDNS for entry in entries or ())
        self._browser: Browser | Registration | None = None
        self._resolver: Resolver | None = None
        if names := [entry for entry in entries or () if entry.kind == NAME]:
            from cexec.net.resolver import Resolver  # most groups have no names

            self._resolver = Resolver(names, port)

    def browse(self) -> None:
        """Look for workers by multicast DNS from now on, in a process of its own; may be called again."""
        if self._browser is None:
            from cexec.net.found_hosts import FoundHosts
            from cexec.net.mdns import Browser

            self._browser = Browser(idly=not self._mdns)
            self._found = FoundHosts(patient=False, now=monotonic())

    def share(self, registration: Registration) -> None:
        """Send to what the process of this registration finds, instead of starting another one."""
        from cexec.net.found_hosts import FoundHosts

        self._browser = registration
        self._found = FoundHosts(patient=True, now=monotonic())
        for family in (_socket.AF_INET, _socket.AF_INET6):  # not with the first find, when descriptors may have run out
            try:
                self._open(family)
            except OSError:
                continue  # there is no such family here

    def settle(self) -> None:
        """With `mdns` in the group: wait for multicast DNS to find workers; for a caller that asks only once."""
        if not self._mdns or self._browser is not None:
            return
        from select import POLLIN, poll

        from cexec.system.io.wakeup import poll_timeout

        self.browse()
        now = monotonic()
        alone = all(entry.kind == MDNS for entry in self._entries or ())
        deadline = until = now + (LONGEST_SEARCH if alone else _SHORT_SEARCH)
        while now < until and self._browser is not None and self._browser.fileno() >= 0:
            waiting = poll()
            waiting.register(self._browser.fileno(), POLLIN)
            waiting.poll(poll_timeout(until - now))
            before = self._count_found()
            self._add_found()
            now = monotonic()
            if self._count_found() > before:
                until = min(deadline, now + _QUIET_SEARCH)

    def answered(self, host: str) -> None:
        """Notes an authenticated answer from a host: if multicast DNS has found it, that was no invention."""
        if self._found is not None:
            self._found.answered(host)

    def _count_found(self) -> int:
        return 0 if self._found is None else len(self._found)

    def _add_found(self) -> None:
        """Unicast destinations, as multicast DNS finds and loses them; a new one gets what was sent last."""
        if self._browser is None or self._found is None:
            return
        now = monotonic()
        new, gone = self._browser.finds()
        for sockaddr in gone:
            self._found.remove(sockaddr)
        for family, sockaddr in new:
            if family == _socket.AF_INET or self.ipv6:  # else its worker could not connect to us
                text = address_label(sockaddr[0], "", sockaddr[1], self._port)
                self._found.add(Destination(family, sockaddr, text), now)
        if self._last:
            self._send_to_each(self._last, self._found.new(now), {})

    def send(self, data: bytes) -> list[str]:
        """Send to every destination; the labels of those it was really sent to."""
        self._last = data
        if self._mdns:
            self.browse()
        if self._resolver is not None:
            self._resolver.start()
        chosen = self._look()
        self.failures = dict(self._unused)
        sent: dict[str, None] = {}
        found = [] if self._found is None else self._found.due(monotonic())
        self._send_to_each(data, [*chosen, *found], sent)
        if self._resolver is not None:
            self._send_to_each(data, self._resolver.results(), sent)
            self.failures.update(self._resolver.failures)
        if self._mdns and (failure := getattr(self._browser, "failure", None)):
            self.failures[MDNS] = failure
        for label in sent:  # a name of which one address works is no failure
            self.failures.pop(label, None)
        return list(sent)

    @property
    def hopeless(self) -> str:
        """Why waiting is in vain: the group has nothing but names that do not exist; empty if somebody may hear."""
        absent = [] if self._resolver is None else self._resolver.absent()
        if not absent or len(absent) < len(self._entries or ()):
            return ""
        from cexec.net.resolver import NO_SUCH_NAME

        return "; ".join(f"{text}: {NO_SUCH_NAME}" for text in absent)

    def send_parting(self, data: bytes) -> None:
        """Send to every destination that is known by now, and look for no others."""
        found = [] if self._found is None else self._found.parting(monotonic())
        named = [] if self._resolver is None else self._resolver.known()
        self._send_to_each(data, [*self._look(), *found, *named], {})
        if self._closed:
            self.close()

    def _look(self) -> list[Destination]:
        """Asking for the interfaces costs more than all else about a datagram, where many are sent."""
        now = monotonic()
        if now - self._looked >= _INTERFACES_KEPT:
            self._chosen, self._unused = destinations(self._entries, self._port)
            self._looked = now
        return self._chosen

    def _send_to_each(self, data: bytes, chosen: Iterable[Destination], sent: dict[str, None]) -> None:
        for destination in chosen:
            try:
                via = self._sockets.get(destination.family) or self._open(destination.family)
                send_datagram(via, data, destination)
            except OSError as error:
                hint = " (a firewall rule?)" if error.errno == errno.EPERM else ""
                self.failures[destination.label] = reason_of(error) + hint
            else:
                sent[destination.label] = None

    def _open(self, family: int) -> _socket.socket:
        created = open_datagram_socket(family)
        try:
            if self.loopback:
                created.bind(("127.0.0.1", 0) if family == _socket.AF_INET else ("::1", 0))
        except OSError:
            created.close()
            raise
        self._sockets[family] = created
        return created

    def receive(self) -> list[tuple[bytes, Sockaddr]]:
        """Returns the datagrams that have come, with their senders."""
        received: list[tuple[bytes, Sockaddr]] = []
        if self._browser is not None:
            self._add_found()
        for one in self._sockets.values():
            try:
                while len(received) < _MAXIMUM_RECEIVED:
                    data, sender = one.recvfrom(MAXIMUM_DATAGRAM + 1)
                    if len(data) <= MAXIMUM_DATAGRAM:
                        received.append((data, sender))
            except OSError:
                continue  # there is no more
        return received

    def filenos(self) -> list[int]:
        """The descriptors to select for reading; `send` may make this list longer."""
        fds = [one.fileno() for one in self._sockets.values()]
        return fds if self._browser is None or self._browser.fileno() < 0 else [*fds, self._browser.fileno()]

    def close(self) -> None:
        """Close the sockets; may be called again."""
        if self._browser is not None and not self._closed:
            self._last = b""
            self._add_found()  # what it has said by now stays known
            self._browser.close()
        self._closed = True
        for one in self._sockets.values():
            one.close()
        self._sockets.clear()


def clocks() -> tuple[int, int]:
    """Returns what an announcement of this moment says: `clock` in milliseconds since 1970, and `boot` in seconds."""
    now = time()
    return int(now * 1000), int(now - clock_gettime(CLOCK_BOOTTIME))
