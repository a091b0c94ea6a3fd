"""A worker says once that another client waits for the slot, to a job that has asked: docs/protocol.md section 4.4."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cexec.errors import ProtocolError
from cexec.protocol.base.limits import FIRST_REVISION
from cexec.protocol.connection import frames, session_states
from cexec.protocol.connection.frames import Go, Refusal
from cexec.protocol.connection.options import NO, TELL_WANTED, YES
from cexec.protocol.connection.session import OFFERED, OFFERING, OVER, Session
from tests.protocol.connection.sessions import exited, finish, told
from tests.protocol.wires import Wire, connected, job, running, start_job

ASKS = {TELL_WANTED: YES}


def asking(**fields: object) -> Go:
    return job(options=ASKS, **fields)


def heard(wire: Wire) -> int:
    """How often the client has heard it."""
    return wire.client.events.count((frames.WANTED, 0))


# What the worker may say


def test_a_job_that_asks_is_told_once() -> None:
    wire = running(asking())
    assert wire.worker.session.wants_to_hear
    wire.worker.session.slot_wanted()
    wire.flow().raise_errors()
    assert heard(wire) == 1
    assert not wire.worker.session.wants_to_hear
    with pytest.raises(ValueError, match="no place"):
        wire.worker.session.slot_wanted()
    assert finish(wire).exit_status == 0


def test_the_frame_has_a_head_and_no_body() -> None:
    wire = running(asking())
    wire.worker.session.slot_wanted()
    assert wire.worker.session.data_to_send() == [bytes([21, 0, 0, 0])]


def test_it_has_the_number_of_its_job() -> None:
    wire = running(asking())
    finish(wire)
    start_job(wire, asking())
    wire.worker.session.slot_wanted()
    assert wire.worker.session.data_to_send() == [bytes([21, 1, 0, 0])]


@pytest.mark.parametrize("options", [{}, {TELL_WANTED: NO}, {TELL_WANTED: ""}, {"lease": YES}])
def test_a_job_that_does_not_ask_is_not_told(options: dict[str, str]) -> None:
    wire = running(job(options=options))
    assert not wire.worker.session.wants_to_hear
    with pytest.raises(ValueError, match="no place"):
        wire.worker.session.slot_wanted()


def test_in_the_first_revision_nobody_is_told() -> None:
    wire = running(asking(), revision=FIRST_REVISION)
    assert not wire.worker.session.wants_to_hear
    with pytest.raises(ValueError, match="no place"):
        wire.worker.session.slot_wanted()


def test_each_job_of_a_lease_asks_for_itself() -> None:
    wire = running(asking())
    finish(wire)
    start_job(wire)
    assert not wire.worker.session.wants_to_hear
    finish(wire)
    start_job(wire, asking())
    wire.worker.session.slot_wanted()
    wire.flow().raise_errors()
    assert heard(wire) == 1


def test_a_job_that_was_told_is_followed_by_one_that_is_told_again() -> None:
    wire = running(asking())
    for number in range(1, 4):
        wire.worker.session.slot_wanted()
        wire.flow().raise_errors()
        assert heard(wire) == number
        finish(wire)
        start_job(wire, asking())


def test_a_job_in_advance_may_ask() -> None:
    wire = running(job())
    wire.client.session.go_ahead(asking(job_id=b"the second job  "), {0: b"input"})
    wire.flow().raise_errors()
    assert not wire.worker.session.wants_to_hear  # that is about the job which runs
    finish(wire)
    wire.worker.session.begin_ahead()
    assert wire.worker.session.wants_to_hear
    wire.worker.session.started()
    wire.worker.session.slot_wanted()
    wire.flow().raise_errors()
    assert heard(wire) == 1


def before_it_has_started(wire: Wire) -> None:
    wire.client.session.go(asking())
    wire.flow().raise_errors()


def while_it_asks_for_the_program(wire: Wire) -> None:
    before_it_has_started(wire)
    wire.worker.session.ask_for_program("linux-x86_64")


def after_it_was_refused(wire: Wire) -> None:
    before_it_has_started(wire)
    wire.worker.session.refuse(Refusal(frames.HERE, "no"))


def after_its_exit(wire: Wire) -> None:
    before_it_has_started(wire)
    wire.worker.session.started()
    finish(wire)


def after_the_client_has_cancelled(wire: Wire) -> None:
    before_it_has_started(wire)
    wire.worker.session.started()
    wire.client.session.cancel()
    wire.flow()


@pytest.mark.parametrize(
    "reach",
    [before_it_has_started, while_it_asks_for_the_program, after_it_was_refused, after_its_exit,
     after_the_client_has_cancelled],
)  # fmt: skip
def test_only_a_program_that_runs_is_told(reach: Callable[[Wire], None]) -> None:
    wire = connected()
    wire.worker.session.confirm()
    wire.flow()
    reach(wire)
    with pytest.raises(ValueError, match="no place"):
        wire.worker.session.slot_wanted()


def test_a_client_cannot_say_it() -> None:
    wire = running(asking())
    with pytest.raises(ValueError, match="no place"):
        wire.client.session.slot_wanted()


# What the client takes


def client_in(stage: str, go: Go) -> Session:
    """A client's session of the second revision in a stage."""
    session = Session(worker=False, now=0.0, numbered=True)
    if stage != OFFERING:
        told(session, frames.CONFIRM)
    if stage in (session_states.PREPARING, session_states.ASKING, session_states.EXECUTING):
        session.go(go)
    if stage == session_states.ASKING:
        told(session, frames.PROGRAM, b"linux-x86_64")
    if stage == session_states.EXECUTING:
        told(session, frames.STARTED, bytes(1))
    if stage == OVER:
        session.cancel()
    assert session.stage == stage
    return session


