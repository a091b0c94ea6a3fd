"""Two pumps carry bytes from one side to the other, whatever the descriptors do, and wait for no single one."""

from __future__ import annotations

import errno
import gc
import os
import socket
import time
import tracemalloc
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from cexec.client.attempt.inputs import Budget, SpoolSource
from cexec.errors import DisconnectedError, ProtocolError
from cexec.net.pump import LEAST_CREDIT, Pump
from cexec.protocol.base import sodium
from cexec.protocol.base.limits import INITIAL_WINDOW, MAXIMUM_DATA, RECORD_HEADER
from cexec.protocol.connection import frames
from cexec.protocol.connection.records import MAXIMUM_WAITING, SHORT_DATA
from cexec.protocol.connection.session import Event, Session
from cexec.protocol.connection.silence import ANSWERS, QUIET
from cexec.system.io import fds, opened_fds
from cexec.system.io.fds import EmptySource, FileSource, Sink, Source
from cexec.system.io.opened_fds import open_sink
from tests.net.pumps import BLOCKED, Pair, Reader, pipe_sink, pipe_source
from tests.protocol.wires import record_pair

pytestmark = pytest.mark.usefixtures("process_end")

PIPE = 64 * 1024  # bytes that an empty pipe takes


@pytest.fixture
def reset() -> Iterator[Pair]:
    """A pair on a real connection: one side that closes it while bytes are unread resets it."""
    pair = Pair(tcp=True)
    yield pair
    pair.close()


def file_with(data: bytes, directory: Path) -> FileSource:
    path = directory / "input"
    path.write_bytes(data)
    return FileSource(os.open(path, os.O_RDONLY))


def endless(directory: Path) -> FileSource:
    """Returns a file of 1 GiB that takes no room."""
    path = directory / "zeros"
    path.touch()
    os.truncate(path, 1 << 30)
    return FileSource(os.open(path, os.O_RDONLY))


def waits(pair: Pair, side: str) -> bool:
    """Returns True if a step waits until its time is over, so that idleness costs no CPU."""
    start = time.monotonic()
    pair.step(getattr(pair, side), BLOCKED)
    return time.monotonic() - start >= 0.9 * BLOCKED


# What goes in comes out


