"""A worker made of the real pump and session in a thread, for the tests of leases; no race, no keys, no programs.

Contract: `LeasingWorker(program)` runs `program(go, stdin)`, which returns exit status, output and error output, for
one job after another on one connection, and confirms again `again` times.  `winner` is what a client's race gives it.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from cexec.client.aio.data_sources import DataSource
from cexec.errors import CexecError
from cexec.net.pump import Pump, Trouble
from cexec.protocol.base import sodium
from cexec.protocol.connection import frames, options
from cexec.protocol.connection.frames import Exit, Go, Refusal
from cexec.protocol.connection.session import OFFERING, RUNNING, Session
from cexec.system.io.fds import Sink
from tests.protocol.wires import record_pair
from tests.waiting import PATIENCE

MOST_FILES = 4  # that a job is sent
Program = Callable[[Go, bytes], tuple[int, bytes, bytes]]


class Kept(Sink):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__(-1, shared=True)
        self.data = bytearray()

    def write(self, view: memoryview) -> int:
        self.data += view
        return len(view)


class LeasingWorker:
    """One connection of one worker."""

    def __init__(
        self,
        program: Program,
        *,
        again: int = 10**6,
        once: bool = False,
        refuse: str = "",
        pause: float = 0.0,
        packed: bool = False,
        wanted: bool = False,
    ) -> None:
        """`pause`: seconds before it confirms again.  `packed`: in the second revision, with jobs in advance.

        `wanted`: another client waits for the slot of each job, and those that ask are told.
        """
        self._wanted = wanted
        self.jobs = 0
        self.ended = ""  # how
        self.files: dict[str, bytes] = {}  # what the last job was sent
        self.signals: list[int] = []
        self._program = program
        self._again = again
        self._once = once
        self._refuse = refuse
        self._pause = pause
        self._inputs: dict[int, Kept] = {}
        self._files: dict[int, Kept] = {}
        self._go: Go | None = None
        self._status: int | None = None
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
        one, other = record_pair(sodium.aead_names()[0], packed=packed)
        now = time.monotonic()
        self._session = Session(worker=True, now=now, numbered=packed)
        client = Session(worker=False, now=now, numbered=packed)
        self._session.confirm()
        for frame in self._session.data_to_send():
            client.receive_data(memoryview(frame), now)
        client.next_event()
        self._pump = Pump(theirs, other, self._session)
        self._prepare()
        hello = SimpleNamespace(name="w", attributes={}, once=once, slots=1)
        self.winner: Any = SimpleNamespace(
            connection=ours, records=one, session=client, hello=hello, address="here", watch=None
        )
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def join(self) -> str:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        return self.ended

    def vanish(self) -> None:
        """Ends the connection without a word, as a host does that has gone."""
        self._pump.connection.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        try:
            while not self.ended:
                for event in self._pump.step(0.05):
                    if not isinstance(event, Trouble):
                        self._handle(event)
                if self._status is not None and not self._session.writing:
                    self._finish(self._status)
        except CexecError as error:
            self.ended = str(error)
        self._pump.connection.close()

    def _handle(self, event: Any) -> None:
        if event.kind == frames.GO:
            self._take(event.go)
        elif event.kind == frames.END and not any(number in self._pump.sinks for number in (0, *self._files)):
            if self._status is None and self._session.state == RUNNING and self._go is not None:
                self._run(self._go)
        elif event.kind == frames.SIGNAL:
            self.signals.append(event.number)
        elif event.kind in (frames.RELEASE, frames.CANCEL):
            self.ended = "released" if event.kind == frames.RELEASE else "cancelled"

    def _take(self, go: Go) -> None:
        self._go = go
        if self._refuse:
            self._session.refuse(Refusal(frames.HERE, self._refuse))
            return
        sent = [s.number for s in go.streams if s.kind == options.FILE and s.directions == options.READS]
        self._files = {number: self._inputs[number] for number in sent}
        self._session.started(once=self._once)
        if self._wanted and self._session.wants_to_hear:
            self._session.slot_wanted()

    def _run(self, go: Go) -> None:
        names = {stream.number: stream.name for stream in go.streams}
        self.files = {names[number]: bytes(kept.data) for number, kept in self._files.items()}
        self._status, output, errors = self._program(go, bytes(self._inputs[0].data))
        for stream in go.streams:
            if stream.directions == options.WRITES:
                data = {1: output, 2: errors}.get(stream.number, f"content of {stream.name}".encode())
                self._pump.sources[stream.number] = DataSource(data)

    def _prepare(self) -> None:
        """Data may come with the GO that names its streams."""
        self._inputs = {number: Kept() for number in (0, *range(frames.FIRST_FILE, frames.FIRST_FILE + MOST_FILES))}
        self._pump.sinks.clear()
        self._pump.sinks.update(self._inputs)

    def _finish(self, status: int) -> None:
        self._session.exit(Exit(kind=frames.EXITED, status=status, endings=[]))
        self._status = None
        self.jobs += 1
        self._prepare()
        if self.jobs <= self._again:
            self._pump.flush()
            time.sleep(self._pause)
            if self._pause:
                self._pump.step(0.0)
            if self._session.ahead is not None:
                self._take(self._session.begin_ahead())
            elif self._session.state == OFFERING:
                self._session.confirm()
