"""The client's listener and the connections to it that have not been chosen or dropped yet: workers, or strangers.

Contract: a `Candidate` is one connection: it is advanced when its descriptor is readable, and has one deadline until
its confirmation.  It raises `CexecError` with the reason when it must be dropped.  Until it has proved itself it costs
one socket.  `Reception` has all of them.  `accept(now)` takes the connections that wait, as long as there are places
for peers that have not finished their first flight; `candidates` has all, by descriptor.  When places are short and
somebody waits, `giving_way` names those that make room: a worker's first flight rides on its connection, so whoever has
not finished it after PATIENCE is hardly a worker.  Those from the busiest address go first.  `drop` closes a
connection, `close` everything.  `crowd` tells who has had to give way. docs/protocol.md section 3.3.
"""

from __future__ import annotations

import _socket

from cexec.common_errors import DisconnectedError, LocalError
from cexec.net.sockets import plain_address
from cexec.protocol.base.limits import CONNECT_DEADLINE, MAXIMUM_UNAUTHENTICATED
from cexec.protocol.connection.channel import ClientHandshake
from cexec.system.reason import reason_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cexec.client.search.trust import RevocationWatch
    from cexec.net.groups import Sockaddr
    from cexec.net.sockets import TcpListener
    from cexec.protocol.connection.records import Records
    from cexec.protocol.connection.session import Session
    from cexec.protocol.datagrams.hello import Hello

ACCEPT_BATCH = 16  # connections (ours) accepted in one step, so that strangers do not delay those that were accepted
PATIENCE = 0.25  # seconds (protocol) until a connection without a first flight gives way, if others wait
UNTRIED = 0.2  # seconds (ours) until the next accept after descriptors have run out: some are closed by then
MAXIMUM_CROWD = 1000  # addresses (ours) that are told apart
NEVER = float("inf")


class Winner:
    """The worker that got the job; GO has been sent.  `watch` tells if it is revoked while the job runs."""

    __slots__ = ("address", "connection", "hello", "local_address", "records", "session", "watch")

    def __init__(self, candidate: Candidate, watch: RevocationWatch | None = None) -> None:
        assert candidate.hello is not None and candidate.session is not None
        self.connection = candidate.connection
        self.address: str = candidate.address[0]
        self.local_address: str = plain_address(candidate.connection.getsockname())[0]
        self.hello: Hello = candidate.hello
        self.records: Records = candidate.records
        self.session: Session = candidate.session
        self.watch = watch


class Candidate:
    """One connection to our listener."""

    __slots__ = ("_handshake", "address", "connection", "deadline", "hello", "session", "since")

    def __init__(self, connection: _socket.socket, address: Sockaddr, handshake: ClientHandshake, now: float) -> None:
        self.since = now
        self.deadline = now + CONNECT_DEADLINE
        self.connection = connection
        self.address = address
        self.hello: Hello | None = None  # None until the worker has proved itself
        self.session: Session | None = None
        self._handshake = handshake

    @property
    def records(self) -> Records:
        records = self._handshake.records
        assert records is not None  # the handshake has made them before `hello` was set
        return records

    def handle_timeout(self, now: float) -> None:
        if now >= self.deadline:
            raise DisconnectedError("did not confirm in time" if self.hello else "could not read signature")

    def advance(self, now: float, idle_timeout: float) -> bool:
        """Reads the bytes that have come; returns True once the worker has confirmed."""
        if self.session is None:
            self._handshake.receive_data(self._receive(self._handshake.wanted), now)
            self.hello = self._handshake.next_event()
            if self.hello is not None:
                self._send(self._handshake.data_to_send())
                from cexec.protocol.connection.session import Session  # loaded while the worker reads this flight

                packed = self.records.packed
                self.session = Session(worker=False, now=now, idle_timeout=idle_timeout, numbered=packed)
            return False
        from cexec.protocol.connection.frames import CONFIRM  # loaded with the session

        buffer = self.records.receive_buffer()
        data = self._receive(len(buffer))
        buffer[: len(data)] = data
        self.records.received(len(data))
        while (frame := self.records.next_event()) is not None:
            self.session.receive_data(frame, now)
            event = self.session.next_event()
            if event is not None and event.kind == CONFIRM:
                return True
        return False

    def flush(self) -> None:
        """Sends the session's frames: a few hundred bytes, for which an empty socket always has room."""
        assert self.session is not None
        for frame in self.session.data_to_send():
            self.records.send_frame(frame)
        data = b"".join(self.records.data_to_send())
        self.records.data_sent(self._send(data))

    def _send(self, data: bytes) -> int:
        try:
            return self.connection.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            raise DisconnectedError(reason_of(error)) from None

    def _receive(self, size: int) -> bytes:
        try:
            data = self.connection.recv(size)
        except (BlockingIOError, InterruptedError):
            return b""
        except OSError as error:
            raise DisconnectedError(reason_of(error)) from None
        if not data:
            raise DisconnectedError("disconnected unexpectedly")
        return data