@pytest.mark.parametrize(("size", "shared"), [(1, True), (4096, True), (SHORT_DATA, True), (SHORT_DATA + 1, False)])
def test_short_output_that_is_held_back_shares_a_record_with_what_follows(size: int, shared: bool) -> None:
    """4 KB of output cost a task a segment each way, and a wake-up of its client."""
    pair, data = Pair(packed=True), os.urandom(size)
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    pair.worker.sources[1] = pipe_source(reading)
    pair.worker.hold_back()
    while 1 in pair.worker.sources:
        pair.step(pair.worker)
    assert pair.worker.held is shared
    pair.worker.let_go()
    arrived = pair.client.connection.recv(1 << 20)
    first = RECORD_HEADER + int.from_bytes(arrived[:RECORD_HEADER], "big")
    assert (first == len(arrived)) is shared and len(arrived) > size
    pair.close()


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, MAXIMUM_DATA - 1, MAXIMUM_DATA, MAXIMUM_DATA + 1, 5_000_000])
def test_every_byte_of_a_file_comes_out_of_a_pipe(pair: Pair, tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    reading, writing = os.pipe()
    reader = Reader(reading)
    pair.client.sources[0] = file_with(data, tmp_path)
    pair.worker.sinks[0] = pipe_sink(writing)
    pair.run(lambda: reader.ended)
    assert reader.data == data
    assert pair.kinds(pair.client) == [frames.END]  # ours
    assert set(pair.kinds(pair.worker)) == {frames.END}  # and once more when a slow reader has taken the rest
    assert (pair.client.sources, pair.worker.sinks) == ({}, {})


def test_three_streams_in_both_directions_at_once(pair: Pair, tmp_path: Path) -> None:
    data = [os.urandom(3_000_000) for _ in range(3)]
    readers = []
    for number, sender, receiver in ((0, pair.client, pair.worker), (1, pair.worker, pair.client)):
        reading, writing = os.pipe()
        readers.append(Reader(reading))
        (tmp_path / str(number)).mkdir()
        sender.sources[number] = file_with(data[number], tmp_path / str(number))
        receiver.sinks[number] = pipe_sink(writing)
    reading, writing = os.pipe()
    readers.append(Reader(reading))
    ours, theirs = os.pipe()
    pair.worker.sources[2] = pipe_source(ours)
    pair.client.sinks[2] = pipe_sink(writing)
    left = memoryview(data[2])
    os.set_blocking(theirs, False)
    while len(left):
        try:
            left = left[os.write(theirs, left) :]
        except BlockingIOError:
            pair.step(pair.worker)
            pair.step(pair.client)
    os.close(theirs)
    pair.run(lambda: all(reader.ended for reader in readers))
    assert [reader.data for reader in readers] == data


def test_a_source_without_a_descriptor_is_read_at_once(pair: Pair) -> None:
    reading, writing = os.pipe()
    pair.client.sources[0] = EmptySource()
    pair.worker.sinks[0] = pipe_sink(writing)
    pair.run(lambda: frames.END in pair.kinds(pair.worker))
    assert os.read(reading, 1) == b""
    os.close(reading)


def test_what_a_slow_reader_has_not_taken_at_the_end_it_still_gets(pair: Pair, tmp_path: Path) -> None:
    data = os.urandom(700_000)
    reading, writing = os.pipe()
    pair.client.sources[0] = file_with(data, tmp_path)
    pair.worker.sinks[0] = pipe_sink(writing)
    pair.run(lambda: frames.END in pair.kinds(pair.worker))
    assert not pair.worker.drained
    assert 0 in pair.worker.sinks  # not closed yet
    reader = Reader(reading)
    pair.run(lambda: reader.ended)
    assert reader.data == data
    assert pair.worker.drained


# Nobody waits for anybody


def test_a_reader_that_stops_stops_its_own_stream_only(pair: Pair, tmp_path: Path) -> None:
    stuck = os.pipe()
    pair.client.sources[0] = endless(tmp_path)
    pair.worker.sinks[0] = pipe_sink(stuck[1])
    pair.settle()
    sent = pair.client.session.outgoing[0].count
    assert INITIAL_WINDOW / 2 <= sent <= INITIAL_WINDOW + fds.PIPE_SIZE
    assert waits(pair, "client") and waits(pair, "worker")
    reading, writing = os.pipe()
    program = os.pipe()
    reader = Reader(reading)
    pair.client.sinks[1] = pipe_sink(writing)
    pair.worker.sources[1] = pipe_source(program[0])
    os.write(program[1], b"still here")
    os.close(program[1])
    pair.run(lambda: reader.ended)
    assert reader.data == b"still here"
    assert pair.client.session.outgoing[0].count == sent
    os.close(stuck[0])


def test_a_reader_that_goes_on_gets_everything_in_order(pair: Pair, tmp_path: Path) -> None:
    data = os.urandom(4_000_000)
    reading, writing = os.pipe()
    pair.client.sources[0] = file_with(data, tmp_path)
    pair.worker.sinks[0] = pipe_sink(writing)
    received = bytearray()
    os.set_blocking(reading, False)
    while len(received) < len(data):
        pair.step(pair.client, 0.0)
        pair.step(pair.worker, 0.0)
        try:
            received += os.read(reading, 30_011)
        except BlockingIOError:
            pass
    assert received == data
    os.close(reading)


def test_many_small_records_for_a_stopped_reader_take_no_more_room_than_their_bytes(pair: Pair) -> None:
    """Regression: each was kept as an object of its own, a megabyte of them in 200 MB."""
    stuck = os.pipe()
    program = os.pipe()
    pair.worker.sources[1] = pipe_source(program[0])
    pair.client.sinks[1] = pipe_sink(stuck[1])
    os.set_blocking(stuck[1], False)
    while pair.client.drained:
        os.write(program[1], bytes(PIPE))
        pair.settle()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(2000):
            os.write(program[1], b"x")
            pair.worker.step(0.0)
            pair.client.step(0.0)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 200_000
    os.close(stuck[0])
    os.close(program[1])


def test_a_pipe_that_its_writer_has_left_wakes_nobody_while_there_is_no_credit(pair: Pair) -> None:
    """Regression: poll reports POLLHUP even to those who ask for nothing."""
    stuck, program = os.pipe(), os.pipe()
    pair.worker.sources[1] = pipe_source(program[0])
    pair.client.sinks[1] = pipe_sink(stuck[1])
    os.set_blocking(program[1], False)
    try:
        while True:
            os.write(program[1], bytes(PIPE))
            pair.settle()
    except BlockingIOError:
        os.close(program[1])
    assert waits(pair, "worker") and waits(pair, "client")
    reader = Reader(stuck[0])
    pair.run(lambda: reader.ended)


@pytest.mark.parametrize("stuck", ["connection", "program"])
def test_input_that_is_given_again_wakes_nobody_while_it_cannot_be_sent(pair: Pair, tmp_path: Path, stuck: str) -> None:
    """Such a source has no descriptor to wait for, and is always ready."""
    data = os.urandom(3_000_000)
    (tmp_path / "input").write_bytes(data)
    source = SpoolSource(Source(os.open(tmp_path / "input", os.O_RDONLY)), Budget(len(data)))
    while source.read_into(memoryview(bytearray(MAXIMUM_DATA))):
        pass
    source.rewind()
    assert source.fileno() == -1
    pair.client.sources[0] = source
    reading, writing = os.pipe()
    pair.worker.sinks[0] = pipe_sink(writing)
    if stuck == "program":
        pair.settle()
        assert waits(pair, "worker")
    else:
        for _ in range(20):
            pair.step(pair.client, 0.0)
    assert waits(pair, "client")
    reader = Reader(reading)
    pair.run(lambda: reader.ended)
    assert reader.data == data


def test_a_shared_pipe_that_cannot_be_made_non_blocking_is_never_waited_for(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opened_fds, "open_again", lambda fd, status, flags: None)
    reading, writing = os.pipe()
    data = os.urandom(300_000)
    pair.client.sources[0] = file_with(data, tmp_path)
    pair.worker.sinks[0] = open_sink(writing)
    pair.settle()
    assert os.get_blocking(writing)
    assert not pair.worker.drained
    reader = Reader(reading)
    pair.run(lambda: pair.worker.drained and frames.END in pair.kinds(pair.worker))
    os.close(writing)
    while not reader.ended:
        time.sleep(0.01)
    assert reader.data == data


def test_watched_descriptors_are_told(pair: Pair) -> None:
    reading, writing = os.pipe()
    pair.client.watch(reading)
    pair.step(pair.client, 0.0)
    assert pair.client.ready == set()
    os.write(writing, b"x")
    pair.step(pair.client)
    assert pair.client.ready == {reading}
    pair.client.unwatch(reading)
    assert waits(pair, "client")
    assert pair.client.ready == set()
    os.close(reading)
    os.close(writing)


# Descriptors that fail


def test_a_reader_that_has_gone_is_told_to_the_writer(pair: Pair, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    pair.client.sources[0] = endless(tmp_path)
    pair.worker.sinks[0] = pipe_sink(writing)
    pair.run(lambda: frames.CLOSED in pair.kinds(pair.client))
    assert pair.troubles(pair.worker) == [(0, True, errno.EPIPE)]
    assert (pair.client.sources, pair.worker.sinks) == ({}, {})
    assert pair.client.session.outgoing[0].read == 0
    pair.settle()
    assert waits(pair, "client") and waits(pair, "worker")


def test_a_reader_that_goes_with_bytes_waiting_leaves_nothing_behind(pair: Pair, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    pair.client.sources[0] = endless(tmp_path)
    pair.worker.sinks[0] = pipe_sink(writing)
    pair.settle()
    assert not pair.worker.drained
    os.close(reading)
    pair.run(lambda: frames.CLOSED in pair.kinds(pair.client))
    assert pair.worker.drained
    assert pair.troubles(pair.worker) == [(0, True, errno.EPIPE)]


def test_a_full_disk_is_told_with_its_reason(pair: Pair, tmp_path: Path) -> None:
    pair.client.sources[0] = file_with(b"something", tmp_path)
    pair.worker.sinks[0] = open_sink(os.open("/dev/full", os.O_WRONLY))
    pair.run(lambda: bool(pair.troubles(pair.worker)))
    assert pair.troubles(pair.worker) == [(0, True, errno.ENOSPC)]


def test_a_source_that_fails_is_broken_and_not_ended(pair: Pair) -> None:
    pair.client.sources[0] = Source(os.open("/", os.O_RDONLY))
    pair.run(lambda: bool(pair.kinds(pair.worker)))
    assert pair.troubles(pair.client) == [(0, False, errno.EISDIR)]
    (event,) = pair.happened[pair.worker]
    assert isinstance(event, Event)
    assert (event.kind, event.stream, event.text) == (frames.BROKEN, 0, "is a directory")


def test_bytes_for_a_sink_that_was_closed_are_dropped_and_counted(pair: Pair, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    pair.worker.sinks[0] = pipe_sink(writing)
    pair.client.sources[0] = endless(tmp_path)
    pair.step(pair.client)
    pair.worker.close_sink(0)
    pair.run(lambda: frames.CLOSED in pair.kinds(pair.client))
    assert os.read(reading, 1) == b""
    os.close(reading)


# A peer that goes


def test_a_peer_that_hangs_up_is_an_error(pair: Pair) -> None:
    pair.worker.connection.close()
    with pytest.raises(DisconnectedError, match=r"disconnected unexpectedly$"):
        pair.step(pair.client)


def test_a_peer_that_hangs_up_in_the_middle_of_a_record_is_an_error(pair: Pair) -> None:
    pair.worker.session.end(1)
    for frame in pair.worker.session.data_to_send():
        pair.worker.records.send_frame(frame)
    pair.worker.connection.send(b"".join(pair.worker.records.data_to_send())[:-1])
    pair.worker.connection.close()
    with pytest.raises(DisconnectedError, match="in the middle of a record"):
        pair.step(pair.client)
        pair.step(pair.client)


@pytest.mark.parametrize("sender", ["worker", "client"])
def test_a_record_whose_length_was_changed_on_the_way_is_noticed_within_seconds(pair: Pair, sender: str) -> None:
    """Regression: the receiver waited for the missing bytes, and both sides for each other, for 600 seconds."""
    side = {"worker": pair.worker, "client": pair.client}[sender]
    side.session.end(1 if sender == "worker" else 0)
    for frame in side.session.data_to_send():
        side.records.send_frame(frame)
    outgoing = side.records.data_to_send()
    changed = bytearray(outgoing[-1])
    changed[1] ^= 1  # the length is 65,536 bytes more
    outgoing[-1] = memoryview(changed)
    began = time.monotonic()
    with pytest.raises(ProtocolError, match="length that was changed"):
        pair.run(lambda: False)
    assert time.monotonic() - began >= (ANSWERS + 1) * QUIET


def test_last_words_are_heard_before_the_end(pair: Pair) -> None:
    pair.worker.session.end(1)
    pair.worker.flush()
    pair.worker.connection.close()
    pair.step(pair.client)
    assert pair.kinds(pair.client) == [frames.END]
    with pytest.raises(DisconnectedError):
        pair.step(pair.client)


def test_last_words_are_heard_although_the_connection_was_reset(reset: Pair, tmp_path: Path) -> None:
    """Regression: the failure to send was told, and what the peer had said was lost with it."""
    reset.client.session.end(0)
    reset.client.flush()  # never read by the worker, so that its close is a reset
    reset.worker.session.end(1)
    reset.worker.session.end(2)
    reset.worker.flush()
    reset.worker.connection.close()
    time.sleep(0.05)
    for _ in range(2):
        reset.client.session.close_reader(1)
        reset.client.flush()
    assert reset.kinds(reset.client) == []
    reset.step(reset.client)
    assert reset.kinds(reset.client) == [frames.END]
    with pytest.raises(DisconnectedError):
        reset.step(reset.client)
        reset.step(reset.client)


def test_a_reset_stops_the_sources(reset: Pair, tmp_path: Path) -> None:
    reset.client.sources[0] = endless(tmp_path)
    reset.step(reset.client)
    reset.worker.connection.close()
    with pytest.raises(DisconnectedError):
        for _ in range(100):
            reset.step(reset.client)


def test_a_peer_that_asks_and_never_listens_costs_no_memory(pair: Pair) -> None:
    """Regression: every PING was answered into a queue that only grew."""
    for _ in range(1000):
        pair.worker.records.send_frame(frames.frame(frames.PING))
        pair.worker.flush()
        pair.client.step(0.0)
    assert len(pair.client.records.data_to_send()) <= MAXIMUM_WAITING + 2


def test_what_had_to_wait_for_a_congested_connection_is_sent_after_all(pair: Pair, tmp_path: Path) -> None:
    frame = frames.frame(frames.BROKEN, bytes(1000))
    expected = 0
    while not pair.client.records.congested:
        pair.client.records.send_frame(frame)
        expected += RECORD_HEADER + len(frame) + pair.client.records.cipher.tag_size
        pair.client.flush()
    expected += RECORD_HEADER + len(frames.frame(frames.END, bytes(8))) + pair.client.records.cipher.tag_size
    pair.client.session.end(0)
    pair.client.flush()
    assert len(pair.client.records.data_to_send()) >= MAXIMUM_WAITING
    taken = 0
    deadline = time.monotonic() + 10
    while not pair.client.flushed or taken < expected:
        assert time.monotonic() < deadline
        try:
            taken += len(pair.worker.connection.recv(1 << 20))
        except BlockingIOError:
            pass
        pair.client.step(0.0)
    assert taken == expected
    assert pair.client.session.data_to_send() == []


# The end


def test_after_the_end_only_what_was_received_is_written(pair: Pair, tmp_path: Path) -> None:
    data = os.urandom(500_000)
    reading, writing = os.pipe()
    pair.worker.sources[1] = file_with(data, tmp_path)
    pair.client.sinks[1] = pipe_sink(writing)
    pair.run(lambda: frames.END in pair.kinds(pair.client))
    pair.worker.connection.close()
    reader = Reader(reading)
    while not pair.client.drained:
        assert pair.client.write_out() == []
    pair.client.say_goodbye()
    while not reader.ended:
        time.sleep(0.01)
    assert reader.data == data


def test_a_signal_is_seen_while_the_last_bytes_wait_for_their_reader(pair: Pair, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    signals = os.pipe()
    pair.client.watch(signals[0])
    pair.worker.sources[1] = file_with(bytes(900_000), tmp_path)
    pair.client.sinks[1] = pipe_sink(writing)
    pair.run(lambda: frames.END in pair.kinds(pair.client))
    os.write(signals[1], b"x")
    assert pair.client.write_out() == []
    assert pair.client.ready == {signals[0]}
    for fd in (reading, *signals):
        os.close(fd)


def test_goodbye_to_a_peer_that_has_gone_is_silent(pair: Pair) -> None:
    pair.worker.connection.close()
    pair.client.session.end(0)
    pair.client.say_goodbye()
    assert pair.client.connection.fileno() == -1


def test_a_sink_counts_what_it_took(pair: Pair, tmp_path: Path) -> None:
    sink = Sink(os.open(tmp_path / "output", os.O_WRONLY | os.O_CREAT))
    pair.worker.sinks[0] = sink
    pair.client.sources[0] = file_with(bytes(123_456), tmp_path)
    pair.run(lambda: frames.END in pair.kinds(pair.worker))
    assert sink.count == 123_456
    assert (tmp_path / "output").stat().st_size == 123_456


def test_a_connection_that_has_failed_keeps_nothing_alive() -> None:
    """Regression: the failure that the pump kept held the pump by its traceback, and so keys and buffers."""
    gc.disable()
    try:
        one, other = socket.socketpair()
        one.setblocking(False)
        records, _ = record_pair(sodium.aead_names()[0])
        pump = Pump(one, records, Session(worker=True, now=0.0))
        other.close()
        for _ in range(2):
            with pytest.raises(DisconnectedError):
                pump.step(0.0)
        gone = weakref.ref(pump)
        one.close()
        del pump, records
        assert gone() is None
    finally:
        gc.enable()


def test_a_source_that_rests_is_not_polled_until_its_time(pair: Pair) -> None:
    """A terminal whose input waits for somebody else: it is readable, and the loop must not be busy with that."""

    class Resting(Source):
        reads = 0

        def read_into(self, view: memoryview) -> int | None:
            self.reads += 1
            if self.reads < 3:
                self.later = time.monotonic() + 0.2
                return None
            return super().read_into(view)

    reading, writing = os.pipe()
    os.write(writing, b"typed")
    resting = pair.client.sources[0] = Resting(reading)
    pair.worker.sinks[0] = (sink := pipe_sink(os.dup(writing)))
    steps = 0
    while not sink.count:
        pair.step(pair.client, 0.5)
        pair.step(pair.worker, 0)
        steps += 1
        assert steps < 60  # without a rest there are thousands
    assert resting.reads >= 3
    os.close(writing)


# Sources and sinks without a descriptor that have nothing, or no room, for the moment


class Fed(Source):
    """Gives what it has; between that it is idle."""

    def __init__(self) -> None:
        super().__init__(-1, shared=True)
        self.data = b""

    @property
    def idle(self) -> bool:  # type: ignore[override]
        return not self.data

    def read_into(self, view: memoryview) -> int | None:
        size = min(len(view), len(self.data))
        view[:size], self.data = self.data[:size], self.data[size:]
        return size or None


class Narrow(Sink):
    """Takes as much as it has room for."""

    def __init__(self) -> None:
        super().__init__(-1, shared=True)
        self.data = b""
        self.room = 0
        self.closed = False

    def write(self, view: memoryview) -> int:
        size = min(len(view), self.room)
        self.data += bytes(view[:size])
        self.room -= size
        return size

    def close(self) -> None:
        self.closed = True


def test_an_idle_source_costs_no_cpu_and_goes_on_when_it_is_stepped_again(pair: Pair) -> None:
    source, kept = Fed(), Narrow()
    kept.room = 100
    pair.client.sources[0], pair.worker.sinks[0] = source, kept
    assert waits(pair, "client")
    source.data = b"abc"
    pair.run(lambda: kept.data == b"abc")
    assert waits(pair, "client")


def test_a_sink_without_room_keeps_the_writer_within_its_credit_and_costs_no_cpu(pair: Pair, tmp_path: Path) -> None:
    size = 3 * INITIAL_WINDOW
    kept = Narrow()
    pair.client.sources[0], pair.worker.sinks[0] = file_with(bytes(size), tmp_path), kept
    pair.run(lambda: len(pair.worker.sinks.pending.get(0, b"")) > INITIAL_WINDOW - LEAST_CREDIT)
    waiting = len(pair.worker.sinks.pending[0])
    assert waits(pair, "worker") and waits(pair, "client")
    assert len(pair.worker.sinks.pending[0]) == waiting <= INITIAL_WINDOW
    kept.room = 10
    pair.worker.turn(False)
    assert (len(kept.data), len(pair.worker.sinks.pending[0])) == (10, waiting - 10)
    kept.room = size
    pair.run(lambda: kept.closed)
    assert (len(kept.data), pair.worker.sinks.pending) == (size, {})


def test_what_is_left_at_the_end_can_be_taken_without_a_step(pair: Pair, tmp_path: Path) -> None:
    kept = Narrow()
    pair.client.sources[0], pair.worker.sinks[0] = file_with(b"abc", tmp_path), kept
    pair.run(lambda: 0 in pair.worker.sinks.pending and not pair.client.sources)
    pair.run(lambda: frames.END in pair.kinds(pair.worker))
    kept.room = 3
    assert [one.kind for one in pair.worker.write_rest() if isinstance(one, Event)] == [frames.END]
    assert kept.closed
