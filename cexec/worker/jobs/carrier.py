"""What outlasts a job in the process that carries it: the connection, the parent, and word of children that have ended.

Contract: `step(until)` pumps once, waiting no longer than that, and returns the pump's events; between two jobs
`next_word(until)` waits for one frame only, because what follows a GO is the next job's.  Both hear the parent: its
words set `may_offer`, `last` and `ahead`, and its end of the socket being closed raises `DisconnectedError`, as does
what is wrong with the client.  docs/protocol.md section 4.4.
"""

from __future__ import annotations

import _socket
import json
import os
import select
import signal
from time import monotonic

from cexec.errors import DisconnectedError
from cexec.net.liveness import Liveness

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cexec.net.pump import Pump, Trouble
    from cexec.protocol.connection.session import Event

# The parent's words: the lease that waits has been drawn; the job that runs is the last one; the next jobs may be
# offered without a word, because nobody else waits for the slot; somebody does.
OFFER, LAST, AHEAD, ASK = b"offer", b"last", b"ahead", b"ask"
JOBS_AHEAD = 16  # (ours) jobs that may be offered so: what the parent is told of them it reads together
FREE = b'{"event": "free"}'  # the last report of a connection
MAXIMUM_REPORT = 4096  # bytes (ours) of one report; longer texts in it are cut
_CORK: int | None = getattr(_socket, "TCP_CORK", None)


class Carrier:
    """`pump` has the connection.  `children_ended`: some may have, since the step before."""

    def __init__(self, pump: Pump, parent: _socket.socket) -> None:
        self.pump = pump
        self.children_ended = False
        self.may_offer = False
        self.last = False
        self.ahead = 0  # jobs that may be offered without a word
        self.held = False
        self.clean = True  # nothing has gone wrong
        self._parent = parent
        self._liveness = Liveness(pump.connection)
        self._children, self._signals = _child_signals()
        pump.watch(self._children)
        pump.watch(parent.fileno())
        self._poll = select.poll()  # between two jobs
        self._poll.register(parent.fileno(), select.POLLIN)

    def close(self) -> None:
        """The connection has ended."""
        signal.set_wakeup_fd(-1)
        os.close(self._children)
        os.close(self._signals)

    def step(self, until: float | None) -> list[Event | Trouble]:
        """Pumps once."""
        due = [time for time in (until, self._liveness.next_timeout()) if time is not None]
        found = self.pump.step(max(0.0, min(due) - monotonic()) if due else None)
        self.children_ended = self._children in self.pump.ready
        if self.children_ended:
            self._forget_signals()
        if self._parent.fileno() in self.pump.ready:
            self._hear_parent()
        self._look_alive()
        return found

    def next_word(self, until: float | None = None) -> Event | None:
        """The client's next frame that means something; None when the time has come or the parent has spoken."""
        records, session = self.pump.records, self.pump.session
        while True:
            while (frame := records.next_event()) is not None:
                session.receive_data(frame, monotonic())
                if (event := session.next_event()) is not None:
                    return event
            self.pump.flush()
            due = [time for time in (until, session.next_timeout(), self._liveness.next_timeout()) if time is not None]
            mask = select.POLLIN if self.pump.flushed else select.POLLIN | select.POLLOUT
            self._poll.register(self.pump.connection, mask)
            ready = dict(self._poll.poll(max(0.0, min(due) - monotonic()) * 1000 + 0.999))
            if ready.get(self.pump.connection.fileno(), 0) & ~select.POLLOUT:
                self._receive()
            if self._parent.fileno() in ready:
                self._hear_parent()
                return None
            now = monotonic()
            if until is not None and now >= until:
                return None
            if now >= session.next_timeout():
                session.handle_timeout(now)
            self._look_alive()

    def goes_ahead(self) -> bool:
        """Whether the next job may be offered without a word, which then must be told with the end of this one."""
        self._hear_parent()
        if not self.ahead or self.last:
            return False
        self.ahead -= 1
        return True

    def hold_back(self) -> None:
        """Until `let_go`, small frames wait in the kernel (for 200 ms at most), to travel together."""
        self._cork(True)

    def let_go(self) -> None:
        """What has been held back is sent."""
        self._cork(False)

    def _cork(self, held: bool) -> None:
        if _CORK is not None and held != self.held:
            self.held = held
            try:
                self.pump.connection.setsockopt(_socket.IPPROTO_TCP, _CORK, held)
            except OSError:
                pass  # it has gone, as the next read will tell

    def hang_up(self) -> None:
        """Nothing more comes from us, which tells the client that the lease has ended; unless much is under way."""
        self.pump.flush()
        if not self.pump.flushed:
            return
        try:
            self.pump.connection.shutdown(_socket.SHUT_WR)
        except OSError:
            pass

    def tell(self, what: str, **values: object) -> None:
        """A report for the parent."""
        try:
            self._parent.send(encode_report({"event": what, **values}))
        except OSError:
            pass  # the parent has gone; the watch on its socket says so

    def _receive(self) -> None:
        buffer = self.pump.records.receive_buffer()
        try:
            size = self.pump.connection.recv_into(buffer)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            raise DisconnectedError(f"client is lost: {os.strerror(error.errno or 0).lower()}") from None
        if not size:
            raise DisconnectedError("client closed the connection")
        self.pump.records.received(size)

    def _hear_parent(self) -> None:
        while self._read_word():
            pass

    def _read_word(self) -> bool:
        """Whether there was one."""
        try:
            word = self._parent.recv(16, _socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            word = b""  # it has gone, and had not read all that we told it
        if word == OFFER:
            self.may_offer = True
        elif word == LAST:
            self.last = True
        elif word in (AHEAD, ASK):
            self.ahead = JOBS_AHEAD if word == AHEAD else 0
        else:
            self.clean = False  # there is nobody to be told anything
            raise DisconnectedError("worker is ending its jobs")
        return True

    def _look_alive(self) -> None:
        now = monotonic()
        self._liveness.stepped(now)
        self._liveness.handle_timeout(now)

    def _forget_signals(self) -> None:
        try:
            os.read(self._children, 4096)
        except BlockingIOError:
            pass


def encode_report(report: dict[str, object]) -> bytes:
    """At most MAXIMUM_REPORT bytes.  JSON makes six bytes of a control character, and peers choose what texts say."""
    while len(data := json.dumps(report).encode()) > MAXIMUM_REPORT:
        name, text = max(
            ((name, value) for name, value in report.items() if isinstance(value, str)), key=lambda item: len(item[1])
        )
        report = {**report, name: text[: len(text) // 2]}
    return data


def _child_signals() -> tuple[int, int]:
    """A descriptor that becomes readable when a child has ended, and the one that makes it so."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    signal.signal(signal.SIGCHLD, lambda number, stack: None)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    return reading, writing
