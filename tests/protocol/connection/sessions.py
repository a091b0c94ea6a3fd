"""Sessions in every state, for the tests of sessions."""

from __future__ import annotations

import pytest

from cexec.errors import ProtocolError
from cexec.protocol.base.limits import MAXIMUM_DATA
from cexec.protocol.connection import frames
from cexec.protocol.connection.frames import Exit
from cexec.protocol.connection.session import OFFERING, OVER, RUNNING, Event, Session
from tests.protocol.wires import Wire, job


def exited(status: int = 0) -> Exit:
    return Exit(kind=frames.EXITED, status=status, endings=[])


def finish(wire: Wire, status: int = 0) -> Exit:
    """The program ends all its outputs and exits."""
    session = wire.worker.session
    for stream in list(session.outgoing):
        session.end(stream)
    session.exit(exited(status))
    wire.flow().raise_errors()
    return wire.client.exits[-1]


def sending(wire: Wire, stream: int, total: int) -> int:
    """The worker sends up to `total` bytes, as far as the credit goes; returns how many."""
    sent = 0
    while size := min(MAXIMUM_DATA, total - sent, wire.worker.session.sendable(stream)):
        wire.worker.send_data(stream, bytes(size))
        wire.flow().raise_errors()
        sent += size
    return sent


def told(
    session: Session, kind: int, body: bytes = b"", stream: int = 0, now: float = 0.0, *, job: int = 0
) -> list[Event]:
    """Gives a session one frame; returns its events.  `job`: the number of its job."""
    session.receive_data(memoryview(frames.frame(kind, body, stream, job)), now)
    events = []
    while (event := session.next_event()) is not None:
        events.append(event)
    return events


def refused(session: Session, kind: int, body: bytes = b"", stream: int = 0, *, job: int = 0) -> None:
    with pytest.raises(ProtocolError):
        told(session, kind, body, stream, job=job)


def client_in(state: str, started: bool = False) -> Session:
    """A client's session in a state, its frames forgotten."""
    session = Session(worker=False, now=0.0)
    if state != OFFERING:
        told(session, frames.CONFIRM)
    if state == RUNNING:
        session.go(job())
        if started:
            told(session, frames.STARTED, bytes(1))
    elif state == OVER:
        session.cancel()
    session.data_to_send()
    return session


def worker_in(state: str) -> Session:
    """A worker's session in a state, its frames forgotten."""
    session = Session(worker=True, now=0.0)
    if state != OFFERING:
        session.confirm()
    if state == RUNNING:
        told(session, frames.GO, job().encode())
        session.started()
    elif state == OVER:
        session.withdraw("gone")
    session.data_to_send()
    return session
