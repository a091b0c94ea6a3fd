"""A group's sockets on the protocol's UDP port, for cservice, crat and cproxy.

Contract: `GroupSockets(entries, port)` opens sockets that hear every entry that is of this machine: broadcast
addresses, multicast groups on their interfaces, addresses of its own.  Entries that are other hosts are only ever sent
to; `unheard` names them.  Any number of processes of any users may do so at once: broadcast and multicast reach each of
them, a unicast datagram reaches one, which must pass it on with `forward`; the others get it by `receive_forwarded`.
`refresh()`, at least every REFRESH_INTERVAL, notices what came, went and changed; `filenos()` may differ afterwards.
Only the constructor raises, and only LocalError.  Names are looked up by the constructor, which waits for that, and
again by a refresh that finds the interfaces changed; those that were not found are asked for again from one refresh to
the next.  With `mdns` this machine is registered, until `leave` or `close`.  docs/protocol.md section 2.
"""

from __future__ import annotations

import _socket
import errno
import sys
from time import monotonic
from typing import TYPE_CHECKING

from cexec.errors import LocalError, ProtocolError
from cexec.net.announcer import LINUX, open_datagram_socket
from cexec.net.batches import make_batches
from cexec.net.connecting import peer_family
from cexec.net.groups import MDNS, NAME
from cexec.net.host_link import HostLink
from cexec.net.interfaces import interfaces
from cexec.net.listen_plan import ListenPlan
from cexec.net.resolver import Resolver, resolve
from cexec.system.reason import reason_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cexec.net.batches import Heard
    from cexec.net.destinations import Destination
    from cexec.net.groups import GroupEntry, Sockaddr
    from cexec.net.interfaces import Interface
    from cexec.net.listen_plan import Listening
    from cexec.net.mdns import Registration

REFRESH_INTERVAL = 10.0  # seconds (protocol) at most between two calls of refresh
RECEIVE_LIMIT = 256  # datagrams (ours) of one socket in one call of receive
_RECEIVE_BUFFER = 4 * 1024 * 1024  # bytes (ours): the default of 208 KiB held 166 of 5,000 datagrams of a burst
_SO_RCVBUFFORCE, _SO_MEMINFO, _SO_BINDTOIFINDEX = 33, 55, 62  # <asm-generic/socket.h>
_MEMINFO_DROPS = 8 * 4  # bytes before SK_MEMINFO_DROPS, <linux/sock_diag.h>
_IP_PKTINFO, _IP_MULTICAST_ALL, _IPV6_MULTICAST_ALL = 8, 49, 29  # <linux/in.h>, <linux/in6.h>
_NOT_OURS = (errno.EADDRNOTAVAIL, errno.ENODEV, errno.EAFNOSUPPORT)


class _Open:
    """An open socket, its plan, and the memberships it has: (group, index) -> the interface's addresses then."""

    __slots__ = ("hearing", "joined", "socket")

    def __init__(self, hearing: Listening, created: _socket.socket) -> None:
        self.hearing = hearing
        self.socket = created
        self.joined: dict[tuple[str, int], tuple[str, ...]] = {}


