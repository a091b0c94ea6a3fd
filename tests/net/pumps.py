"""A client's and a worker's pump, joined by a connection, and programs' ends of pipes to go with them.

Contract: `Pair` has been through GO and STARTED for streams 0 (to the program), 1 and 2 (from it); `run` steps both
sides until something is true.  A `Reader` takes all that comes out of a pipe.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable

from cexec.net.pump import Pump, Trouble
from cexec.protocol.base.sodium import aead_names
from cexec.protocol.connection import frames
from cexec.protocol.connection.session import OFFERED, RUNNING, Event, Session
from cexec.system.io.fds import Sink, Source
from tests.protocol.wires import job, record_pair

DEADLINE = 20.0  # seconds until a test gives up
BLOCKED = 0.2  # seconds that a step must have waited to have waited at all
TURN = 0.01  # seconds that a side waits for the other


class Pair:
    """`happened` holds the events of each side, without the two that started the job."""

    def __init__(self, *, tcp: bool = False, packed: bool = False) -> None:
        now = time.monotonic()
        ends = tcp_pair() if tcp else socket.socketpair()
        for end in ends:
            end.setblocking(False)
        records = record_pair(aead_names()[0], packed=packed)
        self.client = Pump(ends[0], records[0], Session(worker=False, now=now))
        self.worker = Pump(ends[1], records[1], Session(worker=True, now=now))
        self.happened: dict[Pump, list[Event | Trouble]] = {self.client: [], self.worker: []}
        self.worker.session.confirm()
        self.run(lambda: self.client.session.state == OFFERED)
        self.client.session.go(job())
        self.run(lambda: self.worker.session.state == RUNNING)
        self.worker.session.started()
        self.run(lambda: self.kinds(self.client) == [frames.CONFIRM, frames.STARTED])
        for events in self.happened.values():
            events.clear()

    def step(self, side: Pump, timeout: float = TURN) -> None:
        self.happened[side] += side.step(timeout)

    def run(self, until: Callable[[], bool]) -> None:
        """Steps both sides in turn."""
        deadline = time.monotonic() + DEADLINE
        while not until():
            assert time.monotonic() < deadline, f"client: {self.kinds(self.client)}, worker: {self.kinds(self.worker)}"
            self.step(self.client)
            self.step(self.worker)

    def settle(self) -> None:
        """Steps both sides until nothing has changed for a while."""
        quiet = 0
        while quiet < 3:
            before = self.counts()
            self.step(self.client)
            self.step(self.worker)
            quiet = quiet + 1 if self.counts() == before else 0

    def counts(self) -> list[int]:
        sessions = (self.client.session, self.worker.session)
        return [half.count for session in sessions for half in session.outgoing.values()] + [
            half.consumed for session in sessions for half in session.incoming.values()
        ]

    def kinds(self, side: Pump) -> list[int]:
        """The frames that a side's events were caused by."""
        return [event.kind for event in self.happened[side] if isinstance(event, Event)]

    def troubles(self, side: Pump) -> list[tuple[int, bool, int]]:
        found = [event for event in self.happened[side] if isinstance(event, Trouble)]
        return [(trouble.stream, trouble.writing, trouble.error) for trouble in found]

    def close(self) -> None:
        for side in (self.client, self.worker):
            for stream in list(side.sources):
                side.close_source(stream)
            for sink in side.sinks.values():
                sink.close()
            side.connection.close()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """A real connection, which can be reset."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    return one, other


def pipe_source(reading: int) -> Source:
    os.set_blocking(reading, False)
    return Source(reading)


def pipe_sink(writing: int) -> Sink:
    os.set_blocking(writing, False)
    return Sink(writing)


class Reader:
    """Reads a pipe to its end; `data` is then everything that came."""

    def __init__(self, fd: int) -> None:
        self.data = bytearray()
        self._thread = threading.Thread(target=self._read, args=(fd,), daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        return not self._thread.is_alive()

    def _read(self, fd: int) -> None:
        while piece := os.read(fd, 1 << 20):
            self.data += piece
        os.close(fd)
