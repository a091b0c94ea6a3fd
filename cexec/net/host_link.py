"""The way of datagrams between the processes of one host: sockets that no other host can reach.

Contract: the kernel gives a unicast datagram to one process only, which passes it on to the others by `send`.  On Linux
it goes through abstract AF_UNIX sockets, which belong to the network namespace, as UDP does.  The kernel itself says
there which user has sent: `receive` returns (data, port, believed), and believes this user and root.  It goes over UDP
on the loopback, too, where a process of version 0.1.0 hears it, and where anybody can have sent it.

`follow(ports)` opens one socket for each UDP port that this process listens to.  Its name is in the kernel's list of
sockets, so processes find each other without files.  Anybody can open sockets with such names.  So if there are many,
the kernel is asked whose they are: this user's and root's come first, then those of the others, by turns of users.
Nothing raises: without a descriptor there is no link, and a message that finds no room is lost, as a datagram is.
docs/protocol.md section 2.5.
"""

from __future__ import annotations

import _socket
import os
import random
import re
import sys
from itertools import chain, zip_longest
from time import thread_time
from typing import TYPE_CHECKING

from cexec.net.announcer import LINUX, open_datagram_socket
from cexec.net.groups import LOOPBACK_BROADCAST
from cexec.net.socket_owners import owners
from cexec.protocol.datagrams import forwarded
from cexec.system.reason import reason_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

PREFIX = "cexec-1"  # (protocol) a name is PREFIX/PORT/UID/RANDOM
MAXIMUM_PEERS = 64  # processes (ours) of one host that get a datagram: anybody can open sockets with such names
PEERS_KEPT = 1.0  # seconds (ours) that the list of them is used again
LOOK_FACTOR = 10.0  # (ours) times what it took to make it, if that is longer: somebody may have a million of sockets
MAXIMUM_MESSAGES = 64  # messages (ours) of one socket that are read at once
_BUFFER = 1024 * 1024  # bytes (ours) that may wait
SOCKETS = "/proc/net/unix"
_CREDENTIALS = 12  # bytes of struct ucred: pid, uid, gid
_ROOT = 0


class HostLink:
    """The sockets of one process."""

    def __init__(self) -> None:
        self._udp: _socket.socket | None = None
        self._open: dict[int, tuple[_socket.socket, bytes]] = {}  # by UDP port; each with its name
        self._peers: dict[int, tuple[float, list[bytes]]] = {}  # by UDP port, and when they are looked for again

    def follow(self, ports: Iterable[int]) -> None:
        """Opens and closes sockets until there is one for each of these UDP ports."""
        wanted = set(ports)
        for port in self._open.keys() - wanted:
            self._open.pop(port)[0].close()
        if wanted and self._udp is None:
            self._udp = _open_udp()
        for port in wanted - self._open.keys():
            made = _open_link(port)
            if made is not None:
                self._open[port] = made

    def filenos(self) -> list[int]:
        """The descriptors to select for reading."""
        return [link.fileno() for link, _ in self._open.values()]

    def send(self, datagrams: Sequence[bytes], port: int, now: float) -> str | None:
        """Passes wrapped datagrams on to the processes that hear this port; returns why nobody can have got them."""
        if not datagrams:
            return None
        self._send_to_peers(datagrams, port, now)
        if self._udp is None:
            return "there was no descriptor left"
        failure = None
        for data in datagrams:
            try:
                self._udp.sendto(data, (LOOPBACK_BROADCAST, port))
            except OSError as error:
                failure = reason_of(error)
        return failure

    def receive(self) -> list[tuple[bytes, int, bool]]:
        """Returns the wrapped datagrams that have come, each with its port, and whether its source is believed."""
        heard: list[tuple[bytes, int, bool]] = []
        for port, (link, _) in self._open.items():
            try:
                for _ in range(MAXIMUM_MESSAGES):
                    # There is room for the credentials and nothing else: descriptors that a sender adds are closed.
                    message, ancillary, *_ = link.recvmsg(forwarded.MAXIMUM_MESSAGE, _socket.CMSG_SPACE(_CREDENTIALS))
                    believed = is_believed(ancillary)
                    heard += [(data, port, believed) for data in forwarded.split(message)]
            except OSError:
                continue  # there is no more
        return heard

    def close(self) -> None:
        """May be called again."""
        self.follow(())
        if self._udp is not None:
            self._udp.close()
            self._udp = None

    def _send_to_peers(self, datagrams: Sequence[bytes], port: int, now: float) -> None:
        own = self._open.get(port)
        if own is None:
            return
        look_at, peers = self._peers.get(port, (now, []))
        if now >= look_at:
            began = thread_time()
            peers = [name for name in names(port) if name != own[1]]
            self._peers[port] = (now + max(PEERS_KEPT, LOOK_FACTOR * (thread_time() - began)), peers)
        if not peers:
            return
        for message in forwarded.pack(datagrams):
            for name in peers:
                try:
                    own[0].sendto(message, name)
                except OSError:
                    continue  # it has gone, or does not read


