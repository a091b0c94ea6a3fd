"""A client's and a worker's session in any order of calls and deliveries, against a model of what they were told.

Two honest peers, whatever crosses on the way, never take one another for liars.  An EXIT that the client accepts has
the status that the program had, and counts every byte (N1, N5); it belongs to the job that runs (N4).  No stream has
more under way than its window (N7).  docs/protocol.md sections 4 and 7.
"""

from __future__ import annotations

from collections import deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from cexec.protocol.base.limits import FRAME_HEADER, INITIAL_WINDOW, MAXIMUM_DATA, PING_INTERVAL
from cexec.protocol.connection import frames, session_states
from cexec.protocol.connection.frames import Exit, Refusal, Stream
from cexec.protocol.connection.options import READS, SOCKET, WRITES
from cexec.protocol.connection.session import OFFERED, OFFERING, OVER, RUNNING, Event, Session
from tests.protocol.connection.machines import SELDOM, WorkerOffers
from tests.protocol.wires import job

SIZES = st.one_of(st.integers(1, 300), st.sampled_from([MAXIMUM_DATA, INITIAL_WINDOW // 4]))
SHAPES = [
    [],
    [Stream(0, READS), Stream(1, WRITES), Stream(2, WRITES)],
    [Stream(1, WRITES), Stream(2, WRITES, same_as=1)],
    [Stream(0, READS), Stream(3, READS | WRITES, SOCKET)],
]
NUMBERS = st.sampled_from([0, 1, 2, 3])


class Way:
    """One direction: frames on their way, and for each stream what was sent and what has arrived in this job."""

    def __init__(self, sender: Session, receiver: Session) -> None:
        self.sender = sender
        self.receiver = receiver
        self.frames: deque[bytes] = deque()
        self.sent: dict[int, int] = {}
        self.arrived: dict[int, int] = {}
        self.passed_on: dict[int, int] = {}
        self.events: list[Event] = []

    def collect(self) -> None:
        self.frames.extend(self.sender.data_to_send())

    def send(self, stream: int, size: int) -> None:
        size = min(size, MAXIMUM_DATA, self.sender.sendable(stream))
        if size:
            self.collect()  # no data overtakes the GO or STARTED that it belongs to
            self.frames.append(self.sender.data_head(stream, size) + bytes(size))
            self.sent[stream] = self.sent.get(stream, 0) + size

    def deliver(self, now: float) -> list[Event]:
        self.receiver.receive_data(memoryview(self.frames.popleft()), now)
        found = list(iter(self.receiver.next_event, None))
        for event in found:
            if event.kind == frames.DATA:
                self.arrived[event.stream] = self.arrived.get(event.stream, 0) + len(event.data)
        self.events += found
        return found

    def under_way(self, stream: int) -> int:
        """Bytes on their way to the reader or in its hands."""
        flying = sum(
            len(frame) - FRAME_HEADER for frame in self.frames if frame[0] == frames.DATA and frame[3] == stream
        )
        return flying + self.arrived.get(stream, 0) - self.passed_on.get(stream, 0)

    def begin_sending(self) -> None:
        self.sent.clear()

    def begin_receiving(self) -> None:
        self.arrived.clear()
        self.passed_on.clear()


class Sessions(WorkerOffers):
    """Every call is made only where its side may make it; what is on its way then is the other side's to bear."""

    @initialize()
    def connect(self) -> None:
        self.now = 0.0
        self.client = Session(worker=False, now=0.0)
        self.worker = Session(worker=True, now=0.0)
        self.up = Way(self.worker, self.client)
        self.down = Way(self.client, self.worker)
        self.status: int | None = None  # of the program whose EXIT is on its way
        self.unfinished = 0  # jobs that were given and have not ended
        self.exits = 0

    # the wire

    @rule(up=st.booleans(), count=st.integers(1, 6))
    def deliver(self, up: bool, count: int) -> None:
        self._carry(self.up if up else self.down, count)

    @rule()
    def deliver_all(self) -> None:
        """Until nobody has anything to say."""
        while self._carry(self.up) + self._carry(self.down):
            pass

    def _carry(self, way: Way, count: int = 1 << 20) -> int:
        way.collect()
        count = min(count, len(way.frames))
        for _ in range(count):
            for event in way.deliver(self.now):
                if way is self.up:
                    self._client_hears(event)
                elif event.kind == frames.GO:
                    self.down.begin_receiving()
                    self.up.begin_sending()
        return count

    def _client_hears(self, event: Event) -> None:
        if event.kind != frames.EXIT:
            return
        assert event.exit is not None and event.exit.exit_status == self.status
        self.exits += 1
        self.unfinished -= 1
        assert self.unfinished == 0
        for ending in event.exit.endings:
            if ending.direction == WRITES and self.client.incoming[ending.number].state != frames.READER_CLOSED:
                assert ending.ending in (frames.ENDED, frames.STREAM_BROKEN)
                assert self.up.arrived.get(ending.number, 0) == self.up.sent.get(ending.number, 0) == ending.count
            elif ending.direction == READS:
                assert ending.count <= self.down.sent.get(ending.number, 0)

    @rule(seconds=st.sampled_from([0.1, PING_INTERVAL / 2, PING_INTERVAL]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.deliver_all()  # nobody is silent for long
        for session in (self.client, self.worker):
            if self.now >= session.next_timeout():
                session.handle_timeout(self.now)
                assert session.next_timeout() > self.now  # no timer is due twice

    # the worker's side

    @precondition(lambda self: self.worker.stage == self.client.stage == OFFERING)
    @rule(streams=st.sampled_from(SHAPES))
    def start_a_job(self, streams: list[Stream]) -> None:
        self.deliver_all()
        self.worker.confirm()
        self.deliver_all()
        self.go(streams)
        self.deliver_all()
        self.worker.started()

    @precondition(lambda self: self.worker.stage in (session_states.PREPARING, session_states.ASKING))
    @rule(what=st.sampled_from(["ask", "start", "start", "start", "refuse"]), once=st.booleans())
    def prepare(self, what: str, once: bool) -> None:
        if what == "ask" and self.worker.stage == session_states.PREPARING:
            self.worker.ask_for_program("linux-x86_64")
        elif what == "refuse":
            self.worker.refuse(Refusal(frames.HERE, "no such file"))
        else:
            self.worker.started(once=once)

    @precondition(lambda self: self.worker.stage == session_states.EXECUTING)
    @rule(stream=NUMBERS, size=SIZES)
    def write_output(self, stream: int, size: int) -> None:
        self.up.send(stream, size)

    @precondition(lambda self: self.worker.stage == session_states.EXECUTING)
    @rule(stream=NUMBERS, broken=st.booleans())
    def end_output(self, stream: int, broken: bool) -> None:
        if stream in self.worker.outgoing:
            if broken:
                self.worker.broken(stream, "input/output error")
            else:
                self.worker.end(stream)

    @precondition(lambda self: self.worker.state == RUNNING)
    @rule(stream=NUMBERS, size=SIZES, close=st.booleans())
    def read_input(self, stream: int, size: int, close: bool) -> None:
        self._read(self.down, stream, size, close)

    @precondition(lambda self: self.worker.stage == session_states.EXECUTING)
    @rule(status=st.integers(0, 255))
    def exit(self, status: int) -> None:
        for stream in self.worker.outgoing:
            self.worker.end(stream)
        self.status = status
        self.worker.exit(Exit(kind=frames.EXITED, status=status, endings=[]))

    # the client's side

    @precondition(lambda self: self.client.stage == OFFERED)
    @rule(streams=st.sampled_from(SHAPES))
    def go(self, streams: list[Stream]) -> None:
        self.client.go(job(streams=streams))
        self.down.begin_sending()
        self.up.begin_receiving()
        self.unfinished = 1

    @precondition(lambda self: self.client.state == RUNNING)
    @rule(stream=NUMBERS, size=SIZES)
    def write_input(self, stream: int, size: int) -> None:
        self.down.send(stream, size)

    @precondition(lambda self: self.client.state == RUNNING)
    @rule(stream=NUMBERS, broken=st.booleans())
    def end_input(self, stream: int, broken: bool) -> None:
        if stream in self.client.outgoing:
            if broken:
                self.client.broken(stream, "input/output error")
            else:
                self.client.end(stream)

    @precondition(lambda self: self.client.state == RUNNING)
    @rule(stream=NUMBERS, size=SIZES, close=st.booleans())
    def read_output(self, stream: int, size: int, close: bool) -> None:
        self._read(self.up, stream, size, close)

    @precondition(lambda self: self.client.state == RUNNING)
    @rule(number=st.sampled_from([2, 15]))
    def signal(self, number: int) -> None:
        self.client.signal(number)

    @precondition(lambda self: self.client.state != OVER)
    @rule(chance=SELDOM)
    def let_go(self, chance: int) -> None:
        if chance == 7:
            self.client.cancel()
        elif chance == 6 and self.client.state != RUNNING:
            self.client.release()

    def _read(self, way: Way, stream: int, size: int, close: bool) -> None:
        half = way.receiver.incoming.get(stream)
        if half is None:
            return
        size = min(size, half.received - half.consumed)
        if size:
            way.receiver.consumed(stream, size)
            way.passed_on[stream] = way.passed_on.get(stream, 0) + size
        if close:
            way.receiver.close_reader(stream)

    # always

    @invariant()
    def no_stream_has_more_under_way_than_its_window(self) -> None:
        for way in (self.up, self.down):
            for stream, half in way.receiver.incoming.items():
                if half.state == 0:
                    assert way.under_way(stream) <= INITIAL_WINDOW
                    assert 0 <= half.consumed <= half.received == way.arrived.get(stream, 0)

    @invariant()
    def the_coarse_state_is_that_of_the_stage(self) -> None:
        for session in (self.client, self.worker):
            assert session.state == session_states.STATES[session.stage]

    def teardown(self) -> None:
        """What is on its way arrives, and nobody is surprised by it."""
        if not hasattr(self, "client"):
            return
        self.deliver_all()
        told_over = [event for event in self.down.events if event.kind in (frames.CANCEL, frames.RELEASE)]
        assert len(told_over) <= 1
        if self.client.stage == OVER and told_over:
            assert self.worker.stage == OVER


TestSessions = Sessions.TestCase
TestSessions.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)
