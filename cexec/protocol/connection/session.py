"""Frames to streams and back: one job on one connection, the same machine for both sides.

Contract: pure; `receive_data(frame, now)` takes one frame, `next_event()` gives events, `data_to_send()` gives frames
to be sealed in order, `next_timeout`/`handle_timeout` keep the peer honest.  Stream data never waits in here: incoming
data is handed out as a view at once, outgoing data is accounted for by `data_head` and sealed where it lies.
Failure is sticky.  What waits in here is bounded by the number of streams.  docs/protocol.md sections 4.2 to 4.4.

    state      worker sends            client sends                     after
    OFFERING   CONFIRM                 CANCEL, RELEASE                  the handshake, or an EXIT (lease)
    OFFERED    WITHDRAW                CANCEL, RELEASE, GO              CONFIRM
    RUNNING    STARTED or REFUSED      CANCEL, SIGNAL, WINDOW, streams  GO
               PROGRAM, once
      started  streams, at last EXIT   the same                         STARTED
    OVER                               CANCEL, RELEASE                  WITHDRAW, REFUSED, CANCEL, RELEASE
    any        PING, PONG              PING, PONG

    Streams are DATA, END, CLOSED, BROKEN and CREDIT.  In OVER whatever else arrives crossed the end, and is ignored.
"""

from __future__ import annotations

from cexec.errors import CexecError, ProtocolError, SilentPeerError
from cexec.protocol.base.limits import DEFAULT_IDLE_TIMEOUT, INITIAL_WINDOW, PING_INTERVAL
from cexec.protocol.connection import frames
from cexec.protocol.connection.frames import READS, WRITES, Ending, Exit, Go, Refusal
from cexec.protocol.connection.streams import OPEN, Incoming, Outgoing

OFFERING, OFFERED, RUNNING, OVER = "offering", "offered", "running", "over"
NO_DATA = memoryview(b"")


class Event:
    """What happened.  `kind` is the frame type that caused it; the other fields are set where they have a meaning."""

    __slots__ = ("data", "exit", "go", "kind", "number", "refusal", "stream", "text")

    def __init__(
        self,
        kind: int,
        *,
        stream: int = 0,
        data: memoryview = NO_DATA,
        number: int = 0,
        text: str = "",
        go: Go | None = None,
        exit: Exit | None = None,
        refusal: Refusal | None = None,
    ) -> None:
        self.kind = kind
        self.stream = stream
        self.data = data
        self.number = number
        self.text = text
        self.go = go
        self.exit = exit
        self.refusal = refusal


