"""A second job on the same connection: what the first one leaves behind, which is nothing."""

from __future__ import annotations

import pytest

from cexec.errors import ProtocolError
from cexec.protocol.base.limits import INITIAL_WINDOW, MAXIMUM_DATA
from cexec.protocol.connection import frames
from cexec.protocol.connection.frames import Exit, Stream
from cexec.protocol.connection.options import READS, WRITES
from cexec.protocol.connection.session import OFFERED
from tests.protocol.connection.sessions import client_in, finish, refused, sending, told
from tests.protocol.wires import job, running, start_job

QUARTER = INITIAL_WINDOW // 4  # from so much on credit is worth a frame
INPUT_ONLY = job(streams=[Stream(0, READS)])
OUTPUT_ONLY = job(streams=[Stream(5, WRITES)])


def test_credit_that_a_client_owed_its_last_job_is_not_granted_to_the_next() -> None:
    """The stream may not even exist any more: the session ended with a KeyError."""
    wire = running()
    sending(wire, 1, QUARTER)
    wire.client.session.consumed(1, QUARTER)  # and the driver does not come to send it
    for stream in (1, 2):
        told(wire.client.session, frames.END, (QUARTER if stream == 1 else 0).to_bytes(8, "big"), stream)
        wire.worker.session.end(stream)
    wire.worker.session.data_to_send()
    result = Exit(kind=frames.EXITED, status=0, endings=[])
    wire.worker.session.exit(result)
    told(wire.client.session, frames.EXIT, result.encode())
    told(wire.client.session, frames.CONFIRM, job=1)
    wire.client.session.go(INPUT_ONLY)
    assert [frame[0] for frame in wire.client.session.data_to_send()] == [frames.GO]


def test_credit_that_a_worker_owed_its_last_job_is_not_granted_to_the_next() -> None:
    wire = running(INPUT_ONLY)
    wire.client.send_data(0, bytes(MAXIMUM_DATA))
    wire.client.send_data(0, bytes(QUARTER - MAXIMUM_DATA))
    wire.flow().raise_errors()
    worker = wire.worker.session
    worker.consumed(0, QUARTER)
    worker.exit(Exit(kind=frames.EXITED, status=0, endings=[]))
    worker.confirm()
    told(worker, frames.GO, OUTPUT_ONLY.encode(), job=1)
    assert [frame[0] for frame in worker.data_to_send()] == [frames.EXIT, frames.CONFIRM]


def test_the_next_job_has_its_own_streams_and_all_of_their_credit() -> None:
    wire = running()
    wire.client.send_data(0, b"input")
    wire.flow().raise_errors()
    sending(wire, 1, INITIAL_WINDOW)
    assert wire.worker.session.sendable(1) == 0
    finish(wire)
    start_job(wire, job(streams=[Stream(0, READS), Stream(1, WRITES)]))
    for session in (wire.client.session, wire.worker.session):
        assert sorted([*session.incoming, *session.outgoing]) == [0, 1]
        for incoming in session.incoming.values():
            assert (incoming.window, incoming.received, incoming.consumed) == (INITIAL_WINDOW, 0, 0)
        for outgoing in session.outgoing.values():
            assert (outgoing.credit, outgoing.count, outgoing.read) == (INITIAL_WINDOW, 0, 0)
    assert [ending.count for ending in finish(wire).endings] == [0, 0]


def test_a_stream_of_the_last_job_is_unknown_to_the_next() -> None:
    wire = running()
    finish(wire)
    start_job(wire, INPUT_ONLY)
    assert wire.worker.session.sendable(1) == wire.client.session.sendable(2) == 0
    with pytest.raises(ProtocolError, match="does not exist"):
        told(wire.client.session, frames.DATA, b"x", 1, job=1)


def test_the_next_exit_must_name_the_next_jobs_streams() -> None:
    wire = running()
    endings = finish(wire).endings
    start_job(wire, INPUT_ONLY)
    refused(wire.client.session, frames.EXIT, Exit(kind=frames.EXITED, status=0, endings=endings).encode(), job=1)


def test_the_next_job_starts_only_when_it_says_so() -> None:
    """STARTED of the last job does not count for the next."""
    wire = running(job(streams=[]))
    finish(wire)
    wire.worker.session.confirm()
    wire.flow().raise_errors()
    wire.client.session.go(job(streams=[]))
    refused(wire.client.session, frames.EXIT, Exit(kind=frames.EXITED, status=0, endings=[]).encode(), job=1)


def test_a_worker_must_confirm_each_job() -> None:
    client = client_in(OFFERED)
    client.go(job(streams=[]))
    told(client, frames.STARTED, bytes(1))
    told(client, frames.EXIT, Exit(kind=frames.EXITED, status=0, endings=[]).encode())
    with pytest.raises(ValueError, match="no place"):
        client.go(job(streams=[]))
