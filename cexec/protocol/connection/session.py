"""Frames to streams and back: one job on one connection, the same machine for both sides.

Contract: pure.  `receive_data(frame, now)` takes one frame, `next_event()` returns an event or None, `data_to_send()`
returns frames to be sealed in order, `next_timeout` and `handle_timeout` detect a silent peer.  No stream data waits in
here: incoming data is handed out as a view at once, outgoing data is accounted for by `data_head` and sealed in place.
Failure is sticky.  Memory is bounded by the number of streams.  docs/protocol.md sections 4.2 to 4.4.
`session_states` has the table of stages and frames.
"""

from __future__ import annotations

from cexec.common_errors import CexecError, ProtocolError
from cexec.protocol.base.limits import DEFAULT_IDLE_TIMEOUT, FRAME_HEADER
from cexec.protocol.connection import frames
from cexec.protocol.connection.frames import Exit, Go, Refusal
from cexec.protocol.connection.options import TELL_WANTED, YES
from cexec.protocol.connection.session_states import (
    ASKING,
    EXECUTING,
    FROM_CLIENT,
    FROM_WORKER,
    OFFERED,
    OFFERING,
    OVER,
    PREPARING,
    RUNNING,
    STATES,
    TRANSITIONS,
    JobNumbers,
)
from cexec.protocol.connection.silence import PeerSilence
from cexec.protocol.connection.streams import OPEN, StreamHalves

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cexec.protocol.connection.ahead_job import AheadJob
    from cexec.protocol.connection.streams import Incoming

__all__ = ["OFFERED", "OFFERING", "OVER", "RUNNING", "Event", "Session"]

NO_DATA = memoryview(b"")


