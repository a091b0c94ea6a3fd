"""One job on one connection: credit and endings, docs/protocol.md sections 4.2 to 4.4.

What crosses on the way is in test_session_states.py, damage in test_damage.py, silence in test_session_silence.py.
"""

from __future__ import annotations

import pytest

from cexec.errors import ProtocolError
from cexec.protocol.base.limits import INITIAL_WINDOW, MAXIMUM_DATA
from cexec.protocol.connection import frames
from cexec.protocol.connection.frames import Ending, Exit, Refusal, Stream
from cexec.protocol.connection.options import READS, SOCKET, WRITES
from cexec.protocol.connection.session import OFFERING, OVER, RUNNING
from tests.protocol.connection.sessions import client_in, exited, finish, refused, sending, told
from tests.protocol.wires import connected, job, join, running, start_job

BOTH = READS | WRITES

# A whole job


@pytest.mark.parametrize("chunk", [1, 1000, 1 << 20])
def test_a_whole_job(chunk: int) -> None:
    wire = join(robots=True, chunk=chunk).flow().raise_errors()
    (result,) = wire.client.exits
    assert (result.exit_status, wire.client.output) == (3, {1: b"tupni emos", 2: b"10"})
    assert wire.client.events == [
        (frames.CONFIRM, 0), (frames.STARTED, 0), (frames.DATA, 1), (frames.DATA, 2), (frames.END, 1), (frames.END, 2),
        (frames.EXIT, 0),
    ]  # fmt: skip
    assert wire.worker.events == [(frames.GO, 0), (frames.DATA, 0), (frames.END, 0)]
    assert [(e.number, e.direction, e.ending, e.count) for e in result.endings] == [
        (1, WRITES, frames.ENDED, 10), (2, WRITES, frames.ENDED, 2), (0, READS, frames.ENDED, 10),
    ]  # fmt: skip
    assert wire.client.session.outgoing[0].read == 10


def test_a_lease_runs_a_second_job_on_the_same_connection() -> None:
    wire = running()
    wire.client.send_data(0, b"input of the first job")
    finish(wire, 3)
    assert (wire.client.session.state, wire.worker.session.state) == (OFFERING, OFFERING)
    start_job(wire)
    assert wire.client.session.sendable(0) == INITIAL_WINDOW
    wire.client.send_data(0, b"input of the second")
    wire.client.session.end(0)
    wire.flow().raise_errors()
    finish(wire, 9)
    assert [result.exit_status for result in wire.client.exits] == [3, 9]
    assert wire.worker.output[0] == b"input of the second"


def test_a_refused_job() -> None:
    wire = connected()
    wire.worker.session.confirm()
    wire.flow()
    wire.client.session.go(job())
    wire.flow()
    wire.worker.session.refuse(Refusal(frames.HERE, "no such file"))
    wire.flow().raise_errors()
    assert wire.client.events[-1] == (frames.REFUSED, 0)
    assert (wire.client.session.state, wire.worker.session.state) == (OVER, OVER)


def test_a_duplicate_descriptor_is_no_stream_of_its_own() -> None:
    wire = running(job(streams=[Stream(0, READS), Stream(1, WRITES), Stream(2, WRITES, same_as=1)]))
    assert list(wire.worker.session.outgoing) == list(wire.client.session.incoming) == [1]
    assert finish(wire).exit_status == 0


def test_each_direction_of_a_socket_is_a_stream_with_an_ending() -> None:
    wire = running(job(streams=[Stream(3, BOTH, SOCKET)]))
    wire.client.send_data(3, b"question")
    wire.worker.send_data(3, b"answer")
    wire.flow().raise_errors()
    wire.client.session.end(3)
    wire.worker.send_data(3, b" more")
    assert [(e.direction, e.count) for e in finish(wire).endings] == [(WRITES, 11), (READS, 0)]
    assert wire.client.output[3] == b"answer more"


# Credit


def test_no_more_than_a_window_is_under_way_while_nobody_reads() -> None:
    wire = running()
    assert sending(wire, 1, 3 * INITIAL_WINDOW) == INITIAL_WINDOW
    assert wire.worker.session.sendable(1) == 0
    with pytest.raises(ValueError, match="no credit"):
        wire.worker.session.data_head(1, 1)


def test_a_stream_that_nobody_reads_does_not_stop_the_others() -> None:
    wire = running()
    sending(wire, 1, INITIAL_WINDOW)
    for _ in range(20):
        assert sending(wire, 2, 200_000) == 200_000
        wire.client.session.consumed(2, 200_000)
        wire.flow().raise_errors()
    wire.client.send_data(0, b"input")
    wire.flow().raise_errors()
    assert (len(wire.client.output[2]), wire.worker.output[0]) == (4_000_000, b"input")


def test_a_reader_that_keeps_up_never_stops_its_writer() -> None:
    wire = running()
    for _ in range(30):
        assert sending(wire, 1, MAXIMUM_DATA) == MAXIMUM_DATA
        wire.client.session.consumed(1, MAXIMUM_DATA)
        wire.flow().raise_errors()
    finish(wire)
    assert wire.client.exits[0].endings[0].count == 30 * MAXIMUM_DATA