class GroupSockets:
    """The sockets that hear one group; see the module's contract."""

    def __init__(self, entries: Sequence[GroupEntry] | None, port: int) -> None:
        self._entries = entries
        self._port = port
        self._open: dict[tuple[int, str, int, int], _Open] = {}
        self._resolved: dict[str, list[tuple[int, str]]] = {}
        self._unresolved: dict[str, str] = {}  # names, and why nothing is known of them
        self._resolver = Resolver([], port)  # for those
        self._known: list[tuple[str, int, bool, list[str]]] | None = None  # the interfaces at the last refresh
        self._labels: list[str] = []
        self._batches = make_batches()
        self._dropped = 0  # by sockets that are closed
        self._link = HostLink()
        self._broadcasts: set[str] = set()  # of this machine's networks
        self._registration: Registration | None = None
        self.unheard: dict[str, str] = {}  # entries that are not heard now, and why
        problem = self._update()
        if problem:
            self.close()
            raise LocalError(problem)
        if any(entry.kind == MDNS for entry in entries or ()):
            from cexec.net.mdns import Registration

            self._registration = Registration(port, monotonic())

    def refresh(self) -> bool:
        """Follow the machine's interfaces; whether the sockets or what they hear changed."""
        before = self._state()
        self._update()
        if self._registration is not None:
            self._registration.refresh(monotonic())
        return self._state() != before

    def _state(self) -> tuple[list[_socket.socket], list[str]]:
        return [one.socket for one in self._open.values()], self._labels

    def _update(self) -> str | None:
        """Open, close, join and leave until the sockets are as planned; what to say of a port that is not to be had."""
        found = interfaces()
        if not found and self._known is not None:  # out of descriptors, say: no reason to leave what was joined
            return None
        self._resolve_names(found)
        plan = ListenPlan(self._entries, self._port, found, self._resolved)
        wanted = {hearing.key for hearing in plan.hearings}
        for key in self._open.keys() - wanted:
            self._close_one(self._open.pop(key))
        self._labels = []
        self.unheard = {entry: self._unresolved.get(entry, reason) for entry, reason in plan.unheard.items()}
        problem: str | None = None
        for hearing in plan.hearings:
            number = self._ensure(hearing)
            if number == 0:
                self._labels += hearing.labels
                self._join(self._open[hearing.key], found)
                continue
            self.unheard.update(dict.fromkeys(hearing.labels, _why(number)))
            if number not in _NOT_OURS:
                problem = (
                    f"cannot listen on UDP port {hearing.key[2]} ({hearing.key[1]}): {reason_of(number)}; "
                    "set CEXEC_UDP_PORT to another port, here and for the clients"
                )
        for label in self._labels:  # a name of which one address is ours is heard
            self.unheard.pop(label, None)
        self._broadcasts = {address.broadcast for one in found for address in one.ipv4 if address.broadcast}
        self._link.follow(key[2] for key, one in self._open.items() if one.hearing.unicast is not False)
        return problem

    def _resolve_names(self, found: Iterable[Interface]) -> None:
        """Look names up at the start, and again when the interfaces have changed: a resolver may take its time.

        In between, those that were not found: the name server of a network may start later than its workers.
        """
        state = [(one.name, one.index, one.up, one.addresses()) for one in found]
        if state == self._known:
            self._resolver.start()
            for text, answers in self._resolver.found().items():
                self._resolved[text] = _addresses(answers)
            return
        self._known = state
        self._unresolved = {}
        names = [entry for entry in self._entries or () if entry.kind == NAME]
        for entry in names:
            answers, failure = resolve(entry, self._port)
            self._resolved[entry.text] = _addresses(answers)
            if not answers:
                self._unresolved[entry.text] = failure
        self._resolver = Resolver([entry for entry in names if entry.text in self._unresolved], self._port)

    def _ensure(self, hearing: Listening) -> int:
        """Have the socket of a hearing open; 0 or the error number."""
        present = self._open.get(hearing.key)
        if present is not None:
            present.hearing = hearing
            return 0
        family, address, port, scope = hearing.key
        try:
            created = open_datagram_socket(family)
        except OSError as error:
            return error.errno or errno.EIO
        try:
            _prepare(created, hearing)
            created.bind((address, port) if family == _socket.AF_INET else (address, port, 0, scope))
        except OSError as error:
            created.close()
            return error.errno or errno.EIO
        self._open[hearing.key] = _Open(hearing, created)
        return 0

    def _join(self, one: _Open, found: Iterable[Interface]) -> None:
        """Have exactly the memberships of the plan; again where an interface's addresses have changed."""
        addresses = {interface.index: tuple(interface.addresses()) for interface in found}
        family = one.hearing.key[0]
        for membership, then in list(one.joined.items()):
            if membership not in one.hearing.memberships or addresses.get(membership[1]) != then:
                _change_membership(one.socket, family, *membership, join=False)
                del one.joined[membership]
        for membership, text in one.hearing.memberships.items():
            if membership in one.joined:
                self._labels.append(text)
                continue
            number = _change_membership(one.socket, family, *membership, join=True)
            if number:
                self.unheard[text] = reason_of(number)
            else:
                self._labels.append(text)
                one.joined[membership] = addresses[membership[1]]

    def receive(self, limit: int = RECEIVE_LIMIT, prefix: bytes = b"") -> list[Heard]:
        """Returns the datagrams that begin with `prefix`; at most `limit` datagrams of each socket are looked at."""
        heard: list[Heard] = []
        if self._registration is not None:
            self._registration.receive()
        for one in self._open.values():
            self._batches.receive(one.socket, limit, prefix, one.hearing.unicast, heard)
        return heard

    def receive_forwarded(self) -> list[tuple[bytes, _socket.socket, bool]]:
        """Returns what other processes of this host pass on: the wrapped datagram, a socket, if its source is believed.

        The socket is one that hears the port to which the datagram was sent.
        """
        heard = self._link.receive()
        if not heard:
            return []  # as nearly always in a flood
        sockets = {key[2]: one.socket for key, one in self._open.items()}
        return [(data, sockets[port], believed) for data, port, believed in heard if port in sockets]

    def send_to(self, data: bytes, sockaddr: Sockaddr, via: _socket.socket) -> str | None:
        """Answer from the socket that heard the question, so from the port it was sent to; why it failed, or None.

        The address may be any that somebody has written into a datagram: broadcasts, groups and low ports get nothing.
        """
        try:
            family = peer_family(sockaddr)
        except ProtocolError as error:
            return str(error)
        if sockaddr[0] in self._broadcasts:
            return f"{sockaddr[0]} is a broadcast address"
        if via.fileno() < 0 or via.family != family:
            others = [one.socket for key, one in self._open.items() if key[0] == family]
            if not others:
                return reason_of(errno.EAFNOSUPPORT)
            via = others[0]
        try:
            via.sendto(data, sockaddr)
        except OSError as error:
            return reason_of(error)
        return None

    def forward(self, datagrams: Sequence[bytes], via: _socket.socket) -> str | None:
        """Pass unicast datagrams, wrapped by the caller, to every process here that hears the port of `via`.

        What goes over UDP is heard by this process, too.
        """
        try:
            return self._link.send(datagrams, via.getsockname()[1], monotonic())
        except OSError as error:
            return reason_of(error)

    def filenos(self) -> list[int]:
        """The descriptors to select for reading."""
        fds = self.datagram_filenos()
        if self._registration is not None and self._registration.fileno() >= 0:
            fds.append(self._registration.fileno())
        return fds

    def datagram_filenos(self) -> list[int]:
        """Those of them at which datagrams come, and nothing else."""
        return [one.socket.fileno() for one in self._open.values()] + self._link.filenos()

    @property
    def registration(self) -> Registration | None:
        """With multicast DNS; None without `mdns` in the group."""
        return self._registration

    def news(self) -> str | None:
        """Returns a line for the log when multicast DNS begins to fail or works again; None if nothing has changed."""
        return None if self._registration is None else self._registration.news()

    def leave(self) -> None:
        """Take back what multicast DNS tells of this machine; what comes is heard all the same."""
        if self._registration is not None:
            self._registration.close()

    def addresses(self) -> list[str]:
        """Returns the addresses that are heard now, as text; with the port if it is not the usual one."""
        return list(dict.fromkeys(self._labels))

    def description(self) -> str:
        """Returns in words which addresses are heard now, or why none is."""
        reasons = "; ".join(f"{entry}: {reason}" for entry, reason in self.unheard.items())
        return ", ".join(self.addresses()) or f"nothing ({reasons or 'no interface is up'})"

    def drops(self) -> int:
        """Datagrams that the kernel threw away because they came faster than `receive` was called; 0 where unknown."""
        return self._dropped + sum(_drops(one.socket) for one in self._open.values())

    def close(self) -> None:
        """Close everything; may be called again."""
        self.leave()
        for one in self._open.values():
            self._close_one(one)
        self._open.clear()
        self._link.close()

    def _close_one(self, one: _Open) -> None:
        self._dropped += _drops(one.socket)
        one.socket.close()