class Session:
    """One side of a connection after its handshake."""

    def __init__(self, *, worker: bool, now: float, idle_timeout: float = DEFAULT_IDLE_TIMEOUT) -> None:
        self.state = OFFERING
        self.outgoing: dict[int, Outgoing] = {}
        self.incoming: dict[int, Incoming] = {}
        self._worker = worker
        self._started = False
        self._asked_for_program = False
        self._idle_timeout = idle_timeout
        self._interval = min(PING_INTERVAL, idle_timeout / 2)
        self._heard = self._looked = now
        self._asked = False
        self._events: list[Event] = []
        self._frames: list[bytes] = []
        self._creditors: set[int] = set()  # streams whose peer is to be granted credit
        self._pong = False
        self._failure: CexecError | None = None

    @property
    def writing(self) -> bool:
        """Whether a stream that we write has not ended yet."""
        return any(half.state == OPEN for half in self.outgoing.values())

    # the five verbs

    def receive_data(self, data: memoryview, now: float) -> None:
        """One frame from the peer; raises `ProtocolError`."""
        self._check()
        self._heard, self._asked = now, False
        try:
            kind, stream, body = frames.parse(data)
            self._receive(kind, stream, body)
        except ProtocolError as error:
            self._failure = error
            raise

    def next_event(self) -> Event | None:
        return self._events.pop(0) if self._events else None

    def data_to_send(self) -> list[bytes]:
        """Frames to be sealed and sent, in order.  They may be left in here while the connection takes no more."""
        result, self._frames = self._frames, []
        for stream in self._creditors:
            if credit := self.incoming[stream].grant():
                result.append(frames.frame(frames.CREDIT, credit.to_bytes(4, "big"), stream))
        self._creditors.clear()
        if self._pong:
            result.append(frames.frame(frames.PONG))
            self._pong = False
        return result

    def next_timeout(self) -> float:
        """When to call `handle_timeout`: also in between, so that it can tell whether we slept."""
        return min(self._heard + (self._idle_timeout if self._asked else self._interval), self._looked + self._interval)

    def handle_timeout(self, now: float) -> None:
        """Asks a silent peer whether it is there; raises `SilentPeerError` for one that has been silent too long."""
        self._check()
        slept, self._looked = now - self._looked > 2 * self._interval, now
        if slept:
            # As a stopped process does: what the peer said in the meantime is still to be read.
            self._heard, self._asked = now, False
        elif self._asked and now >= self._heard + self._idle_timeout:
            self._failure = SilentPeerError(f"peer has been silent for {self._idle_timeout:.0f} seconds")
            raise self._failure
        elif not self._asked and now >= self._heard + self._interval:
            self._asked = True
            self._frames.append(frames.frame(frames.PING))

    # the worker's calls

    def confirm(self) -> None:
        """A slot is reserved: offers to run a job."""
        self._require(self._worker and self.state == OFFERING)
        self.state = OFFERED
        self._frames.append(frames.frame(frames.CONFIRM))

    def withdraw(self, text: str) -> None:
        self._require(self._worker and self.state == OFFERED)
        self.state = OVER
        self._frames.append(frames.frame(frames.WITHDRAW, frames.text_body(text)))

    def ask_for_program(self, platform: str) -> None:
        """The program that is to be run for this platform is not here: the client is to send it."""
        self._require(self._worker and self.state == RUNNING and not self._started)
        self._frames.append(frames.frame(frames.PROGRAM, frames.text_body(platform)))

    def started(self, *, once: bool = False) -> None:
        """The program runs; `once`: it must never run a second time, whatever becomes of this attempt."""
        self._require(self._worker and self.state == RUNNING and not self._started)
        self._started = True
        self._frames.append(frames.frame(frames.STARTED, bytes([frames.ONCE if once else 0])))

    def refuse(self, refusal: Refusal) -> None:
        """The program was not started."""
        self._require(self._worker and self.state == RUNNING and not self._started)
        self.state = OVER
        self._frames.append(frames.frame(frames.REFUSED, refusal.encode()))

    def left_unread(self, stream: int, size: int) -> None:
        """The program has ended without these bytes of what was passed on to it: they do not count as read."""
        self._require(self._worker and self.state == RUNNING)
        self.incoming[stream].consumed -= size

    def ended_unnoticed(self, stream: int) -> None:
        """The program ended an output whose reader had gone, and cannot have noticed that: all that was sent counts."""
        self._require(self._worker and self.state == RUNNING)
        half = self.outgoing[stream]
        if half.state == frames.READER_CLOSED:
            half.state = frames.ENDED

    def exit(self, result: Exit) -> None:
        """The job is over; every output must have ended.  Fills in the endings."""
        self._require(self._worker and self.state == RUNNING and self._started)
        if self.writing:
            raise ValueError("an output stream has not ended")
        for half in self.incoming.values():
            half.stop_reading()
        result.endings = [half.ending(WRITES) for half in self.outgoing.values()]
        result.endings += [half.ending(READS) for half in self.incoming.values()]
        self.state = OFFERING
        self._frames.append(frames.frame(frames.EXIT, result.encode()))

    # the client's calls

    def go(self, go: Go) -> None:
        """Gives the confirmed worker the job."""
        self._require(not self._worker and self.state == OFFERED)
        self._frames.append(frames.frame(frames.GO, go.encode()))
        self._open_streams(go)

    def cancel(self) -> None:
        self._require(not self._worker)
        self.state = OVER
        self._frames.append(frames.frame(frames.CANCEL))

    def release(self) -> None:
        """No further job will come."""
        self._require(not self._worker and self.state != RUNNING)
        self.state = OVER
        self._frames.append(frames.frame(frames.RELEASE))

    def signal(self, number: int) -> None:
        self._require(not self._worker and self.state == RUNNING)
        self._frames.append(frames.frame(frames.SIGNAL, bytes([number])))

    # both sides' calls

    def sendable(self, stream: int) -> int:
        """How many bytes the peer is ready to take on this stream now; 0 also when it has ended."""
        half = self.outgoing.get(stream)
        return half.credit if half is not None and half.state == OPEN else 0

    def data_head(self, stream: int, size: int) -> bytes:
        """Accounts for `size` bytes and returns the head of the frame that carries them."""
        self.outgoing[stream].send(size)
        return frames.head(frames.DATA, stream)

    def end(self, stream: int) -> None:
        """Our side of the stream is at its end."""
        half = self.outgoing[stream]
        if half.state == OPEN:
            half.state = frames.ENDED
            self._frames.append(frames.frame(frames.END, half.count.to_bytes(8, "big"), stream))

    def broken(self, stream: int, text: str) -> None:
        """Our side of the stream failed, which the peer must not take for its end."""
        half = self.outgoing[stream]
        if half.state == OPEN:
            half.state = frames.STREAM_BROKEN
            self._frames.append(frames.frame(frames.BROKEN, frames.text_body(text), stream))

    def consumed(self, stream: int, size: int) -> None:
        """`size` bytes of what was received have been passed on; gives the peer credit for more."""
        if self.incoming[stream].consume(size):
            self._creditors.add(stream)

    def close_reader(self, stream: int) -> None:
        """Whoever reads this stream on our side has gone: the peer's writer gets EPIPE."""
        half = self.incoming[stream]
        if half.stop_reading():
            self._frames.append(frames.frame(frames.CLOSED, half.consumed.to_bytes(8, "big"), stream))

    # frames from the peer

    def _receive(self, kind: int, stream: int, body: memoryview) -> None:
        if kind == frames.PING:
            self._pong = True
        elif kind == frames.PONG:
            pass
        elif self.state == OVER and not (self._worker and kind in (frames.CANCEL, frames.RELEASE)):
            pass  # what the peer sent before it heard that it is over
        elif kind in frames.OF_A_STREAM:
            early = not self._worker and self.state == RUNNING and not self._started
            if early and kind in (frames.DATA, frames.END, frames.BROKEN):  # it may take files before it starts
                raise ProtocolError("worker sent output before it had started the program")
            if kind == frames.DATA:
                self._receive_data(stream, body)
            else:
                self._receive_stream_frame(kind, stream, body)
        elif self._worker:
            self._receive_as_worker(kind, body)
        else:
            self._receive_as_client(kind, body)

    def _receive_data(self, stream: int, body: memoryview) -> None:
        half = self.incoming.get(stream)
        if half is None:
            raise ProtocolError("data on a stream that does not exist")
        if half.receive(len(body)):
            self._events.append(Event(frames.DATA, stream=stream, data=body))

    def _receive_stream_frame(self, kind: int, stream: int, body: memoryview) -> None:
        if kind in (frames.END, frames.BROKEN):
            reading = self.incoming.get(stream)
            if reading is None:
                raise ProtocolError("end of a stream that does not exist")
            told = reading.end(frames.parse_number(body, 8)) if kind == frames.END else reading.break_off()
            text = frames.parse_text(body) if kind == frames.BROKEN else ""
            if told:
                self._events.append(Event(kind, stream=stream, text=text))
            return
        writing = self.outgoing.get(stream)
        if writing is None:
            raise ProtocolError("credit for a stream that does not exist")
        if kind == frames.CREDIT:
            writing.grant(frames.parse_number(body, 4))
        elif writing.reader_closed(frames.parse_number(body, 8)):
            self._events.append(Event(kind, stream=stream))

    def _receive_as_worker(self, kind: int, body: memoryview) -> None:
        if kind == frames.GO and self.state == OFFERED:
            go = Go.decode(body)
            self._open_streams(go)
            self._events.append(Event(kind, go=go))
        elif kind == frames.SIGNAL:
            number = frames.parse_number(body, 1)
            if not 0 < number <= frames.LARGEST_SIGNAL:
                raise ProtocolError("client sent an impossible signal")
            if self.state == RUNNING:  # a signal may cross the EXIT on its way
                self._events.append(Event(kind, number=number))
        elif kind == frames.WINDOW:
            number = frames.parse_number(body, 4)
            if self.state == RUNNING:
                self._events.append(Event(kind, number=number))
        elif kind == frames.CANCEL or (kind == frames.RELEASE and self.state != RUNNING):
            self.state = OVER
            self._events.append(Event(kind))
        else:
            raise ProtocolError("client sent a frame that has no place here")

    def _receive_as_client(self, kind: int, body: memoryview) -> None:
        waiting = self.state == RUNNING and not self._started
        if kind == frames.CONFIRM and self.state == OFFERING:
            self.state = OFFERED
            self._events.append(Event(kind))
        elif kind == frames.WITHDRAW and (self.state == OFFERED or waiting):
            self.state = OVER
            self._events.append(Event(kind, text=frames.parse_text(body)))
        elif kind == frames.STARTED and waiting:
            self._started = True
            self._events.append(Event(kind, number=frames.parse_number(body, 1)))
        elif kind == frames.PROGRAM and waiting and not self._asked_for_program:
            self._asked_for_program = True
            self._events.append(Event(kind, text=frames.parse_text(body)))
        elif kind == frames.REFUSED and waiting:
            self.state = OVER
            self._events.append(Event(kind, refusal=Refusal.decode(body)))
        elif kind == frames.EXIT and self.state == RUNNING and self._started:
            result = Exit.decode(body)
            self._check_endings(result.endings)
            self.state = OFFERING
            self._events.append(Event(kind, exit=result))
        else:
            raise ProtocolError("worker sent a frame that has no place here")

    def _check_endings(self, endings: list[Ending]) -> None:
        """N1: both sides agree how every stream ended and how many bytes it carried."""
        told = {(ending.number, ending.direction): ending for ending in endings}
        expected = [(number, WRITES, half) for number, half in self.incoming.items()]
        if len(told) != len(endings) or len(told) != len(expected) + len(self.outgoing):
            raise ProtocolError("exit frame does not name every stream once")
        for number, direction, half in expected:
            ending = told.get((number, direction))
            if ending is None or not half.agrees(ending):
                raise ProtocolError(f"stream {number} was cut short")
        for number, writing in self.outgoing.items():
            ending = told.get((number, READS))
            if ending is None or not writing.agrees(ending):
                raise ProtocolError(f"stream {number} was not read as it was written")
            writing.finish(ending)

    def _open_streams(self, go: Go) -> None:
        self.state = RUNNING
        self._started = self._asked_for_program = False
        self._creditors.clear()
        inputs = [s.number for s in go.streams if s.directions & READS and s.same_as == s.number]
        outputs = [s.number for s in go.streams if s.directions & WRITES and s.same_as == s.number]
        receiving, sending = (inputs, outputs) if self._worker else (outputs, inputs)
        self.incoming = {number: Incoming(number, INITIAL_WINDOW) for number in receiving}
        self.outgoing = {number: Outgoing(number, INITIAL_WINDOW) for number in sending}

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _require(self, allowed: bool) -> None:
        if not allowed:
            raise ValueError(f"call has no place in state {self.state}")
