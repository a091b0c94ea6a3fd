"""One connection to the client's listener: a worker that offers itself, or a stranger.

Contract: a `Candidate` is advanced when its descriptor is readable, and has one deadline until its confirmation.  It
raises `CexecError` with the reason when it must be dropped.  Until it has proved itself it costs one socket.
docs/protocol.md section 3.
"""

from __future__ import annotations

import _socket

from cexec.errors import DisconnectedError
from cexec.net.sockets import plain_address
from cexec.protocol.base.limits import CONNECT_DEADLINE
from cexec.protocol.connection import frames
from cexec.protocol.connection.channel import ClientHandshake
from cexec.protocol.connection.session import Session
from cexec.system.reason import reason_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cexec.client.search.trust import RevocationWatch
    from cexec.net.groups import Sockaddr
    from cexec.protocol.connection.records import Records
    from cexec.protocol.datagrams.hello import Hello


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
                packed = self.records.packed
                self.session = Session(worker=False, now=now, idle_timeout=idle_timeout, numbered=packed)
            return False
        buffer = self.records.receive_buffer()
        data = self._receive(len(buffer))
        buffer[: len(data)] = data
        self.records.received(len(data))
        while (frame := self.records.next_event()) is not None:
            self.session.receive_data(frame, now)
            event = self.session.next_event()
            if event is not None and event.kind == frames.CONFIRM:
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