class Reception:
    """All connections to one listener."""

    __slots__ = ("_accept_again", "_gave_way", "_listener", "_make_handshake", "candidates")

    def __init__(self, listener: TcpListener, make_handshake: Callable[[float], ClientHandshake]) -> None:
        """`make_handshake` is called with the time, for each connection."""
        self.candidates: dict[int, Candidate] = {}
        self._listener = listener
        self._make_handshake = make_handshake
        self._accept_again = 0.0
        self._gave_way: dict[str, int] = {}  # number by address

    def filenos(self, now: float) -> list[int]:
        """Returns the descriptors to wait for: the listener only while a connection can be accepted."""
        accepts = now >= self._accept_again and (self._places > 0 or self._longest_silent(now) >= PATIENCE)
        return [*self.candidates, *(self._listener.filenos() if accepts else ())]

    def next_timeout(self, now: float) -> float:
        """Returns when `filenos` has more descriptors, or the deadline of a candidate has come."""
        due = min((candidate.deadline for candidate in self.candidates.values()), default=NEVER)
        if now < self._accept_again:
            due = min(due, self._accept_again)
        if self._places <= 0 and self._longest_silent(now) < PATIENCE:
            due = min(due, now + PATIENCE - self._longest_silent(now))
        return due

    def giving_way(self, ready: set[int], now: float) -> list[Candidate]:
        """Returns the connections that make room for those that wait; the caller reads them once more, then drops."""
        if self._places > 0 or ready.isdisjoint(self._listener.filenos()):
            return []
        silent = [one for one in self.candidates.values() if one.hello is None]
        by_address: dict[str, list[Candidate]] = {}
        for candidate in silent:  # oldest first
            by_address.setdefault(candidate.address[0], []).append(candidate)
        chosen: list[Candidate] = []
        while by_address and len(chosen) < ACCEPT_BATCH:
            busiest = max(by_address, key=lambda address: len(by_address[address]))
            candidate = by_address[busiest].pop(0)
            if now - candidate.since >= PATIENCE:
                chosen.append(candidate)
            else:
                del by_address[busiest]  # the others from there are younger
            if not by_address.get(busiest, True):
                del by_address[busiest]
        return chosen

    def gave_way(self, candidate: Candidate) -> str:
        """Notes that a connection has made room; returns the reason for its peer's end."""
        address = candidate.address[0]
        if address in self._gave_way or len(self._gave_way) < MAXIMUM_CROWD:
            self._gave_way[address] = self._gave_way.get(address, 0) + 1
        return "gave way: it was silent while others waited"

    @property
    def crowd(self) -> str:
        """Tells which address has had most connections that gave way, or is empty."""
        if not self._gave_way:
            return ""
        from cexec.client.search.messages import count

        busiest = max(self._gave_way, key=lambda address: self._gave_way[address])
        return (
            f"{count(sum(self._gave_way.values()), 'connection')} without a word (most of them from {busiest}) filled "
            "the listener and were closed"
        )

    def accept(self, now: float) -> list[Candidate]:
        """Takes the connections that wait, as far as there are places."""
        accepted: list[Candidate] = []
        if now < self._accept_again:
            return accepted
        try:
            for _ in range(min(ACCEPT_BATCH, self._places)):
                taken = self._listener.accept()
                if taken is None:
                    break
                connection, address = taken
                candidate = Candidate(connection, address, self._make_handshake(now), now)
                self.candidates[connection.fileno()] = candidate
                accepted.append(candidate)
        except LocalError:
            self._accept_again = now + UNTRIED  # descriptors have run out; connections wait in the backlog
        return accepted

    def drop(self, candidate: Candidate) -> None:
        """Closes a connection."""
        self.candidates.pop(candidate.connection.fileno(), None)
        candidate.connection.close()

    def has_another(self, candidate: Candidate) -> bool:
        """Returns True if the worker of this connection has one already."""
        assert candidate.hello is not None
        return any(
            other.hello is not None and other.hello.instance == candidate.hello.instance
            for other in self.candidates.values()
            if other is not candidate
        )

    def close(self) -> None:
        """Closes all connections; the listener is the search's to close."""
        for candidate in self.candidates.values():
            candidate.connection.close()
        self.candidates.clear()

    @property
    def _places(self) -> int:
        """The number of peers that may still come before one has finished its first flight."""
        return MAXIMUM_UNAUTHENTICATED - sum(candidate.hello is None for candidate in self.candidates.values())

    def _longest_silent(self, now: float) -> float:
        """Returns for how many seconds the oldest connection has not finished its first flight."""
        return max((now - one.since for one in self.candidates.values() if one.hello is None), default=0.0)
