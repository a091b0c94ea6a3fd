"""Each call of a session, on each side and in each stage: it has a place there, or is refused and changes nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cexec.protocol.connection import frames
from cexec.protocol.connection.frames import Exit, Refusal, Stream
from cexec.protocol.connection.options import READS, WRITES
from cexec.protocol.connection.session import OFFERED, OFFERING, OVER, Session
from cexec.protocol.connection.session_states import ASKING, EXECUTING, PREPARING, STATES
from tests.protocol.connection.sessions import told
from tests.protocol.wires import job

WORKER, CLIENT = "worker", "client"
STREAMS = [Stream(0, READS), Stream(1, WRITES)]
RUNNING_STAGES = {PREPARING, ASKING, EXECUTING}
Call = Callable[[Session], object]

# Who may make it, in which stages, and the frames that it sends.
CALLS: dict[str, tuple[str, set[str], list[int], Call]] = {
    "confirm": (WORKER, {OFFERING}, [frames.CONFIRM], lambda s: s.confirm()),
    "withdraw": (WORKER, {OFFERED}, [frames.WITHDRAW], lambda s: s.withdraw("no slot")),
    "ask": (WORKER, {PREPARING, ASKING}, [frames.PROGRAM], lambda s: s.ask_for_program("linux-x86_64")),
    "started": (WORKER, {PREPARING, ASKING}, [frames.STARTED], lambda s: s.started()),
    "refuse": (WORKER, {PREPARING, ASKING}, [frames.REFUSED], lambda s: s.refuse(Refusal(frames.HERE, "no"))),
    "left_unread": (WORKER, RUNNING_STAGES, [], lambda s: s.left_unread(0, 0)),
    "ended_unnoticed": (WORKER, RUNNING_STAGES, [], lambda s: s.ended_unnoticed(1)),
    "exit": (WORKER, {EXECUTING}, [frames.EXIT], lambda s: s.exit(Exit(kind=frames.EXITED, status=0, endings=[]))),
    "go": (CLIENT, {OFFERED}, [frames.GO], lambda s: s.go(job(streams=STREAMS))),
    "cancel": (CLIENT, set(STATES), [frames.CANCEL], lambda s: s.cancel()),
    "release": (CLIENT, {OFFERING, OFFERED, OVER}, [frames.RELEASE], lambda s: s.release()),
    "signal": (CLIENT, RUNNING_STAGES, [frames.SIGNAL], lambda s: s.signal(15)),
}


def session_in(side: str, stage: str) -> Session:
    """One side in a stage, its frames sent; the output has ended if the program runs."""
    worker = Session(worker=True, now=0.0)
    client = Session(worker=False, now=0.0)
    steps: list[tuple[set[str], Call]] = [
        ({OFFERED, *RUNNING_STAGES}, lambda s: worker.confirm()),
        (RUNNING_STAGES, lambda s: client.go(job(streams=STREAMS))),
        ({ASKING}, lambda s: worker.ask_for_program("linux-x86_64")),
        ({EXECUTING}, lambda s: worker.started()),
        ({EXECUTING}, lambda s: worker.end(1)),
        ({OVER}, lambda s: client.cancel()),
    ]
    for stages, step in steps:
        if stage in stages:
            step(worker)
            for sender, receiver in ((worker, client), (client, worker)):
                for frame in sender.data_to_send():
                    told(receiver, frame[0], frame[4:], frame[3])
    session = worker if side == WORKER else client
    assert session.stage == stage
    return session


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("stage", STATES)
@pytest.mark.parametrize("side", [WORKER, CLIENT])
def test_a_call_has_its_side_and_its_stages(side: str, stage: str, name: str) -> None:
    whose, stages, sent, call = CALLS[name]
    session = session_in(side, stage)
    if side == whose and stage in stages:
        call(session)
        assert [frame[0] for frame in session.data_to_send()] == sent
    else:
        with pytest.raises(ValueError, match=f"no place in state {STATES[stage]}"):
            call(session)
        assert (session.stage, session.data_to_send(), session.next_event()) == (stage, [], None)


def test_nothing_can_be_sent_on_a_stream_that_is_not_there_or_has_ended() -> None:
    worker = session_in(WORKER, EXECUTING)
    assert worker.sendable(1) == worker.sendable(7) == 0
    client = session_in(CLIENT, EXECUTING)
    assert client.sendable(0) > 0
    client.end(0)
    assert client.sendable(0) == 0


def test_what_the_program_left_unread_does_not_count() -> None:
    worker = session_in(WORKER, EXECUTING)
    told(worker, frames.DATA, b"12345", 0)
    worker.consumed(0, 5)
    worker.left_unread(0, 2)
    assert worker.incoming[0].consumed == 3


def test_only_a_reader_that_has_gone_can_have_gone_unnoticed() -> None:
    worker = session_in(WORKER, PREPARING)
    worker.ended_unnoticed(1)
    assert worker.sendable(1) > 0  # it has not even ended
    told(worker, frames.CLOSED, bytes(8), 1)
    worker.ended_unnoticed(1)
    assert worker.outgoing[1].state == frames.ENDED


def test_an_event_has_what_its_frame_says() -> None:
    refusal = Refusal(frames.HERE, "no such file")
    (refused,) = told(session_in(CLIENT, PREPARING), frames.REFUSED, refusal.encode())
    assert refused.refusal is not None
    assert (refused.refusal.kind, refused.refusal.reason) == (frames.HERE, "no such file")
    (withdrawn,) = told(session_in(CLIENT, OFFERED), frames.WITHDRAW, b"no slot")
    running = session_in(CLIENT, PREPARING)
    told(running, frames.STARTED, bytes(1))
    (broken,) = told(running, frames.BROKEN, b"input/output error", 1)
    assert (withdrawn.text, broken.text, broken.stream) == ("no slot", "input/output error", 1)
    (asked,) = told(session_in(CLIENT, PREPARING), frames.PROGRAM, b"linux-x86_64")
    (started,) = told(session_in(CLIENT, PREPARING), frames.STARTED, bytes([frames.ONCE]))
    assert (asked.text, started.number) == ("linux-x86_64", frames.ONCE)
    (go,) = told(session_in(WORKER, OFFERED), frames.GO, job(streams=STREAMS).encode())
    (cancelled,) = told(session_in(WORKER, OFFERED), frames.CANCEL)
    assert go.go is not None and len(go.go.streams) == 2
    for event in (refused, withdrawn, started, go, cancelled):
        assert (bytes(event.data), event.exit, event.stream) == (b"", None, 0)
    assert (cancelled.text, cancelled.number, cancelled.go, cancelled.refusal) == ("", 0, None, None)