def test_more_than_the_credit_is_refused() -> None:
    client = client_in(RUNNING, started=True)
    for _ in range(4):
        told(client, frames.DATA, bytes(MAXIMUM_DATA), 1)
    told(client, frames.DATA, bytes(16), 1)
    refused(client, frames.DATA, b"x", 1)


def test_credit_that_waits_to_be_sent_is_one_frame_and_gives_no_more_credit_yet() -> None:
    """A peer that sends and takes nothing made frames of credit pile up."""
    client = client_in(RUNNING, started=True)
    for _ in range(4):
        told(client, frames.DATA, bytes(MAXIMUM_DATA), 1)
        client.consumed(1, MAXIMUM_DATA)
    told(client, frames.DATA, bytes(16), 1)
    client.consumed(1, 16)
    with pytest.raises(ProtocolError):
        told(client, frames.DATA, b"x", 1)
    assert client.wants_to_send
    assert client.data_to_send() == [frames.frame(frames.CREDIT, INITIAL_WINDOW.to_bytes(4, "big"), 1)]
    assert not client.wants_to_send  # or its driver would ask again and again


# Endings


def test_the_reader_of_an_output_goes() -> None:
    wire = running()
    sending(wire, 1, 1000)
    wire.client.session.consumed(1, 400)
    wire.client.session.close_reader(1)
    wire.client.session.close_reader(1)
    wire.flow().raise_errors()
    assert wire.worker.events[-1] == (frames.CLOSED, 1) and wire.worker.events.count((frames.CLOSED, 1)) == 1
    assert wire.worker.session.sendable(1) == 0
    first = finish(wire, 141).endings[0]
    assert (first.number, first.ending, first.count) == (1, frames.READER_CLOSED, 400)


def test_an_output_that_ended_before_its_writer_could_notice_has_ended() -> None:
    wire = running()
    sending(wire, 1, 1000)
    wire.client.session.consumed(1, 400)
    wire.client.session.close_reader(1)
    wire.flow().raise_errors()
    wire.worker.session.ended_unnoticed(1)
    first = finish(wire, 0).endings[0]
    assert (first.number, first.ending, first.count) == (1, frames.ENDED, 1000)


def test_the_end_of_an_output_crosses_the_word_that_its_reader_has_gone() -> None:
    wire = running()
    sending(wire, 1, 1000)
    wire.worker.session.end(1)
    wire.client.session.close_reader(1)
    assert finish(wire).endings[0].ending == frames.ENDED
    assert (frames.CLOSED, 1) not in wire.worker.events


def test_a_failure_of_an_output_crosses_the_word_that_its_reader_has_gone() -> None:
    """The exit was a protocol error, although nobody was left to care for that stream."""
    wire = running()
    wire.worker.session.broken(1, "input/output error")
    wire.client.session.close_reader(1)
    assert finish(wire).exit_status == 0


def test_the_program_does_not_read_its_input() -> None:
    wire = running()
    wire.client.send_data(0, bytes(1000))
    wire.flow().raise_errors()
    wire.worker.session.consumed(0, 300)
    wire.worker.session.close_reader(0)
    wire.flow().raise_errors()
    assert wire.client.events[-1] == (frames.CLOSED, 0)
    wire.client.session.end(0)  # nobody is told any more
    assert [(e.number, e.ending, e.count) for e in finish(wire).endings][-1] == (0, frames.READER_CLOSED, 300)
    assert wire.client.session.outgoing[0].read == 300


def test_the_program_exits_before_its_input_ends() -> None:
    wire = running()
    wire.client.send_data(0, bytes(1000))
    wire.flow().raise_errors()
    wire.worker.session.consumed(0, 700)
    assert finish(wire).endings[-1].ending == frames.READER_CLOSED
    assert (wire.client.session.sendable(0), wire.client.session.outgoing[0].read) == (0, 700)


def test_input_that_the_program_left_in_its_pipe_does_not_count_as_read() -> None:
    wire = running()
    wire.client.send_data(0, b"0123456789")
    wire.client.session.end(0)
    wire.flow()
    wire.worker.session.consumed(0, 10)
    wire.worker.session.left_unread(0, 6)
    finish(wire)
    assert wire.client.session.outgoing[0].read == 4


def test_a_broken_output_is_told_and_named_in_the_exit() -> None:
    wire = running()
    sending(wire, 1, 10)
    wire.worker.session.broken(1, "input/output error")
    wire.worker.session.end(1)  # no end after that
    result = finish(wire)
    assert wire.client.events[-3:] == [(frames.BROKEN, 1), (frames.END, 2), (frames.EXIT, 0)]
    assert (result.endings[0].ending, result.endings[0].count) == (frames.STREAM_BROKEN, 10)


def test_a_broken_input_is_told() -> None:
    wire = running()
    wire.client.session.broken(0, "input/output error")
    wire.flow().raise_errors()
    assert wire.worker.events[-1] == (frames.BROKEN, 0)
    assert finish(wire, 1).endings[-1].ending == frames.STREAM_BROKEN


