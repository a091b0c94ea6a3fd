"""Small messages that come and go while a pump waits for the same descriptors, and all that ends this."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from cexec.net import carrying
from cexec.net.pump import LEAST_CREDIT, Pump, Trouble
from cexec.protocol.base.limits import INITIAL_WINDOW
from cexec.protocol.connection import frames
from cexec.protocol.connection.session import Event
from tests.net.pumps import BLOCKED, Pair, pipe_sink, pipe_source

pytestmark = pytest.mark.usefixtures("process_end")

PIECE = 50_000  # bytes: less than a pipe takes
LONG = 10.0  # seconds that no test waits for
MOST = 2.5  # seconds in which what a test does is done, also on a busy machine
MESSAGES = [b"a", b"bc", b"def" * 100, b"g" * 5000, b"h"]


class Program:
    """A pair with a pipe into the program and one out of it.  `write` and `read` are the client's ends."""

    def __init__(self) -> None:
        self.pair = Pair(tcp=True)
        given, self.write = os.pipe()
        self.taken, taken = os.pipe()
        said, self.say = os.pipe()
        self.read, written = os.pipe()
        self.pair.client.sources[0], self.pair.worker.sinks[0] = pipe_source(given), pipe_sink(taken)
        self.pair.worker.sources[1], self.pair.client.sinks[1] = pipe_source(said), pipe_sink(written)
        self.open = {self.write, self.taken, self.say, self.read}

    def close(self, fd: int) -> None:
        self.open.discard(fd)
        os.close(fd)

    def end(self) -> None:
        for fd in self.open:
            os.close(fd)
        self.pair.close()


@pytest.fixture
def program() -> Iterator[Program]:
    program = Program()
    yield program
    program.end()


def going_on(side: Pump, act: Callable[[], object], until: float = LONG) -> tuple[list[Event | Trouble], bool, float]:
    """Goes on while `act` runs; returns the events, if something had come last, and how long it took."""
    assert carrying.is_steady(side)
    found: list[Event | Trouble] = []
    thread = threading.Thread(target=act)
    began = time.monotonic()
    thread.start()
    came = carrying.go_on(side, began + until, found)
    thread.join()
    return found, came, time.monotonic() - began


def carried(side: Pump, timeout: float | None) -> tuple[list[Event | Trouble], float]:
    """Returns its events, and how long it took."""
    began = time.monotonic()
    return carrying.carry(side, timeout), time.monotonic() - began


def test_carry_goes_on_while_bytes_come_and_ends_when_none_do(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carrying, "CARRIED", MOST)
    reading, writing = os.pipe()
    pair.client.sources[0] = pipe_source(reading)
    os.write(writing, b"one")
    threading.Timer(BLOCKED / 2, os.write, (writing, b"two")).start()
    found, seconds = carried(pair.client, None)
    assert found == [] and seconds >= 0.9 * MOST
    assert pair.client.session.outgoing[0].count == 6  # a step takes what is there and returns


def test_carry_lasts_no_longer_than_its_owner_can_wait(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carrying, "CARRIED", LONG)
    reading, writing = os.pipe()
    pair.client.sources[0] = pipe_source(reading)
    os.write(writing, b"one")
    assert 0.9 * BLOCKED <= carried(pair.client, BLOCKED)[1] < LONG
    assert carried(pair.client, 0.0)[1] < LONG


@pytest.mark.parametrize("what", ["an event", "a watched descriptor"])
def test_carry_ends_with_what_its_owner_has_to_know(pair: Pair, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carrying, "CARRIED", LONG)
    reading, writing = os.pipe()
    watched, signal = os.pipe()
    pair.client.sources[0] = pipe_source(reading)
    pair.client.watch(watched)
    os.write(writing, b"one")
    ends = (lambda: os.write(signal, b"x")) if what != "an event" else lambda: os.close(writing)
    threading.Timer(BLOCKED / 4, ends).start()
    found, seconds = carried(pair.client, 2 * LONG)
    assert seconds < LONG
    assert [event.kind for event in found if isinstance(event, Event)] == ([frames.END] if what == "an event" else [])
    assert pair.client.ready == (set() if what == "an event" else {watched})


# What it goes on with, and what ends it


