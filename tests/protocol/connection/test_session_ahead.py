"""Numbers of jobs, and a job that is given in advance: docs/protocol.md sections 4.2 and 4.4."""

from __future__ import annotations

import pytest

from cexec.errors import ProtocolError
from cexec.protocol.base.limits import FIRST_REVISION, FRAME_LENGTH, MAXIMUM_DATA, MAXIMUM_FRAME
from cexec.protocol.connection import frames
from cexec.protocol.connection.frames import Exit, Go, Refusal, Stream
from cexec.protocol.connection.options import READS, WRITES
from cexec.protocol.connection.session import OFFERED, OFFERING, OVER, RUNNING, Session
from cexec.protocol.connection.session_states import LATEST, NUMBERS
from tests.protocol.connection.sessions import exited, finish, told
from tests.protocol.wires import Wire, connected, job, running, start_job

INPUT = b"the whole input"
SECOND = job(job_id=b"the second job  ")
EXIT = Exit(kind=frames.EXITED, status=0, endings=[]).encode()


def ahead(go: Go = SECOND, inputs: dict[int, bytes] | None = None) -> Wire:
    """A job runs, and another one has been given in advance."""
    wire = running()
    wire.client.session.go_ahead(go, {0: INPUT} if inputs is None else inputs)
    return wire.flow().raise_errors()


def kinds(session: Session) -> list[tuple[int, int]]:
    """Type and number of each frame that waits to be sent."""
    return [(frame[0], frame[1]) for frame in session.data_to_send()]


def begin(wire: Wire) -> Go:
    """The worker begins the job that it has in advance."""
    go = wire.worker.session.begin_ahead()
    while (event := wire.worker.session.next_event()) is not None:
        wire.worker.events.append((event.kind, event.stream))
        wire.worker.output[event.stream] = wire.worker.output.get(event.stream, b"") + bytes(event.data)
    return go


# Numbers


def test_frames_of_a_job_have_its_number_and_others_have_none() -> None:
    wire = running()
    finish(wire)
    wire.worker.session.confirm()
    assert kinds(wire.worker.session) == [(frames.CONFIRM, 1)]
    told(wire.client.session, frames.CONFIRM, job=1)
    wire.client.session.go(job())
    wire.client.session.end(0)
    wire.client.session.signal(15)
    assert kinds(wire.client.session) == [(frames.GO, 1), (frames.END, 1), (frames.SIGNAL, 1)]
    wire.client.session.cancel()
    assert kinds(wire.client.session) == [(frames.CANCEL, 0)]


def test_in_the_first_revision_every_number_is_0() -> None:
    wire = running(revision=FIRST_REVISION)
    finish(wire)
    start_job(wire)
    wire.client.session.signal(15)
    assert kinds(wire.client.session) == [(frames.SIGNAL, 0)]
    assert not wire.client.session.may_go_ahead
    with pytest.raises(ValueError, match="no place"):
        wire.client.session.go_ahead(SECOND, {})
    with pytest.raises(ProtocolError):
        told(wire.worker.session, frames.SIGNAL, b"\2", job=1)


def test_numbers_begin_again_after_255() -> None:
    wire = running(job(streams=[]))
    for number in range(1, NUMBERS + 3):
        finish(wire)
        start_job(wire, job(streams=[]))
        wire.client.session.signal(15)
        assert kinds(wire.client.session) == [(frames.SIGNAL, number % NUMBERS)]
    assert finish(wire).exit_status == 0


@pytest.mark.parametrize("kind", [frames.DATA, frames.END, frames.CLOSED, frames.CREDIT, frames.SIGNAL, frames.WINDOW])
def test_frames_of_an_ended_job_are_discarded(kind: int) -> None:
    wire = running()
    finish(wire)
    start_job(wire)
    assert told(wire.worker.session, kind, b"x", job=0) == []
    told(wire.worker.session, frames.SIGNAL, b"\2", job=1)
    assert finish(wire).exit_status == 0