def test_a_client_that_has_asked_hears_it() -> None:
    session = client_in(session_states.EXECUTING, asking())
    assert [event.kind for event in told(session, frames.WANTED)] == [frames.WANTED]


@pytest.mark.parametrize("stage", session_states.STATES)
def test_it_has_a_place_only_while_the_program_runs(stage: str) -> None:
    session = client_in(stage, asking())
    if stage == session_states.EXECUTING:
        assert len(told(session, frames.WANTED)) == 1
    elif stage == OVER:
        assert told(session, frames.WANTED) == []
    else:
        with pytest.raises(ProtocolError):
            told(session, frames.WANTED)


def test_a_client_that_has_not_asked_refuses_it() -> None:
    with pytest.raises(ProtocolError, match="was not asked"):
        told(client_in(session_states.EXECUTING, job()), frames.WANTED)


def test_a_client_refuses_a_second_one() -> None:
    session = client_in(session_states.EXECUTING, asking())
    told(session, frames.WANTED)
    with pytest.raises(ProtocolError, match="was not asked"):
        told(session, frames.WANTED)


def test_a_client_refuses_one_after_the_exit() -> None:
    wire = running(asking())
    finish(wire)
    with pytest.raises(ProtocolError, match="no place"):
        told(wire.client.session, frames.WANTED)


def test_a_client_refuses_one_about_an_earlier_job() -> None:
    wire = running(asking())
    finish(wire)
    start_job(wire, asking())
    with pytest.raises(ProtocolError, match="has ended"):
        told(wire.client.session, frames.WANTED, job=0)
    assert heard(wire) == 0


def test_a_worker_refuses_it() -> None:
    wire = running(asking())
    with pytest.raises(ProtocolError, match="no place"):
        told(wire.worker.session, frames.WANTED)


def test_output_and_exit_come_behind_it() -> None:
    wire = running(asking())
    wire.worker.session.slot_wanted()
    wire.worker.send_data(1, b"the rest")
    wire.worker.session.end(1)
    wire.worker.session.end(2)
    wire.worker.session.exit(exited())
    wire.flow().raise_errors()
    kinds = [kind for kind, _ in wire.client.events]
    assert kinds.index(frames.WANTED) < kinds.index(frames.DATA) < kinds.index(frames.EXIT)
    assert wire.client.session.stage == OFFERING


def test_a_lease_goes_on_after_it() -> None:
    wire = running(asking())
    wire.worker.session.slot_wanted()
    finish(wire)
    wire.worker.session.confirm()
    wire.flow().raise_errors()
    assert wire.client.session.stage == OFFERED
