"""Jobs that are given in advance, in any order of calls and deliveries, against a model of what was run.

Two honest peers never take one another for liars.  A job whose RETURNED the client has heard has not run and never will
(N4).  An EXIT that the client accepts is that of the job that it believes to run, and that job has had its whole input
(N1).  No job runs twice.  A job that is told that its slot is wanted has asked for that, and hears it once.
docs/protocol.md section 4.4.
"""

from __future__ import annotations

from collections import deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from cexec.protocol.connection import frames, session_states
from cexec.protocol.connection.frames import Exit, Go, Refusal
from cexec.protocol.connection.options import TELL_WANTED, YES
from cexec.protocol.connection.session import OFFERED, OFFERING, OVER, RUNNING, Event, Session
from tests.protocol.connection.machines import SELDOM, WorkerOffers
from tests.protocol.wires import job


def input_of(number: int) -> bytes:
    return b"x" * (number % 7)


def numbered_job(number: int) -> Go:
    """Every third one asks to hear that its slot is wanted."""
    return job(job_id=number.to_bytes(16, "big"), options={} if number % 3 else {TELL_WANTED: YES})


class Ahead(WorkerOffers):
    """Jobs are numbered by the model, and carry their number as job id."""

    @initialize()
    def connect(self) -> None:
        self.client = Session(worker=False, now=0.0, numbered=True)
        self.worker = Session(worker=True, now=0.0, numbered=True)
        self.up: deque[bytes] = deque()
        self.down: deque[bytes] = deque()
        self.jobs = 0
        self.current = self.next = -1  # what the client believes
        self.run: list[int] = []  # jobs that have begun at the worker
        self.input = bytearray()
        self.input_ended = False
        self.returned: set[int] = set()
        self.exits: list[int] = []
        self.told: list[int] = []  # jobs that were told that their slot is wanted
        self.heard: list[int] = []

    # the wire

    @rule(up=st.booleans(), count=st.integers(1, 4))
    def deliver(self, up: bool, count: int) -> None:
        sender, way, receiver = (self.worker, self.up, self.client) if up else (self.client, self.down, self.worker)
        way.extend(sender.data_to_send())
        for _ in range(min(count, len(way))):
            receiver.receive_data(memoryview(way.popleft()), 0.0)
            while (event := receiver.next_event()) is not None:
                if up:
                    self._client_hears(event)
                else:
                    self._worker_hears(event)

    @rule()
    def deliver_all(self) -> None:
        for _ in range(4):
            self.deliver(True, 1000)
            self.deliver(False, 1000)

    def _client_hears(self, event: Event) -> None:
        if event.kind == frames.GO:
            assert event.go is not None and int.from_bytes(event.go.job_id, "big") == self.next
            self.current, self.next = self.next, -1
        elif event.kind == frames.RETURNED:
            self.returned.add(self.next)
            self.next = -1
        elif event.kind == frames.EXIT:
            assert event.exit is not None and event.exit.status == self.current % 256
            self.exits.append(self.current)
            self.current = -1
        elif event.kind == frames.WANTED:
            self.heard.append(self.current)

    def _worker_hears(self, event: Event) -> None:
        if event.kind == frames.GO:
            assert event.go is not None
            self._begun(event.go.job_id)
        elif event.kind == frames.DATA:
            self.input += event.data
            self.worker.consumed(0, len(event.data))
        elif event.kind == frames.END:
            self.input_ended = True

    def _begun(self, job_id: bytes) -> None:
        self.run.append(int.from_bytes(job_id, "big"))
        self.input.clear()
        self.input_ended = False

    # the worker's side

    @precondition(lambda self: self.worker.stage == OFFERING and self.worker.ahead is not None)
    @rule()
    def begin(self) -> None:
        self._begun(self.worker.begin_ahead().job_id)
        while (event := self.worker.next_event()) is not None:
            self._worker_hears(event)

    @precondition(lambda self: self.worker.ahead is not None)
    @rule(chance=st.integers(0, 3))
    def give_back(self, chance: int) -> None:
        if chance == 0:
            self.worker.give_back("no time")

    @precondition(lambda self: self.worker.stage == session_states.PREPARING)
    @rule(chance=SELDOM)
    def start(self, chance: int) -> None:
        if chance == 7:
            self.worker.refuse(Refusal(frames.HERE, "no"))
        else:
            self.worker.started()

    @precondition(lambda self: self.worker.stage == session_states.EXECUTING and self.worker.wants_to_hear)
    @rule()
    def tell_that_the_slot_is_wanted(self) -> None:
        self.worker.slot_wanted()
        self.told.append(self.run[-1])

    @precondition(lambda self: self.worker.stage == session_states.EXECUTING)
    @rule(whole=st.booleans())
    def exit(self, whole: bool) -> None:
        if whole and not self.input_ended:
            return
        number = self.run[-1]
        assert not self.input_ended or self.input == input_of(number)
        for stream in (1, 2):
            self.worker.end(stream)
        self.worker.exit(Exit(kind=frames.EXITED, status=number % 256, endings=[]))

    # the client's side

    @precondition(lambda self: self.client.stage == OFFERED)
    @rule(ended=st.booleans())
    def go(self, ended: bool) -> None:
        self.current = self.jobs
        self.client.go(numbered_job(self.jobs))
        data = input_of(self.jobs)
        self.jobs += 1
        self.down.extend(self.client.data_to_send())
        if data:
            self.down.append(self.client.data_head(0, len(data)) + data)
        if ended:
            self.client.end(0)

    @precondition(lambda self: self.client.state == RUNNING)
    @rule()
    def end_input(self) -> None:
        self.client.end(0)

    @precondition(lambda self: self.client.may_go_ahead)
    @rule()
    def go_ahead(self) -> None:
        self.next = self.jobs
        self.client.go_ahead(numbered_job(self.jobs), {0: input_of(self.jobs)})
        self.jobs += 1

    @precondition(lambda self: self.client.ahead is not None)
    @rule(chance=st.integers(0, 3))
    def take_back(self, chance: int) -> None:
        if chance == 0:
            self.client.take_back()

    @precondition(lambda self: self.client.state == RUNNING)
    @rule()
    def signal(self) -> None:
        self.client.signal(15)

    @precondition(lambda self: self.client.state != OVER)
    @rule(chance=SELDOM)
    def let_go(self, chance: int) -> None:
        if chance == 7:
            self.client.cancel()
        elif chance == 6 and self.client.state != RUNNING and self.client.ahead is None:
            self.client.release()

    def teardown(self) -> None:
        if not hasattr(self, "client"):
            return
        self.deliver_all()
        assert len(set(self.run)) == len(self.run)
        assert not self.returned & set(self.run)
        assert set(self.exits) <= set(self.run)
        assert self.exits == sorted(self.exits)
        assert self.heard == self.told[: len(self.heard)]
        assert len(set(self.told)) == len(self.told) and not any(number % 3 for number in self.told)
        if self.client.stage != OVER:  # what is not over has been heard of
            assert set(range(self.jobs)) == {*self.exits, *self.returned, *{self.current, self.next} - {-1}}


TestAhead = Ahead.TestCase
TestAhead.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
