"""Workers that connect to a search, played by the test in its own thread.

Contract: a `Caller` is the worker's end of one TCP connection over the loopback; `connection` is the client's end,
which does not block.  Every method sends at once and returns the caller.  Only `accept_flight`, `heard` and `hung_up`
wait, for bytes that the client must have sent before.
"""

from __future__ import annotations

import select
from collections.abc import Iterable
from typing import Self

from cexec.protocol.base.keys import WorkerKey
from cexec.protocol.connection import frames
from cexec.protocol.connection.records import Records
from cexec.protocol.connection.session import Session
from cexec.protocol.datagrams.announcement import SealedAnnouncement
from tests.net.pumps import tcp_pair
from tests.protocol.wires import APPLICATION, Application, sent_bytes, worker_handshake

PATIENCE = 10.0  # seconds after which bytes that do not come fail the test


class Caller:
    """One worker that connects."""

    def __init__(
        self,
        sealed: SealedAnnouncement,
        instance: bytes,
        *,
        application: Application = APPLICATION,
        key: WorkerKey | None = None,
        **hello: object,
    ) -> None:
        self.instance = instance
        self.connection, self._socket = tcp_pair()
        self.connection.setblocking(False)
        self._socket.settimeout(PATIENCE)
        key = key or application.worker
        opened = application.hear(sealed, key)
        self._handshake = worker_handshake(opened.handshake(), key, instance=instance, **hello)
        self._session = Session(worker=True, now=0.0)
        self.flight = self._handshake.data_to_send()

    @property
    def records(self) -> Records:
        assert self._handshake.records is not None, "accept_flight() comes first"
        return self._handshake.records

    def send(self, data: bytes) -> Self:
        """Sends, and waits until the client has something to read: on a busy machine that is not at once."""
        self._socket.sendall(data)
        if data:
            self.arrived()
        return self

    def arrived(self) -> None:
        """Waits until the client has something to read, or the end of the connection."""
        assert select.select([self.connection], [], [], PATIENCE)[0]

    def prove(self) -> Self:
        """Sends the first flight."""
        return self.send(self.flight)

    def accept_flight(self) -> Self:
        """Takes the client's flight."""
        while self._handshake.wanted:
            self._handshake.receive_data(self._socket.recv(self._handshake.wanted), 0.0)
        self._session = Session(worker=True, now=0.0, numbered=self.records.packed)
        return self

    def confirmation(self) -> bytes:
        """The record that confirms."""
        self._session.confirm()
        for frame in self._session.data_to_send():
            self.records.send_frame(frame)
        return sent_bytes(self.records)

    def send_frame(self, kind: int, body: bytes = b"") -> Self:
        """Sends any frame at all."""
        self.records.send_frame(frames.frame(kind, body))
        return self.send(sent_bytes(self.records))

    def confirm(self) -> Self:
        return self.accept_flight().send(self.confirmation())

    def heard(self) -> list[int]:
        """The types of the frames that the client has sent; ends with 0 if the client has hung up after them."""
        kinds: list[int] = []
        while True:
            try:
                data = self._socket.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                return [*kinds, 0]
            for frame in self.records.receive_data(data, 0.0):
                kinds.append(frames.parse(memoryview(frame))[0])
            if kinds:
                return kinds

    @property
    def hung_up(self) -> bool:
        """True if the client has closed the connection; waits for that."""
        try:
            while self._socket.recv(65536):
                pass
        except ConnectionResetError:
            pass
        except TimeoutError:
            return False
        return True

    def hang_up(self) -> None:
        self._socket.close()
        self.arrived()

    def close(self) -> None:
        self._socket.close()
        self.connection.close()


def close_all(callers: Iterable[Caller]) -> None:
    for caller in callers:
        caller.close()