class Event:
    """An event.  `kind` is the type of the frame that caused it; other fields are set if the type has them."""

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
    """One side of a connection after its handshake.  `state` is the coarse form of `stage`.

    `silence` is to be told of bytes that end in the middle of a record.
    """

    def __init__(
        self, *, worker: bool, now: float, idle_timeout: float = DEFAULT_IDLE_TIMEOUT, numbered: bool = False
    ) -> None:
        """`numbered`: frames have the numbers of their jobs, as from the second revision on."""
        self.stage = self.state = OFFERING
        # The streams of the program that runs, by the heads of their frames with data; None until that is needed.
        self._usual: dict[bytes, Incoming] | None = {}
        self._take_streams(StreamHalves())
        self._jobs = JobNumbers(numbered)
        self._ahead: AheadJob | None = None
        self._asked = False  # the client wants to hear when its slot is wanted, and has not heard it
        self._worker = worker
        self._allowed = FROM_CLIENT if worker else FROM_WORKER
        self.silence = PeerSilence(idle_timeout, now)
        self.events: list[Event] = []  # those that have not been taken, oldest first
        self._frames: list[bytes] = []
        self._creditors: set[int] = set()  # streams whose peer is to be granted credit
        self._pong = False
        self._failure: CexecError | None = None

    @property
    def writing(self) -> bool:
        """True if a stream that we write has not ended yet."""
        return any(half.state == OPEN for half in self.outgoing.values())

    # the five verbs

    def receive_data(self, data: memoryview, now: float) -> None:
        """Takes one frame from the peer; raises `ProtocolError` if it has no place here."""
        if self._failure is not None:
            raise self._failure
        self.silence.heard(now)
        try:
            kind, stream, body = frames.parse(data, numbered=self._jobs.numbered)
            if not self._jobs.numbered or kind in frames.OF_THE_CONNECTION or self.stage == OVER:
                self._receive(kind, stream, body)
            else:
                self._receive_numbered(kind, data[1], stream, body)
        except ProtocolError as error:
            self._fail(error)
            raise

    def take_data(self, data: memoryview, now: float) -> int:
        """Takes the usual frame, stream data of the program that runs, and returns its stream; returns -1 for others.

        The data is that behind the frame's head.  `receive_data` treats it alike, and takes much longer.
        """
        usual = self._usual
        if usual is None:  # most short jobs have no data, so this is not made when they begin
            job, halves = self._jobs.current, self.incoming.items()
            usual = self._usual = {frames.head(frames.DATA, number, job): half for number, half in halves}
        half = usual.get(data[:FRAME_HEADER].tobytes())
        size = len(data) - FRAME_HEADER
        if half is None or half.state != OPEN or not 0 < size <= half.window:
            return -1
        self.silence.heard(now)
        half.window -= size
        half.received += size
        return half.number

    def next_event(self) -> Event | None:
        return self.events.pop(0) if self.events else None

    @property
    def wants_to_send(self) -> bool:
        """True if `data_to_send` has something."""
        return bool(self._frames or self._creditors or self._pong)

    def data_to_send(self) -> list[bytes]:
        """Returns frames to be sealed and sent, in order.  A driver may wait with this call while it is congested."""
        result, self._frames = self._frames, []
        for stream in self._creditors:
            if credit := self.incoming[stream].grant():
                result.append(self._frame(frames.CREDIT, credit.to_bytes(4, "big"), stream))
        self._creditors.clear()
        if self._pong:
            result.append(frames.frame(frames.PONG))
            self._pong = False
        return result

    def next_timeout(self) -> float:
        """Returns when to call `handle_timeout`, early enough for it to notice that this process was stopped."""
        return self.silence.next_timeout()

    def handle_timeout(self, now: float) -> None:
        """Sends PING to a silent peer, or in the middle of a record.

        Raises `SilentPeerError` if the peer has been silent for too long, and `ProtocolError` if a record has another
        length than it says.
        """
        self._check()
        try:
            if self.silence.handle_timeout(now):
                self._frames.append(frames.frame(frames.PING))
        except CexecError as error:
            self._fail(error)
            raise

    # the worker's calls

    def confirm(self) -> None:
        """Offers to run a job, because a slot is reserved."""
        self._require(self._worker and self.stage == OFFERING and self._ahead is None)
        self._enter(OFFERED)
        self._frames.append(self._frame(frames.CONFIRM))

    def withdraw(self, text: str) -> None:
        """Takes the offer back; `text` says why."""
        self._require(self._worker and self.stage == OFFERED)
        self._enter(OVER)
        self._frames.append(self._frame(frames.WITHDRAW, frames.text_body(text)))

    def ask_for_program(self, platform: str) -> None:
        """Asks the client for the program for this platform, because it is not here."""
        self._require(self._worker and self.stage in (PREPARING, ASKING))
        self._enter(ASKING)
        self._frames.append(self._frame(frames.PROGRAM, frames.text_body(platform)))

    def started(self, *, once: bool = False) -> None:
        """Tells the client that the program runs; `once`: even if this attempt is lost, it must not run again."""
        self._require(self._worker and self.stage in (PREPARING, ASKING))
        self._enter(EXECUTING)
        self._frames.append(self._frame(frames.STARTED, bytes([frames.ONCE if once else 0])))

    def refuse(self, refusal: Refusal) -> None:
        """Tells the client that the program was not started."""
        self._require(self._worker and self.stage in (PREPARING, ASKING))
        if self._ahead is not None:
            self.give_back("the job before it was refused")
        self._frames.append(self._frame(frames.REFUSED, refusal.encode()))
        self._enter(OVER)

    def begin_ahead(self) -> Go:
        """Confirms, and takes the job that was given in advance; its input follows as events."""
        ahead = self._ahead
        self._require(self._worker and self.stage == OFFERING and ahead is not None)
        assert ahead is not None
        self._frames.append(frames.frame(frames.CONFIRM, job=ahead.number))
        self._begin(ahead)
        try:
            for kind, stream, body in ahead.frames:
                self._receive(kind, stream, memoryview(body))
        except ProtocolError as error:
            self._fail(error)
            raise
        return ahead.go

    def give_back(self, text: str) -> None:
        """Returns the job that was given in advance; `text` says why."""
        ahead, self._ahead = self._ahead, None
        self._require(self._worker and ahead is not None)
        assert ahead is not None
        self._frames.append(frames.frame(frames.RETURNED, frames.text_body(text), job=ahead.number))

    def slot_wanted(self) -> None:
        """Tells the client that another one waits for the slot of its job; only if it `wants_to_hear`."""
        self._require(self._worker and self.stage == EXECUTING and self._asked)
        self._asked = False
        self._frames.append(self._frame(frames.WANTED))

    def left_unread(self, stream: int, size: int) -> None:
        """Takes back `size` bytes that were passed on, because the program ended without reading them."""
        self._require(self._worker and self.state == RUNNING)
        self.incoming[stream].consumed -= size

    def ended_unnoticed(self, stream: int) -> None:
        """Counts all that was sent: the program ended this output before it could notice that its reader had gone."""
        self._require(self._worker and self.state == RUNNING)
        half = self.outgoing[stream]
        if half.state == frames.READER_CLOSED:
            half.state = frames.ENDED

    def exit(self, result: Exit) -> None:
        """Ends the job, whose outputs must have ended.  Fills in the endings."""
        self._require(self._worker and self.stage == EXECUTING)
        if self.writing:
            raise ValueError("an output stream has not ended")
        result.endings = self._streams.stop()
        self._enter(OFFERING)
        self._frames.append(self._frame(frames.EXIT, result.encode()))

    # the client's calls

    def go(self, go: Go) -> None:
        """Gives the confirmed worker the job."""
        self._require(not self._worker and self.stage == OFFERED)
        self._frames.append(self._frame(frames.GO, go.encode()))
        self._open_streams(go, self._jobs.give())

    def go_ahead(self, go: Go, inputs: Mapping[int, bytes]) -> None:
        """Gives the worker a job in advance, with its whole input; `ValueError` if it is too long for one record."""
        self._require(not self._worker and self.may_go_ahead)
        from cexec.protocol.connection.ahead_job import AheadJob  # here and below, because only leases have such jobs

        ahead = AheadJob(self._jobs.following, go)
        self._frames += ahead.send(inputs)
        self._jobs.give()
        self._ahead = ahead

    def take_back(self) -> None:
        """Asks for the job that was given in advance; if it has not begun, RETURNED answers."""
        self._require(not self._worker and self._ahead is not None)
        assert self._ahead is not None
        self._frames.append(frames.frame(frames.TAKE_BACK, job=self._ahead.number))

    def cancel(self) -> None:
        """Gives up the job, or the worker's offer."""
        self._require(not self._worker)
        self._enter(OVER)
        self._frames.append(frames.frame(frames.CANCEL))

    def release(self) -> None:
        """Tells the worker that no further job will come; a job in advance has to be taken back before."""
        self._require(not self._worker and self.state != RUNNING and self._ahead is None)
        self._enter(OVER)
        self._frames.append(frames.frame(frames.RELEASE))

    def signal(self, number: int) -> None:
        """Sends a signal, one of `options.SIGNALS`, to the program."""
        self._require(not self._worker and self.state == RUNNING)
        self._frames.append(self._frame(frames.SIGNAL, bytes([number])))

    def window(self, rows: int, columns: int) -> None:
        """Tells the worker the new size of the terminal."""
        self._require(not self._worker and self.state == RUNNING)
        self._frames.append(self._frame(frames.WINDOW, frames.window_body(rows, columns)))

    # both sides' calls

    @property
    def ahead(self) -> Go | None:
        """The job that was given in advance and has neither begun nor been returned."""
        return None if self._ahead is None else self._ahead.go

    @property
    def wants_to_hear(self) -> bool:
        """True if the client of the job of this moment has asked for WANTED, and it was not sent yet."""
        return self._asked

    @property
    def may_go_ahead(self) -> bool:
        """True if a job could be given in advance now."""
        return self._jobs.numbered and self._ahead is None and self.stage not in (OFFERED, OVER)

    def sendable(self, stream: int) -> int:
        """Returns how many bytes the peer will take on this stream now; 0 if the stream has ended."""
        half = self.outgoing.get(stream)
        return half.credit if half is not None and half.state == OPEN else 0

    def data_head(self, stream: int, size: int) -> bytes:
        """Accounts for `size` bytes and returns the head of the frame that carries them."""
        self.outgoing[stream].send(size)
        head = self._heads.get(stream)
        if head is None:
            head = self._heads[stream] = frames.head(frames.DATA, stream, self._jobs.current)
        return head

    def end(self, stream: int) -> None:
        """Ends a stream that we write."""
        half = self.outgoing[stream]
        if half.state == OPEN:
            half.state = frames.ENDED
            self._frames.append(self._frame(frames.END, half.count.to_bytes(8, "big"), stream))

    def broken(self, stream: int, text: str) -> None:
        """Ends a stream that we write by a failure, which the peer must not mistake for a proper end."""
        half = self.outgoing[stream]
        if half.state == OPEN:
            half.state = frames.STREAM_BROKEN
            self._frames.append(self._frame(frames.BROKEN, frames.text_body(text), stream))

    def consumed(self, stream: int, size: int) -> None:
        """Notes that `size` received bytes were passed on, and gives the peer credit for more."""
        if self.incoming[stream].consume(size):
            self._creditors.add(stream)

    def close_reader(self, stream: int) -> None:
        """Tells the peer that nobody reads this stream here any more, so that its writer gets EPIPE."""
        half = self.incoming[stream]
        if half.stop_reading():
            self._frames.append(self._frame(frames.CLOSED, half.consumed.to_bytes(8, "big"), stream))

    # frames from the peer

    def _frame(self, kind: int, body: bytes = b"", stream: int = 0) -> bytes:
        """Returns a frame of the job of this moment, or of the next one."""
        return frames.frame(kind, body, stream, self._jobs.of(kind))

    def _receive_numbered(self, kind: int, number: int, stream: int, body: memoryview) -> None:
        ahead = self._ahead
        if ahead is not None and number == ahead.number:
            if self._worker:
                self._receive_ahead_as_worker(ahead, kind, stream, body)
            else:
                self._receive_ahead_as_client(ahead, kind, body)
        elif not self._jobs.takes(kind, number):
            pass
        elif kind == frames.GO and self._worker and self.stage != OFFERED:
            if ahead is not None:
                raise ProtocolError("client gave two jobs in advance")
            from cexec.protocol.connection.ahead_job import AheadJob

            self._ahead = AheadJob(self._jobs.give(), Go.decode(body))
        else:
            self._receive(kind, stream, body)

    def _receive_ahead_as_worker(self, ahead: AheadJob, kind: int, stream: int, body: memoryview) -> None:
        if kind == frames.TAKE_BACK:
            self.give_back("")
        else:
            ahead.keep(kind, stream, body)

    def _receive_ahead_as_client(self, ahead: AheadJob, kind: int, body: memoryview) -> None:
        if kind == frames.RETURNED:
            self._ahead = None
            self.events.append(Event(kind, text=frames.parse_text(body)))
            return
        if kind != frames.CONFIRM or self.stage != OFFERING:
            raise ProtocolError("worker sent a frame of a job that it has not begun")
        self._begin(ahead)
        ahead.account(self.outgoing)
        self.events.append(Event(frames.GO, go=ahead.go))

    def _begin(self, ahead: AheadJob) -> None:
        self._ahead = None
        self._open_streams(ahead.go, ahead.number)

    def _receive(self, kind: int, stream: int, body: memoryview) -> None:
        if kind == frames.PING:
            self._pong = True
        elif kind == frames.PONG:
            pass
        elif kind not in self._allowed[self.stage]:
            if self.stage != OVER:  # else the peer sent it before it heard of the end
                self._refuse_frame(kind)
        elif kind == frames.DATA:
            if self._streams.receive_data(stream, len(body)):
                self.events.append(Event(kind, stream=stream, data=body))
        elif kind in frames.OF_A_STREAM:
            text = frames.parse_text(body) if kind == frames.BROKEN else ""
            if self._streams.receive(kind, stream, body):
                self.events.append(Event(kind, stream=stream, text=text))
        elif self._worker:
            self._receive_as_worker(kind, body)
        else:
            self._receive_as_client(kind, body)

    def _refuse_frame(self, kind: int) -> None:
        if self._worker:
            raise ProtocolError("client sent a frame that has no place here")
        if kind in frames.OF_A_STREAM:  # it may read files before it starts the program, but not write
            raise ProtocolError("worker sent output before it had started the program")
        raise ProtocolError("worker sent a frame that has no place here")

    def _receive_as_worker(self, kind: int, body: memoryview) -> None:
        if kind == frames.GO:
            go = Go.decode(body)
            self._open_streams(go, self._jobs.give())
            self.events.append(Event(kind, go=go))
        elif kind == frames.SIGNAL:
            number = frames.parse_number(body, 1)
            if not 0 < number <= frames.LARGEST_SIGNAL:
                raise ProtocolError("client sent an impossible signal")
            if self.state == RUNNING:  # a signal may cross the EXIT on its way
                self.events.append(Event(kind, number=number))
        elif kind == frames.WINDOW:
            number = frames.parse_number(body, 4)
            if self.state == RUNNING:
                self.events.append(Event(kind, number=number))
        else:  # CANCEL or RELEASE
            self._enter(OVER)
            self.events.append(Event(kind))

    def _receive_as_client(self, kind: int, body: memoryview) -> None:
        if kind == frames.CONFIRM:
            self._enter(OFFERED)
            self.events.append(Event(kind))
        elif kind == frames.WITHDRAW:
            self._enter(OVER)
            self.events.append(Event(kind, text=frames.parse_text(body)))
        elif kind == frames.STARTED:
            self._enter(EXECUTING)
            self.events.append(Event(kind, number=frames.parse_number(body, 1)))
        elif kind == frames.PROGRAM:
            self._enter(ASKING)
            self.events.append(Event(kind, text=frames.parse_text(body)))
        elif kind == frames.REFUSED:
            self._enter(OVER)
            self.events.append(Event(kind, refusal=Refusal.decode(body)))
        elif kind == frames.WANTED:
            if not self._asked:
                raise ProtocolError("worker said that a slot is wanted, and was not asked")
            self._asked = False
            self.events.append(Event(kind))
        else:  # EXIT
            result = Exit.decode(body)
            self._streams.take_endings(result.endings)
            self._enter(OFFERING)
            self.events.append(Event(kind, exit=result))

    def _open_streams(self, go: Go, number: int) -> None:
        self._enter(PREPARING)
        self._jobs.current = number
        self._asked = self._jobs.numbered and go.options.get(TELL_WANTED) == YES
        self._creditors.clear()
        self._take_streams(StreamHalves(go.streams, worker=self._worker))

    def _take_streams(self, streams: StreamHalves) -> None:
        """Has the halves at hand, because drivers look at them for each record."""
        self._streams = streams
        self._heads: dict[int, bytes] = {}  # of the frames with data, by stream
        self._usual = {}
        self.incoming, self.outgoing = streams.incoming, streams.outgoing

    def _enter(self, stage: str) -> None:
        """The only place that changes stage and state."""
        if stage not in TRANSITIONS[self.stage]:
            raise ValueError(f"a session that is {self.stage} cannot become {stage}")
        self.stage, self.state = stage, STATES[stage]
        self._usual = {}
        if stage == OVER:
            self._ahead = None
        elif stage == EXECUTING:
            self._usual = None

    def _fail(self, error: CexecError) -> None:
        self._failure, self._usual = error, {}

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _require(self, allowed: bool) -> None:
        if not allowed:
            raise ValueError(f"call has no place in state {self.state}")
