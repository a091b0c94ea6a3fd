"""The two halves of a stream, docs/protocol.md section 4.3."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cexec.errors import ProtocolError
from cexec.protocol.base.limits import INITIAL_WINDOW
from cexec.protocol.connection import frames
from cexec.protocol.connection.frames import ENDED, READER_CLOSED, STREAM_BROKEN, Ending, Stream
from cexec.protocol.connection.options import READS, SOCKET, WRITES
from cexec.protocol.connection.streams import LARGEST_CREDIT, OPEN, Incoming, Outgoing, StreamHalves


def sender(sent: int = 0, window: int = 1000) -> Outgoing:
    half = Outgoing(1, window)
    if sent:
        half.send(sent)
    return half


def receiver(received: int = 0, consumed: int = 0, window: int = 1000) -> Incoming:
    half = Incoming(1, window)
    if received:
        half.receive(received)
    if consumed:
        half.consume(consumed)
    return half


def ending(kind: int, count: int) -> Ending:
    return Ending(1, WRITES, kind, count)


# Sending


def test_no_more_is_sent_than_there_is_credit_for() -> None:
    half = sender(400)
    assert (half.credit, half.count) == (600, 400)
    with pytest.raises(ValueError, match="no credit"):
        half.send(601)
    half.grant(1)
    half.send(601)
    assert (half.credit, half.count) == (0, 1001)


@pytest.mark.parametrize("state", [ENDED, READER_CLOSED, STREAM_BROKEN])
def test_nothing_is_sent_after_the_end(state: int) -> None:
    half = sender()
    half.state = state
    with pytest.raises(ValueError, match="has ended"):
        half.send(1)


def test_credit_without_measure_is_refused() -> None:
    half = sender()
    half.grant(LARGEST_CREDIT - half.credit)
    with pytest.raises(ProtocolError, match="more credit"):
        half.grant(1)


def test_the_reader_has_gone_once() -> None:
    half = sender(500)
    assert half.reader_closed(200)
    assert not half.reader_closed(200)
    told = half.ending(WRITES)
    assert (told.ending, told.count) == (READER_CLOSED, 200)


def test_a_reader_that_goes_after_the_end_is_no_news() -> None:
    half = sender(500)
    half.state = ENDED
    assert not half.reader_closed(500)
    assert (half.ending(WRITES).ending, half.ending(WRITES).count) == (ENDED, 500)


def test_a_reader_cannot_have_read_more_than_was_sent() -> None:
    with pytest.raises(ProtocolError, match="more than was sent"):
        sender(500).reader_closed(501)


@pytest.mark.parametrize(
    ("state", "told", "count", "agrees"),
    [
        (ENDED, ENDED, 500, True),
        (ENDED, ENDED, 100, True),  # the rest was left in the program's pipe
        (ENDED, READER_CLOSED, 100, True),
        (ENDED, STREAM_BROKEN, 500, False),
        (ENDED, ENDED, 501, False),
        (OPEN, READER_CLOSED, 500, True),
        (OPEN, READER_CLOSED, 501, False),
        (OPEN, ENDED, 500, False),
        (OPEN, STREAM_BROKEN, 500, False),
        (READER_CLOSED, READER_CLOSED, 3, True),
        (READER_CLOSED, ENDED, 500, False),
        (STREAM_BROKEN, STREAM_BROKEN, 500, True),
        (STREAM_BROKEN, READER_CLOSED, 500, True),
        (STREAM_BROKEN, ENDED, 500, False),
    ],
)
def test_what_a_reader_may_say_of_our_stream(state: int, told: int, count: int, agrees: bool) -> None:
    half = sender(500)
    half.state = state
    assert half.agrees(ending(told, count)) is agrees


def test_the_exit_frame_has_the_last_word_on_what_was_read() -> None:
    half = sender(500)
    half.finish(ending(READER_CLOSED, 300))
    assert (half.state, half.read) == (READER_CLOSED, 300)


# Receiving


def test_no_more_is_taken_than_there_is_credit_for() -> None:
    half = receiver(1000)
    with pytest.raises(ProtocolError, match="more than its credit"):
        half.receive(1)


def test_a_byte_more_than_what_is_left_of_the_credit_is_refused() -> None:
    half = receiver(400)
    with pytest.raises(ProtocolError, match="more than its credit"):
        half.receive(601)
    assert half.receive(600)


def test_an_empty_piece_of_data_is_refused() -> None:
    with pytest.raises(ProtocolError):
        receiver().receive(0)


def test_credit_is_granted_by_the_quarter() -> None:
    half = receiver(1000)
    assert not half.consume(249)
    assert half.consume(1)
    assert half.window == 0  # until it is granted
    assert half.grant() == 250
    assert half.window == 250
    assert half.grant() == 0


def test_no_credit_is_granted_after_the_end() -> None:
    half = receiver(500)
    half.end(500)
    assert not half.consume(500)
    assert half.grant() == 0


def test_more_than_was_received_cannot_be_consumed() -> None:
    half = receiver(10, 4)
    with pytest.raises(ValueError, match="more is consumed"):
        half.consume(7)


@pytest.mark.parametrize("count", [0, 499, 501])
def test_an_end_without_all_bytes_is_refused(count: int) -> None:
    with pytest.raises(ProtocolError, match="without all its bytes"):
        receiver(500).end(count)


@pytest.mark.parametrize("second", ["end", "break", "data"])
@pytest.mark.parametrize("first", ["end", "break"])
def test_a_stream_ends_once(first: str, second: str) -> None:
    half = receiver(500)
    actions: dict[str, Callable[[], object]] = {
        "end": lambda: half.end(500),
        "break": half.break_off,
        "data": lambda: half.receive(1),
    }
    assert actions[first]()
    with pytest.raises(ProtocolError):
        actions[second]()


def test_after_our_reader_has_gone_what_comes_is_discarded_but_costs_credit() -> None:
    half = receiver(500, 200)
    assert half.stop_reading()
    assert not half.stop_reading()
    assert not half.receive(500)
    assert (half.received, half.consumed) == (500, 200)
    assert half.grant() == 0
    with pytest.raises(ProtocolError, match="more than its credit"):
        half.receive(1)
    assert not half.end(1000)
    assert not half.break_off()
    assert (half.ending(READS).ending, half.ending(READS).count) == (READER_CLOSED, 200)


@pytest.mark.parametrize(
    ("end", "told", "count", "agrees"),
    [
        ("end", ENDED, 500, True),
        ("end", ENDED, 499, False),
        ("end", READER_CLOSED, 500, False),
        ("end", STREAM_BROKEN, 500, False),
        ("break", STREAM_BROKEN, 500, True),
        ("break", STREAM_BROKEN, 900, True),
        ("break", ENDED, 500, False),
        ("none", ENDED, 500, False),
        ("none", READER_CLOSED, 500, False),
        ("none", STREAM_BROKEN, 500, False),
        ("stop", READER_CLOSED, 200, True),
        ("stop", ENDED, 9000, True),
        ("stop", STREAM_BROKEN, 500, True),
    ],
)
def test_what_a_writer_may_say_of_its_stream(end: str, told: int, count: int, agrees: bool) -> None:
    half = receiver(500, 200)
    ends: dict[str, Callable[[], object]] = {
        "end": lambda: half.end(500), "break": half.break_off, "stop": half.stop_reading, "none": lambda: None
    }  # fmt: skip
    ends[end]()
    assert half.agrees(ending(told, count)) is agrees


# Both


@given(st.lists(st.tuples(st.sampled_from(["send", "deliver", "consume", "grant"]), st.integers(1, 700_000))))
def test_never_more_than_the_window_is_under_way_or_held(steps: list[tuple[str, int]]) -> None:
    writing, reading = Outgoing(1, INITIAL_WINDOW), Incoming(1, INITIAL_WINDOW)
    under_way, credits_under_way = [], []
    for step, size in steps:
        if step == "send" and (size := min(size, writing.credit)):
            writing.send(size)
            under_way.append(size)
        elif step == "deliver" and under_way:
            assert reading.receive(under_way.pop(0))
        elif step == "consume" and (size := min(size, reading.received - reading.consumed)):
            if reading.consume(size):
                credits_under_way.append(reading.grant())
        elif step == "grant" and credits_under_way:
            writing.grant(credits_under_way.pop(0))
        held = reading.received - reading.consumed
        assert sum(under_way) + held <= INITIAL_WINDOW
        assert writing.credit + sum(under_way) + held + sum(credits_under_way) <= INITIAL_WINDOW
        assert sum(under_way) <= reading.window


# All streams of a job

BOTH_WAYS = [Stream(0, READS), Stream(1, WRITES), Stream(2, WRITES, same_as=1), Stream(4, READS | WRITES, SOCKET)]


def test_a_duplicate_has_no_halves_and_a_socket_has_both() -> None:
    program, client = StreamHalves(BOTH_WAYS, worker=True), StreamHalves(BOTH_WAYS)
    assert (set(program.incoming), set(program.outgoing)) == ({0, 4}, {1, 4})
    assert (set(client.incoming), set(client.outgoing)) == ({1, 4}, {0, 4})


def test_endings_of_a_program_agree_with_what_its_client_has_seen() -> None:
    program, client = StreamHalves(BOTH_WAYS, worker=True), StreamHalves(BOTH_WAYS)
    client.outgoing[0].send(5)
    assert program.receive_data(0, 5)
    for writer, reader, number in ((program, client, 1), (program, client, 4), (client, program, 4)):
        writer.outgoing[number].state = ENDED
        assert reader.receive(frames.END, number, memoryview(bytes(8)))
    client.take_endings(program.stop())
    assert (client.outgoing[0].state, client.outgoing[0].read) == (READER_CLOSED, 0)  # it has consumed nothing


@pytest.mark.parametrize("change", ["one is missing", "one is told twice", "another count"])
def test_endings_that_do_not_agree_are_refused(change: str) -> None:
    program, client = StreamHalves(BOTH_WAYS, worker=True), StreamHalves(BOTH_WAYS)
    for number in program.outgoing:
        program.outgoing[number].state = ENDED
        client.receive(frames.END, number, memoryview(bytes(8)))
    endings = program.stop()
    if change == "another count":
        endings[0].count += 1
    else:
        endings[-1:] = [] if change == "one is missing" else endings[:1]
    with pytest.raises(ProtocolError, match="cut short" if change == "another count" else "every stream once"):
        client.take_endings(endings)


@pytest.mark.parametrize("kind", [frames.DATA, frames.END, frames.BROKEN, frames.CREDIT, frames.CLOSED])
def test_a_frame_of_a_stream_that_is_not_there_is_refused(kind: int) -> None:
    program = StreamHalves(BOTH_WAYS, worker=True)
    with pytest.raises(ProtocolError, match="stream that does not exist"):
        if kind == frames.DATA:
            program.receive_data(3, 1)
        else:
            program.receive(kind, 3, memoryview(bytes(8)))