def _addresses(answers: Iterable[Destination]) -> list[tuple[int, str]]:
    return [(answer.family, answer.sockaddr[0]) for answer in answers]


def _why(number: int) -> str:
    return "no address of this machine" if number in _NOT_OURS else reason_of(number)


def _set(target: _socket.socket, level: int, option: int, value: int) -> bool:
    try:
        target.setsockopt(level, option, value)
    except OSError:
        return False
    return True


def _prepare(created: _socket.socket, hearing: Listening) -> None:
    """Options of a hearing socket: shared with other users' processes (REUSEPORT would not be), only what it joined."""
    family, _, _, scope = hearing.key
    ask_destination = hearing.unicast is None
    created.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
    if not LINUX:
        if hasattr(_socket, "SO_REUSEPORT"):  # the BSDs share an address that is no multicast group only so
            _set(created, _socket.SOL_SOCKET, _socket.SO_REUSEPORT, 1)
        _set(created, _socket.SOL_SOCKET, _socket.SO_RCVBUF, _RECEIVE_BUFFER)
        return
    if not _set(created, _socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER):
        _set(created, _socket.SOL_SOCKET, _socket.SO_RCVBUF, _RECEIVE_BUFFER)
    if family == _socket.AF_INET6:
        _set(created, _socket.IPPROTO_IPV6, _IPV6_MULTICAST_ALL, 0)
        if scope:
            _set(created, _socket.SOL_SOCKET, _SO_BINDTOIFINDEX, scope)
        if ask_destination:
            created.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_RECVPKTINFO, 1)
    else:
        _set(created, _socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
        if ask_destination:
            created.setsockopt(_socket.IPPROTO_IP, _IP_PKTINFO, 1)


def _change_membership(target: _socket.socket, family: int, group: str, index: int, join: bool) -> int:
    """Join or leave a group on an interface; 0 or the error number."""
    packed, number = _socket.inet_pton(family, group), index.to_bytes(4, sys.byteorder)
    try:
        if family == _socket.AF_INET6:  # struct ipv6_mreq
            option = _socket.IPV6_JOIN_GROUP if join else _socket.IPV6_LEAVE_GROUP
            target.setsockopt(_socket.IPPROTO_IPV6, option, packed + number)
        else:  # struct ip_mreqn
            option = _socket.IP_ADD_MEMBERSHIP if join else _socket.IP_DROP_MEMBERSHIP
            target.setsockopt(_socket.IPPROTO_IP, option, packed + bytes(4) + number)
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _drops(target: _socket.socket) -> int:
    if not LINUX:
        return 0
    try:
        return int.from_bytes(target.getsockopt(_socket.SOL_SOCKET, _SO_MEMINFO, 36)[_MEMINFO_DROPS:], sys.byteorder)
    except OSError:
        return 0