@pytest.mark.parametrize(
    ("kind", "number"),
    [(frames.DATA, 2), (frames.DATA, NUMBERS - LATEST), (frames.GO, 0), (frames.GO, 3), (frames.TAKE_BACK, 2)],
)
def test_frames_of_no_job_are_refused(kind: int, number: int) -> None:
    wire = running()
    finish(wire)
    start_job(wire)
    with pytest.raises(ProtocolError, match="job"):
        told(wire.worker.session, kind, b"" if kind == frames.TAKE_BACK else b"x", job=number)


@pytest.mark.parametrize("kind", [frames.STARTED, frames.EXIT, frames.REFUSED, frames.PROGRAM, frames.RETURNED])
def test_a_worker_says_no_word_of_a_job_that_has_ended(kind: int) -> None:
    wire = running()
    finish(wire)
    start_job(wire)
    with pytest.raises(ProtocolError, match="ended"):
        told(wire.client.session, kind, b"x", job=0)


# A job in advance


def test_a_job_in_advance_begins_when_the_worker_wants_it_and_has_its_whole_input() -> None:
    wire = ahead()
    assert (wire.worker.session.ahead is not None, wire.client.session.ahead is not None) == (True, True)
    assert [event[0] for event in wire.worker.events] == [frames.GO]
    finish(wire)
    assert wire.client.session.state == OFFERING
    assert begin(wire).job_id == SECOND.job_id
    assert wire.worker.output == {0: INPUT}
    assert wire.worker.events[-2:] == [(frames.DATA, 0), (frames.END, 0)]
    wire.worker.session.consumed(0, len(INPUT))
    wire.worker.session.started()
    wire.flow().raise_errors()
    assert wire.client.events[-2:] == [(frames.GO, 0), (frames.STARTED, 0)]
    wire.worker.send_data(1, b"output")
    result = finish(wire, 7)
    assert (result.exit_status, wire.client.output[1]) == (7, b"output")
    assert [(e.number, e.count) for e in result.endings if e.direction == READS] == [(0, len(INPUT))]


def test_a_lease_may_go_on_so_for_ever_and_a_job_may_come_in_advance_between_two_jobs() -> None:
    wire = ahead()
    for number in range(2 * NUMBERS):
        finish(wire, number % 100)
        if number % 3 == 0 and number:
            wire.client.session.go_ahead(job(), {0: INPUT})  # the worker has not confirmed yet
            wire.flow().raise_errors()
        begin(wire)
        wire.worker.session.started()
        wire.flow().raise_errors()
        if number % 3 != 2:
            wire.client.session.go_ahead(job(), {0: INPUT})
            wire.flow().raise_errors()
    assert [result.status for result in wire.client.exits] == [number % 100 for number in range(2 * NUMBERS)]


def test_all_of_a_job_in_advance_is_one_record() -> None:
    wire = running()
    wire.client.session.go_ahead(SECOND, {0: bytes(50_000)})
    data = wire.client.bytes_to_send()
    assert int.from_bytes(data[:4], "big") == len(data) - 4


def test_the_longest_job_in_advance_is_one_record() -> None:
    """Regression: the lengths of its frames were not counted, so the longest ones were two records."""
    go = frames.frame(frames.GO, SECOND.encode())
    beside = len(go) + len(frames.head(frames.DATA)) + len(frames.frame(frames.END, bytes(8)))
    largest = MAXIMUM_FRAME + FRAME_LENGTH - 3 * FRAME_LENGTH - beside
    wire = running()
    with pytest.raises(ValueError, match="too long"):
        wire.client.session.go_ahead(SECOND, {0: bytes(largest + 1)})
    wire.client.session.go_ahead(SECOND, {0: bytes(largest)})
    data = wire.client.bytes_to_send()
    assert int.from_bytes(data[:4], "big") == len(data) - 4


def test_one_job_only_is_given_in_advance() -> None:
    wire = ahead()
    assert not wire.client.session.may_go_ahead
    with pytest.raises(ValueError, match="no place"):
        wire.client.session.go_ahead(SECOND, {})
    with pytest.raises(ProtocolError, match="two jobs"):
        told(wire.worker.session, frames.GO, SECOND.encode(), job=2)


