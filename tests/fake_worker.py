"""A worker that the test plays: it can stop, die or misbehave at any step.

Contract: `FakeWorker(application, play)` hears the announcements of an application on the loopback group, or on another
one, and calls `play(connection)` for each of them, in a thread of its own, with a connection to the client on which
nothing has been said; `serve` is a play that does nothing wrong.  `close()` raises what a play raised.  Clients and
services of such a test have LOOPBACK in their environment, and the services SLOW to leave the first attempt to the
fake.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
from collections.abc import Callable
from typing import Self

from cexec.protocol.base.keys import OwnerKey, WorkerKey
from cexec.protocol.base.limits import IDENTITY_SIZE, UDP_PORT
from cexec.protocol.base.sodium import aead_names
from cexec.protocol.connection import frames, options
from cexec.protocol.connection.frames import Ending, Exit, Go
from cexec.protocol.connection.records import Records
from cexec.protocol.connection.session import Event, Session
from cexec.protocol.connection.worker_handshake import WorkerHandshake
from cexec.protocol.datagrams import datagram
from cexec.protocol.datagrams.hello import CONNECT, Hello
from cexec.protocol.datagrams.opened_announcement import OpenedAnnouncement, open_announcement
from cexec.protocol.datagrams.requirements import ONCE
from cexec.system.storage.keyfile import read_key
from tests.environment import LOOPBACK_GROUP
from tests.service import Application

LOOPBACK = {"CEXEC_GROUP": LOOPBACK_GROUP}
SLOW = {**LOOPBACK, "BOOST": "3000000"}  # microseconds before every bid
PATIENCE = 30.0  # seconds after which the client's silence fails the test


class Connection:
    """The worker's end of one connection, blocking.  What is said out of order is said as it is."""

    def __init__(self, opened: OpenedAnnouncement, client: tuple[str, int], key: WorkerKey) -> None:
        self.attempt = opened.announcement.attempt
        self.job_id = opened.announcement.job_id
        self.socket = socket.create_connection(client, PATIENCE)
        self.go: Go | None = None
        self._opened = opened
        self._key = key
        self._session = Session(worker=True, now=0.0)
        self._records: Records | None = None

    @property
    def records(self) -> Records:
        assert self._records is not None, "shake() comes first"
        return self._records

    def shake(
        self,
        instance: bytes | None = None,
        *,
        once: bool = False,
        uptime: int = 0,
        gives_terminal: bool = False,
        suggests_terminal: bool = False,
    ) -> Self:
        """Proves to be a worker; `once`: one whose jobs must never be repeated; `uptime`: seconds."""
        hello = Hello(
            purpose=CONNECT,
            instance=instance or os.urandom(IDENTITY_SIZE),
            certificate=self._key.identity.certificate,
            host="fake",
            ciphers=aead_names(),
            uptime=uptime,
            gives_terminal=gives_terminal,
            suggests_terminal=suggests_terminal,
            attributes={ONCE: ""} if once else {},
        )
        handshake = WorkerHandshake(self._opened.handshake(), self._key.identity, hello, 0.0)
        self.raw(handshake.data_to_send())
        while handshake.wanted:
            handshake.receive_data(self._receive(handshake.wanted), 0.0)
        assert handshake.records is not None
        self._records = handshake.records
        self._session = Session(worker=True, now=0.0, numbered=self._records.packed)
        return self

    def confirm(self) -> Self:
        self._session.confirm()
        return self.flush()

    def confirmed(self, client: Session) -> None:
        """Confirms to a client whose search is over: its session hears it without the connection."""
        self._session.confirm()
        for frame in self._session.data_to_send():
            client.receive_data(memoryview(frame), 0.0)
        client.next_event()

    def take(self, *, once: bool = False) -> Self:
        """Shakes hands, confirms and gets the job."""
        self.shake(once=once).confirm()
        self.go = self.hear(frames.GO).go
        return self

    def start(self, *, once: bool = False) -> Self:
        self._session.started(once=once)
        return self.flush()

    def start_and(self, raw: bytes) -> Self:
        """STARTED, and bytes that are no record, in one segment."""
        self._session.started()
        for frame in self._session.data_to_send():
            self.records.send_frame(frame)
        data = b"".join(self.records.data_to_send())
        self.records.data_sent(len(data))
        return self.raw(data + raw)

    def refuse(self, kind: int, reason: str) -> Self:
        self._session.refuse(frames.Refusal(kind, reason))
        return self.flush()

    def hear(self, kind: int, stream: int = 0) -> Event:
        """The next event of this kind; what comes before it is dealt with as a worker does."""
        while True:
            event = self.next_event()
            if event.kind == frames.DATA:
                self._session.consumed(event.stream, len(event.data))
                self.flush()
            if (event.kind, event.stream) == (kind, stream):
                return event

    def read(self, stream: int = 0, size: int | None = None) -> bytes:
        """`size` bytes of an input, or all of it."""
        result = b""
        while size is None or len(result) < size:
            event = self.next_event()
            if event.kind == frames.DATA and event.stream == stream:
                result += bytes(event.data)
                self._session.consumed(stream, len(event.data))
                self.flush()
            elif event.kind == frames.END and event.stream == stream:
                break
        return result

    def write(self, stream: int, data: bytes) -> Self:
        """Output, as far as one frame and the client's first credit go."""
        self.flush()
        buffer = self.records.data_buffer()
        assert buffer is not None
        buffer[: len(data)] = data
        self.records.send_data(self._session.data_head(stream, len(data)), len(data))
        return self.flush()

    def end(self, *streams: int) -> Self:
        for stream in streams:
            self._session.end(stream)
        return self.flush()

    def exit(self, status: int = 0) -> Self:
        return self.ends(Exit(kind=frames.EXITED, status=status, endings=[]))

    def ends(self, result: Exit) -> Self:
        """The job is over in this way; the endings are filled in."""
        self._session.exit(result)
        return self.flush()

    def breaks(self, stream: int, reason: str) -> Self:
        """An output has failed at the worker."""
        self._session.broken(stream, reason)
        return self.flush()

    def ask_for_program(self, platform: str) -> Self:
        self._session.ask_for_program(platform)
        return self.flush()

    def exit_and(self, *following: bytes, status: int = 0, raw: bytes = b"") -> Self:
        """The exit frame, more frames and bytes that are no record, all in one segment."""
        self._session.exit(Exit(kind=frames.EXITED, status=status, endings=[]))
        for frame in (*self._session.data_to_send(), *following):
            self.records.send_frame(frame)
        data = b"".join(self.records.data_to_send())
        self.records.data_sent(len(data))
        return self.raw(data + raw)

    def endings(self) -> list[Ending]:
        """What a truthful exit frame would say, for one that is to be made untruthful."""
        session = self._session
        return [half.ending(options.WRITES) for half in session.outgoing.values()] + [
            half.ending(options.READS) for half in session.incoming.values()
        ]

    def frame(self, kind: int, body: bytes = b"", stream: int = 0) -> Self:
        """Any frame at all."""
        self.flush()
        self.records.send_frame(frames.frame(kind, body, stream))
        return self.flush()

    def raw(self, data: bytes) -> Self:
        """Any bytes at all."""
        self.socket.sendall(data)
        return self

    def flush(self) -> Self:
        for frame in self._session.data_to_send():
            self.records.send_frame(frame)
        data = b"".join(self.records.data_to_send())
        self.records.data_sent(len(data))
        return self.raw(data)

    def close(self) -> None:
        """As the kernel of a killed process does."""
        self.socket.close()

    def reset(self) -> None:
        """As a host does that knows nothing of the connection any more."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def wait_for_end(self) -> None:
        """Until the client hangs up, whatever it says before."""
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionResetError:
            pass

    def next_frame(self) -> tuple[int, bytes]:
        """Type and body of the next frame, which the session does not see."""
        kind, _, body = frames.parse(self._next_frame())
        return kind, bytes(body)

    def next_event(self) -> Event:
        while (event := self._session.next_event()) is None:
            self._session.receive_data(self._next_frame(), 0.0)
            self.flush()
        return event

    def _next_frame(self) -> memoryview:
        while (frame := self.records.next_event()) is None:
            buffer = self.records.receive_buffer()
            data = self._receive(len(buffer))
            buffer[: len(data)] = data
            self.records.received(len(data))
        return frame

    def _receive(self, size: int) -> bytes:
        data = self.socket.recv(size)
        if not data:
            raise HungUpError("the client hung up")
        return data


class HungUpError(Exception):
    """The client ended the connection before the play did."""


def serve(connection: Connection) -> None:
    """A small program that does nothing wrong: it writes its input in capitals and exits with 3."""
    connection.take().start()
    connection.write(1, connection.read().upper()).end(1, 2).exit(3)
    connection.wait_for_end()


class FakeWorker:
    """Plays for the first `attempts` announcements that it hears; a context manager."""

    def __init__(
        self,
        application: Application,
        play: Callable[[Connection], None],
        *,
        attempts: int | None = None,
        name: str = "fake",
        port: int = UDP_PORT,
        group: str = LOOPBACK_GROUP,
    ) -> None:
        key = read_key(os.fspath(application.secret), (OwnerKey,), "")
        assert isinstance(key, OwnerKey)
        self.refused = 0  # connections that were not made, because another worker had won
        self.played = 0  # connections so far
        self._key = key.worker_key(name)
        self._play = play
        self._attempts = attempts
        self._errors: list[BaseException] = []
        self._plays: list[threading.Thread] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((group, port))
        self._stopping, self._stop = socket.socketpair()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._stop.close()
        for thread in (self._thread, *self._plays):
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a play never ends"
        self._stopping.close()
        self._socket.close()
        if self._errors:
            raise self._errors[0]

    def _listen(self) -> None:
        seen: set[bytes] = set()
        while self._stopping not in select.select([self._socket, self._stopping], [], [])[0]:
            data, source = self._socket.recvfrom(2048)
            parsed = datagram.parse(data, [self._key.mac1_key])
            if parsed is None or parsed.kind != datagram.ANNOUNCEMENT or parsed.mac1 in seen:
                continue
            if self._attempts is not None and len(seen) >= self._attempts:
                continue
            seen.add(parsed.mac1)
            opened = open_announcement(self._key, parsed.inner)
            thread = threading.Thread(target=self._perform, args=(opened, (source[0], parsed.reply_port)), daemon=True)
            self._plays.append(thread)
            thread.start()

    def _perform(self, opened: OpenedAnnouncement, client: tuple[str, int]) -> None:
        try:
            connection = Connection(opened, client, self._key)
        except ConnectionRefusedError:
            self.refused += 1
            return
        self.played += 1
        try:
            self._play(connection)
        except Exception as error:
            self._errors.append(error)
        finally:
            connection.close()