def test_messages_come_and_go_in_order_and_what_to_wait_for_is_found_once(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = program.pair
    asked: list[Pump] = []
    got: list[bytes] = []
    wanted = Pump.wanted

    def counting(pump: Pump) -> dict[int, int]:
        asked.append(pump)
        return wanted(pump)

    monkeypatch.setattr(Pump, "wanted", counting)

    def converse() -> None:
        for message in MESSAGES:
            os.write(program.write, message)
            answer = b""
            while len(answer) < len(message):
                answer += os.read(program.read, 10_000)
            got.append(answer)

    def answer() -> None:
        for message in MESSAGES:
            question = b""
            while len(question) < len(message):
                question += os.read(program.taken, 10_000)
            os.write(program.say, question)

    talking = threading.Thread(target=answer)
    talking.start()
    worker = threading.Thread(target=carrying.go_on, args=(pair.worker, time.monotonic() + MOST, []))
    worker.start()
    found, came, _ = going_on(pair.client, converse, MOST)
    for thread in (talking, worker):
        thread.join()
    assert got == MESSAGES
    assert (found, came) == ([], False)
    assert asked.count(pair.client) == asked.count(pair.worker) == 1
    assert sorted(pair.counts()) == [0, 0, *[sum(map(len, MESSAGES))] * 4]  # standard error has carried nothing


def test_it_lasts_as_long_as_its_owner_can_wait(program: Program) -> None:
    assert 0.2 <= going_on(program.pair.client, lambda: None, 0.2)[2] < LONG


def test_it_ends_when_the_peer_has_to_be_asked(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    session = program.pair.client.session
    monkeypatch.setattr(session, "next_timeout", lambda: time.monotonic() + 0.1)
    assert going_on(program.pair.client, lambda: None)[2] < LONG


@pytest.mark.parametrize("what", ["an end", "a signal", "an error"])
def test_it_ends_with_what_the_owner_has_to_know(program: Program, what: str) -> None:
    client, worker = program.pair.client, program.pair.worker
    watched, signal = os.pipe()
    program.open |= {watched, signal}
    client.watch(watched)
    if what == "an error":
        program.close(program.read)
    act = {
        "an end": lambda: program.close(program.write),
        "a signal": lambda: os.write(signal, b"x"),
        "an error": lambda: (os.write(program.say, b"x"), worker.step(1.0)),
    }[what]
    found, came, seconds = going_on(client, act)
    assert came and seconds < LONG / 2
    assert [type(one) for one in found] == {"an end": [Event], "a signal": [], "an error": [Trouble]}[what]
    assert client.ready == ({watched} if what == "a signal" else set())


def test_it_ends_when_a_sink_is_full_and_the_rest_waits(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    client, worker = program.pair.client, program.pair.worker
    sink = client.sinks[1]
    write = sink.write
    monkeypatch.setattr(sink, "write", lambda view: write(view[:3]) if not sink.count else 0)
    _, came, seconds = going_on(client, lambda: (os.write(program.say, b"message"), worker.step(1.0)))
    assert came and seconds < LONG / 2
    assert client.sinks.pending == {1: b"sage"}
    assert not carrying.is_steady(client)


def test_it_ends_in_the_middle_of_a_record(program: Program) -> None:
    client, worker = program.pair.client, program.pair.worker
    buffer = worker.records.data_buffer()
    assert buffer is not None
    record = worker.records.seal_data(worker.session.data_head(1, 100), 100)
    _, came, seconds = going_on(client, lambda: worker.connection.send(record[:50]))
    assert came and seconds < LONG / 2
    assert client.session.silence.next_timeout() < time.monotonic() + 1.0  # the rule for unfinished records holds
    assert not carrying.is_steady(client)


def test_it_ends_when_credit_runs_out(program: Program) -> None:
    client = program.pair.client

    def fill() -> None:
        left = INITIAL_WINDOW
        while left > 0 and client.session.sendable(0) >= LEAST_CREDIT and client.records.all_sent:
            left -= os.write(program.write, bytes(PIECE))
            while client.session.outgoing[0].count < INITIAL_WINDOW - left and time.monotonic() < deadline:
                time.sleep(0.001)

    deadline = time.monotonic() + LONG
    _, came, seconds = going_on(client, fill)
    assert came and seconds < LONG / 2
    assert not carrying.is_steady(client)


def test_it_ends_when_the_connection_is_full(program: Program) -> None:
    client = program.pair.client
    client.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    over, written = threading.Event(), 0

    def fill() -> None:
        nonlocal written
        while not over.wait(0.001) and written < INITIAL_WINDOW // 2:
            if client.session.outgoing[0].count == written:
                written += os.write(program.write, bytes(PIECE))

    thread = threading.Thread(target=fill)
    thread.start()
    deadline, came = time.monotonic() + LONG, False
    while carrying.is_steady(client) and time.monotonic() < deadline:  # a full connection may soon have room again
        came = carrying.go_on(client, deadline, [])
    over.set()
    thread.join()
    assert came and time.monotonic() < deadline
    assert client.wants_out and not carrying.is_steady(client)


def test_frames_that_wait_for_others_are_not_steady(program: Program) -> None:
    program.pair.client.hold_back()
    assert not carrying.is_steady(program.pair.client)
    program.pair.client.let_go()
    assert carrying.is_steady(program.pair.client)


def test_a_source_that_rests_or_has_no_descriptor_is_not_steady(program: Program) -> None:
    source = program.pair.client.sources[0]
    source.later = time.monotonic() + LONG
    assert not carrying.is_steady(program.pair.client)
    source.later, fd = 0.0, source.fd
    source.fd = -1
    assert not carrying.is_steady(program.pair.client)
    source.fd = fd


def test_new_credit_is_sent_while_it_goes_on(program: Program) -> None:
    """Else the peer would stop after its window, although all bytes have been read."""
    client, worker = program.pair.client, program.pair.worker
    quarter, size = INITIAL_WINDOW // 4, 1000
    taken = bytearray()

    def say() -> None:
        while len(taken) < quarter + 10 * size:
            os.write(program.say, bytes(size))
            worker.step(0.01)
            taken.extend(os.read(program.read, size))
        for _ in range(3):
            worker.step(0.01)

    assert going_on(client, say, 2 * MOST)[:1] == ([],)
    assert worker.session.sendable(1) > INITIAL_WINDOW - quarter
    assert [one for one in program.pair.happened[worker] if isinstance(one, Event) and one.kind == frames.CREDIT] == []