@pytest.mark.parametrize("size", [MAXIMUM_DATA + 1, MAXIMUM_DATA])
def test_what_is_too_long_for_a_record_is_not_given_in_advance(size: int) -> None:
    wire = running()
    with pytest.raises(ValueError, match="too long"):
        wire.client.session.go_ahead(SECOND, {0: bytes(size)})
    assert wire.client.session.ahead is None and wire.client.session.may_go_ahead
    assert finish(wire).exit_status == 0


def test_a_worker_does_not_keep_more_of_a_job_in_advance_than_a_record_can_hold() -> None:
    wire = running()
    told(wire.worker.session, frames.GO, SECOND.encode(), job=1)
    told(wire.worker.session, frames.DATA, bytes(MAXIMUM_FRAME - 1), 0, job=1)
    with pytest.raises(ProtocolError, match="too much"):
        told(wire.worker.session, frames.DATA, b"x", 0, job=1)


def test_a_worker_keeps_no_endless_row_of_empty_frames() -> None:
    wire = running()
    told(wire.worker.session, frames.GO, SECOND.encode(), job=1)
    for _ in range(MAXIMUM_FRAME):
        told(wire.worker.session, frames.DATA, b"", 0, job=1)
    with pytest.raises(ProtocolError, match="too much"):
        told(wire.worker.session, frames.DATA, b"", 0, job=1)


@pytest.mark.parametrize("kind", [frames.SIGNAL, frames.CREDIT, frames.CLOSED, frames.BROKEN, frames.WINDOW])
def test_nothing_but_input_comes_before_a_job_in_advance_begins(kind: int) -> None:
    with pytest.raises(ProtocolError, match="no place"):
        told(ahead().worker.session, kind, b"\0\0\0\1", job=1)


def test_input_that_contradicts_its_end_is_found_when_the_job_begins() -> None:
    wire = running()
    told(wire.worker.session, frames.GO, SECOND.encode(), job=1)
    told(wire.worker.session, frames.DATA, b"abc", 0, job=1)
    told(wire.worker.session, frames.END, (2).to_bytes(8, "big"), 0, job=1)
    finish(wire)
    for _ in range(2):  # it is remembered
        with pytest.raises(ProtocolError, match="without all its bytes"):
            begin(wire) if wire.worker.session.ahead else wire.worker.session.receive_data(memoryview(b""), 0.0)


# Taken back, and returned


def test_a_job_that_is_taken_back_is_returned_and_the_lease_goes_on() -> None:
    wire = ahead()
    wire.client.session.take_back()
    wire.flow().raise_errors()
    assert wire.client.events[-1] == (frames.RETURNED, 0)
    assert wire.worker.session.ahead is wire.client.session.ahead is None
    finish(wire)
    start_job(wire)
    assert finish(wire, 5).exit_status == 5


def test_a_job_that_has_begun_is_not_taken_back() -> None:
    wire = ahead()
    finish(wire)
    begin(wire)
    wire.client.session.take_back()
    wire.worker.session.started()
    wire.flow().raise_errors()
    assert (frames.RETURNED, 0) not in wire.client.events
    assert finish(wire, 6).exit_status == 6


def test_a_worker_returns_a_job_by_itself_while_it_is_taken_back() -> None:
    wire = ahead()
    wire.client.session.take_back()
    wire.worker.session.give_back("worker is stopping")
    wire.flow().raise_errors()
    assert wire.client.events.count((frames.RETURNED, 0)) == 1
    wire.client.session.go_ahead(job(), {})
    wire.flow().raise_errors()
    finish(wire)
    begin(wire)
    wire.worker.session.started()
    assert finish(wire, 4).exit_status == 4


def test_a_refusal_returns_the_job_behind_it_first() -> None:
    wire = connected()
    wire.worker.session.confirm()
    wire.flow()
    wire.client.session.go(job())
    wire.client.session.go_ahead(SECOND, {})
    wire.flow().raise_errors()
    wire.worker.session.refuse(Refusal(frames.HERE, "no"))
    wire.flow().raise_errors()
    assert wire.client.events[-2:] == [(frames.RETURNED, 0), (frames.REFUSED, 0)]
    assert wire.client.session.state == OVER


