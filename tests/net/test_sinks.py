"""Received bytes that a sink does not take at once, docs/protocol.md section 4.3.

`test_pump.py` has the same with descriptors and a peer.
"""

from __future__ import annotations

import errno

import pytest

from cexec.net.sinks import JobSinks, Trouble
from cexec.protocol.connection import frames
from cexec.protocol.connection.session import RUNNING, Event, Session
from cexec.system.io.fds import Sink
from tests.protocol.connection.sessions import told, worker_in

FD = 7
WRITABLE = {FD: 0}


class Narrow(Sink):
    """Takes `room` bytes; `error` is raised instead."""

    def __init__(self, room: int) -> None:
        super().__init__(FD)
        self.room = room
        self.error = 0
        self.data = b""
        self.closed = False

    def write(self, data: memoryview) -> int:
        if self.error:
            raise OSError(self.error, "")
        taken = bytes(data[: self.room])
        self.room -= len(taken)
        self.data += taken
        return len(taken)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def session() -> Session:
    return worker_in(RUNNING)


@pytest.fixture
def sinks(session: Session) -> JobSinks:
    return JobSinks(session)


def deliver(session: Session, sinks: JobSinks, data: bytes) -> list[Event | Trouble]:
    """The peer sends data of stream 0."""
    found: list[Event | Trouble] = []
    for event in told(session, frames.DATA, data, 0):
        sinks.deliver(event.stream, event.data, found)
    return found


def test_bytes_wait_and_do_not_overtake_each_other(session: Session, sinks: JobSinks) -> None:
    sink = sinks[0] = Narrow(3)
    assert deliver(session, sinks, b"hello ") == []
    assert (sink.data, sinks.pending) == (b"hel", {0: bytearray(b"lo ")})
    sink.room = 4
    deliver(session, sinks, b"world")
    assert (sink.data, session.incoming[0].consumed) == (b"hel", 3)
    sinks.write_pending({}, [])  # poll has not said that it takes bytes
    assert sink.data == b"hel"
    sinks.write_pending(WRITABLE, [])
    assert (sink.data, sinks.pending) == (b"hello w", {0: bytearray(b"orld")})
    sink.room = 100
    sinks.write_pending(WRITABLE, [])
    assert (sink.data, sinks.pending, session.incoming[0].consumed) == (b"hello world", {}, 11)


def test_a_sink_closes_behind_its_last_byte(session: Session, sinks: JobSinks) -> None:
    sink = sinks[0] = Narrow(1)
    found = deliver(session, sinks, b"ab")
    sinks.end(0)
    assert not sink.closed and 0 in sinks
    sink.room = 100
    sinks.write_pending(WRITABLE, found)
    assert (sink.data, sink.closed, 0 in sinks) == (b"ab", True, False)
    assert [event.kind for event in found if isinstance(event, Event)] == [frames.END]


def test_a_sink_without_waiting_bytes_closes_at_once(session: Session, sinks: JobSinks) -> None:
    sink = sinks[0] = Narrow(100)
    deliver(session, sinks, b"ab")
    sinks.end(0)
    assert sink.closed and not sinks
    sinks.end(0)  # a stream without a sink may end, too


def test_a_sink_that_fails_is_closed_and_told_and_its_credit_goes_back(session: Session, sinks: JobSinks) -> None:
    sink = sinks[0] = Narrow(1)
    found = deliver(session, sinks, b"abc")
    sink.error = errno.ENOSPC
    sinks.write_pending(WRITABLE, found)
    assert (sink.closed, sinks.pending, 0 in sinks) == (True, {}, False)
    (trouble,) = found
    assert isinstance(trouble, Trouble) and (trouble.stream, trouble.writing, trouble.error) == (0, True, errno.ENOSPC)
    assert [frame[0] for frame in session.data_to_send()] == [frames.CLOSED]
    assert deliver(session, sinks, b"more") == [] and not sinks.pending


def test_the_sinks_of_a_job_in_advance_take_the_place_of_the_others(sinks: JobSinks) -> None:
    first, second = Narrow(1), Narrow(1)
    sinks[0] = first
    sinks.begin_ahead()  # none is prepared: the job has the sinks that are there
    assert sinks == {0: first}
    sinks.prepared = {1: second}
    sinks.begin_ahead()
    assert (dict(sinks), sinks.prepared) == ({1: second}, {})