def _open_udp() -> _socket.socket | None:
    """Sends from a loopback address, which no other machine can have; None if there is no descriptor left."""
    try:
        created = open_datagram_socket(_socket.AF_INET)
        try:
            created.bind(("127.0.0.1", 0))
        except OSError:
            created.close()
            raise
    except OSError:
        return None
    return created


def _open_link(port: int) -> tuple[_socket.socket, bytes] | None:
    """Returns a socket and its name; None where there are no abstract names, or no descriptor is left."""
    if not LINUX:
        return None
    name = f"\0{PREFIX}/{port}/{os.getuid()}/{os.urandom(8).hex()}".encode()
    try:
        created = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
        try:
            created.setblocking(False)
            created.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVBUF, _BUFFER)
            created.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDBUF, _BUFFER)
            created.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 1)  # from here on the kernel names the sender
            created.bind(name)
        except OSError:
            created.close()
            raise
    except OSError:
        return None
    return created, name


def names(port: int) -> list[bytes]:
    """Returns the names of the sockets for a port that get what is sent: MAXIMUM_PEERS at most."""
    try:
        with open(SOCKETS, "rb") as listing:
            pattern = rf"@({PREFIX}/{port}/([0-9]{{1,10}})/[0-9a-f]{{16}})$"
            found = re.findall(pattern.encode(), listing.read(), re.MULTILINE)
    except OSError:
        return []
    claimed = {b"\0" + name: int(user) for name, user in found}
    if len(claimed) <= MAXIMUM_PEERS:
        return list(claimed)
    known = owners(f"\0{PREFIX}/{port}/".encode())
    return _chosen(claimed if known is None else {name: known[name] for name in claimed if name in known})


def _chosen(users: Mapping[bytes, int]) -> list[bytes]:
    """Returns the names that get a place: those of this user and of root first, then those of the others, by turns."""
    ours: list[bytes] = []
    others: dict[int, list[bytes]] = {}
    trusted = {user for user in set(users.values()) if _is_trusted(user)}
    for name in random.sample(list(users), len(users)):
        user = users[name]
        (ours if user in trusted else others.setdefault(user, [])).append(name)
    turns = chain.from_iterable(zip_longest(*(one[:MAXIMUM_PEERS] for one in others.values())))
    return [*ours, *(name for name in turns if name is not None)][:MAXIMUM_PEERS]


def is_believed(ancillary: Iterable[tuple[int, int, bytes]]) -> bool:
    """True if the kernel says that this user or root has sent a message."""
    for level, kind, data in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_CREDENTIALS and len(data) == _CREDENTIALS:
            return _is_trusted(int.from_bytes(data[4:8], sys.byteorder))
    return False


def _is_trusted(user: int) -> bool:
    """True for root and for this user, where the kernel knows him."""
    return user == _ROOT or (user == os.getuid() and not _stands_for_others(user))


def _stands_for_others(user: int) -> bool:
    """True if the kernel uses this number for every user whom our user namespace does not know, often `nobody`."""
    try:
        with open("/proc/sys/kernel/overflowuid", "rb") as file:
            if int(file.read()) != user:
                return False
        with open("/proc/self/uid_map", "rb") as file:
            return file.read().split() != [b"0", b"0", b"4294967295"]
    except (OSError, ValueError):
        return False