def test_no_exit_while_an_output_is_open() -> None:
    wire = running()
    wire.worker.session.end(1)
    assert wire.worker.session.writing
    with pytest.raises(ValueError, match="has not ended"):
        wire.worker.session.exit(exited())
    wire.worker.session.end(2)
    assert not wire.worker.session.writing


HONEST = [
    Ending(1, WRITES, frames.ENDED, 3),
    Ending(2, WRITES, frames.ENDED, 0),
    Ending(0, READS, frames.READER_CLOSED, 1),
]


@pytest.mark.parametrize(
    "endings",
    [
        [],
        HONEST[:2],
        [*HONEST, HONEST[0]],
        [*HONEST[:2], HONEST[1]],
        [*HONEST, Ending(3, WRITES, frames.ENDED, 0)],
        [Ending(1, WRITES, frames.ENDED, 4), *HONEST[1:]],  # a byte is missing
        [Ending(1, WRITES, frames.ENDED, 2), *HONEST[1:]],
        [Ending(1, WRITES, frames.READER_CLOSED, 3), *HONEST[1:]],
        [Ending(1, WRITES, frames.STREAM_BROKEN, 3), *HONEST[1:]],
        [Ending(1, READS, frames.ENDED, 3), *HONEST[1:]],
        [*HONEST[:2], Ending(0, READS, frames.READER_CLOSED, 3)],  # more than was written
        [*HONEST[:2], Ending(0, READS, frames.ENDED, 1)],  # we have not ended it
        [*HONEST[:2], Ending(0, READS, frames.STREAM_BROKEN, 1)],
        [*HONEST[:2], Ending(0, 3, frames.READER_CLOSED, 1)],
    ],
)
def test_an_exit_that_disagrees_about_a_stream_is_no_exit(endings: list[Ending]) -> None:
    for claimed, accepted in ((HONEST, True), (endings, False)):
        client = client_in(RUNNING, started=True)
        client.data_head(0, 2)
        told(client, frames.DATA, b"abc", 1)
        told(client, frames.END, (3).to_bytes(8, "big"), 1)
        told(client, frames.END, bytes(8), 2)
        body = Exit(kind=frames.EXITED, status=0, endings=claimed).encode()
        if accepted:
            assert told(client, frames.EXIT, body)[0].exit is not None
        else:
            refused(client, frames.EXIT, body)
            assert client.next_event() is None


def test_an_exit_while_an_output_has_not_ended_is_no_exit() -> None:
    client = client_in(RUNNING, started=True)
    endings = [Ending(1, WRITES, frames.ENDED, 0), Ending(2, WRITES, frames.ENDED, 0), *HONEST[2:]]
    refused(client, frames.EXIT, Exit(kind=frames.EXITED, status=0, endings=endings).encode())


# The short way


def test_the_short_way_takes_the_usual_frame_as_the_long_one_does() -> None:
    frame = memoryview(frames.frame(frames.DATA, b"hello", 1))
    short, long = client_in(RUNNING, started=True), client_in(RUNNING, started=True)
    assert short.take_data(frame, 7.0) == 1
    (event,) = told(long, frames.DATA, b"hello", 1, 7.0)
    assert (event.stream, bytes(event.data)) == (1, b"hello")
    assert short.next_event() is None
    one, two = ([(half.received, half.window) for half in side.incoming.values()] for side in (short, long))
    assert one == two
    assert short.next_timeout() == long.next_timeout()


@pytest.mark.parametrize(
    "frame",
    [
        frames.frame(frames.DATA, b"", 1),
        frames.frame(frames.DATA, b"x", 0),  # which the client writes
        frames.frame(frames.DATA, b"x", 9),
        frames.frame(frames.DATA, b"x", 1, 1),
        frames.frame(frames.END, bytes(8), 1),
        frames.frame(frames.PING),
        frames.frame(frames.DATA, bytes(INITIAL_WINDOW + 1), 1),
        b"\7",
    ],
)
def test_the_short_way_leaves_all_others_to_the_long_one(frame: bytes) -> None:
    session = client_in(RUNNING, started=True)
    before = [(half.received, half.window) for half in session.incoming.values()]
    assert session.take_data(memoryview(frame), 1.0) == -1
    assert [(half.received, half.window) for half in session.incoming.values()] == before


def test_the_short_way_is_closed_before_the_start_after_the_end_and_after_a_failure() -> None:
    frame = memoryview(frames.frame(frames.DATA, b"x", 1))
    assert client_in(RUNNING).take_data(frame, 0.0) == -1
    wire = running()
    finish(wire)
    assert wire.client.session.take_data(frame, 0.0) == -1
    session = client_in(RUNNING, started=True)
    session.close_reader(1)
    assert session.take_data(frame, 0.0) == -1
    session = client_in(RUNNING, started=True)
    refused(session, frames.CONFIRM)
    assert session.take_data(frame, 0.0) == -1
    session = client_in(RUNNING, started=True)
    session.cancel()
    assert session.take_data(frame, 0.0) == -1