def test_the_end_of_a_lease_forgets_the_job_in_advance() -> None:
    wire = ahead()
    wire.client.session.cancel()
    wire.flow().raise_errors()
    assert wire.worker.session.ahead is wire.client.session.ahead is None


# What crosses on the way


def test_a_job_in_advance_crosses_the_confirmation() -> None:
    wire = running()
    for stream in (1, 2):
        wire.worker.session.end(stream)
    wire.worker.session.exit(exited())
    wire.worker.session.confirm()
    wire.client.session.go_ahead(SECOND, {0: INPUT})
    wire.flow().raise_errors()
    assert wire.client.events[-2:] == [(frames.EXIT, 0), (frames.GO, 0)]  # the confirmation says nothing new
    assert (wire.client.session.state, wire.worker.session.state) == (RUNNING, RUNNING)
    assert wire.worker.output == {0: INPUT}
    wire.worker.session.started()
    assert finish(wire, 9).exit_status == 9


def test_a_job_in_advance_crosses_a_withdrawal() -> None:
    wire = running()
    for stream in (1, 2):
        wire.worker.session.end(stream)
    wire.worker.session.exit(exited())
    wire.worker.session.confirm()
    wire.worker.session.withdraw("too late")
    wire.client.session.go_ahead(SECOND, {0: INPUT})
    wire.flow().raise_errors()
    assert [event[0] for event in wire.client.events[-3:]] == [frames.EXIT, frames.GO, frames.WITHDRAW]
    assert wire.client.session.state == wire.worker.session.state == OVER


def test_late_frames_of_a_job_do_not_reach_the_one_behind_it() -> None:
    wire = ahead()
    for stream in (1, 2):
        wire.worker.session.end(stream)
    wire.worker.session.exit(exited())
    begin(wire)
    wire.client.send_data(0, b"late input of the first job")
    wire.client.session.signal(15)
    wire.flow().raise_errors()
    assert wire.worker.output == {0: INPUT}
    assert (frames.SIGNAL, 0) not in wire.worker.events


def test_a_worker_does_not_begin_before_the_last_job_is_over() -> None:
    for kind, body in ((frames.CONFIRM, b""), (frames.STARTED, bytes(1))):
        with pytest.raises(ProtocolError, match="not begun"):
            told(ahead().client.session, kind, body, job=1)


def test_a_job_in_advance_begins_with_its_confirmation() -> None:
    wire = ahead()
    finish(wire)
    with pytest.raises(ProtocolError, match="not begun"):
        told(wire.client.session, frames.STARTED, bytes(1), job=1)


def test_a_worker_does_not_confirm_a_job_that_it_has() -> None:
    wire = ahead()
    finish(wire)
    with pytest.raises(ValueError, match="no place"):
        wire.worker.session.confirm()
    assert wire.worker.session.state != OFFERED


def test_outputs_of_a_job_in_advance_are_its_own() -> None:
    wire = ahead(job(streams=[Stream(1, WRITES)]), {})
    wire.worker.send_data(1, b"first")
    finish(wire)
    begin(wire)
    wire.worker.session.started()
    wire.worker.send_data(1, b"second")
    assert [e.count for e in finish(wire).endings] == [6]


def test_input_that_comes_after_the_first_job_of_all_was_returned_is_discarded() -> None:
    """Regression: before any job had begun, a returned job with the number 0 counted as the one that runs."""
    client, worker = (Session(worker=side, now=0.0, numbered=True) for side in (False, True))
    client.go_ahead(SECOND, {0: INPUT})
    go, *inputs = client.data_to_send()
    worker.receive_data(memoryview(go), 0.0)
    worker.give_back("no time")
    for frame in inputs:
        worker.receive_data(memoryview(frame), 0.0)
    assert inputs and worker.next_event() is None
    assert kinds(worker) == [(frames.RETURNED, 0)]
