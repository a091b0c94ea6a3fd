"""What has a place in which state of a session, and what crosses on the way, docs/protocol.md section 4.2."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cexec.errors import ProtocolError
from cexec.protocol.connection import frames, session_states
from cexec.protocol.connection.frames import Ending, Exit, Refusal
from cexec.protocol.connection.options import READS, WRITES
from cexec.protocol.connection.session import OFFERED, OFFERING, OVER, RUNNING, Session
from tests.protocol.connection.sessions import client_in, exited, finish, refused, told, worker_in
from tests.protocol.wires import connected, hostile_bytes, job, running, start_job

# What crosses on the way


def test_what_the_client_sent_before_it_heard_of_the_exit_is_discarded() -> None:
    wire = running()
    wire.worker.session.end(1)
    wire.worker.session.end(2)
    wire.worker.session.exit(exited())
    wire.client.send_data(0, b"late")
    wire.client.session.end(0)
    wire.client.session.signal(15)
    wire.client.session.close_reader(1)
    wire.flow().raise_errors()
    assert wire.worker.events[-1] == (frames.GO, 0)
    assert len(wire.client.exits) == 1
    start_job(wire)
    assert finish(wire).exit_status == 0


def test_go_crosses_a_withdrawal() -> None:
    """The worker took it for a violation of the protocol."""
    wire = connected()
    wire.worker.session.confirm()
    wire.flow()
    wire.worker.session.withdraw("slot is gone")
    wire.client.session.go(job())
    wire.client.send_data(0, b"input")
    wire.client.session.end(0)
    wire.flow().raise_errors()
    assert wire.client.events == [(frames.CONFIRM, 0), (frames.WITHDRAW, 0)]
    assert (wire.worker.events, wire.worker.session.state, wire.client.session.state) == ([], OVER, OVER)


def test_input_crosses_a_refusal() -> None:
    wire = connected()
    wire.worker.session.confirm()
    wire.flow()
    wire.client.session.go(job())
    wire.flow()
    wire.worker.session.refuse(Refusal(frames.PERMANENT, "no"))
    wire.client.send_data(0, b"input")
    wire.client.session.signal(2)
    wire.flow().raise_errors()
    wire.client.session.release()
    wire.flow().raise_errors()
    assert wire.worker.events == [(frames.GO, 0), (frames.RELEASE, 0)]


@pytest.mark.parametrize("state", [OFFERING, OFFERED, RUNNING])
def test_a_client_cancels_at_any_time(state: str) -> None:
    worker = worker_in(state)
    assert [event.kind for event in told(worker, frames.CANCEL)] == [frames.CANCEL]
    assert worker.state == OVER


def test_after_it_has_cancelled_a_client_hears_no_more_of_the_job() -> None:
    wire = running()
    wire.worker.send_data(1, b"late")
    wire.worker.session.end(1)
    wire.worker.session.end(2)
    wire.worker.session.exit(exited())
    wire.client.session.cancel()
    wire.flow().raise_errors()
    assert wire.client.exits == [] and wire.client.output == {}
    assert wire.worker.events[-1] == (frames.CANCEL, 0)


def test_a_client_lets_go_after_an_exit() -> None:
    wire = running()
    with pytest.raises(ValueError, match="running"):
        wire.client.session.release()
    finish(wire)
    wire.worker.session.confirm()  # crosses it
    wire.client.session.release()
    wire.flow().raise_errors()
    assert wire.worker.events[-1] == (frames.RELEASE, 0)
    assert (wire.worker.session.state, wire.client.session.state) == (OVER, OVER)


def test_a_signal_reaches_a_running_job_only() -> None:
    assert [event.number for event in told(worker_in(RUNNING), frames.SIGNAL, b"\x0f")] == [15]
    for state in (OFFERING, OFFERED, OVER):
        assert told(worker_in(state), frames.SIGNAL, b"\x0f") == []


def test_a_client_sends_a_signal_while_its_job_runs() -> None:
    client = client_in(RUNNING)
    client.signal(15)
    assert client.data_to_send() == [frames.frame(frames.SIGNAL, b"\x0f")]
    for state in (OFFERING, OFFERED, OVER):
        with pytest.raises(ValueError, match="no place"):
            client_in(state).signal(15)


def test_a_window_size_reaches_a_running_job_only() -> None:
    (event,) = told(worker_in(RUNNING), frames.WINDOW, bytes([0, 24, 0, 80]))
    assert (event.number >> 16, event.number & 0xFFFF) == (24, 80)
    assert told(worker_in(OFFERED), frames.WINDOW, bytes(4)) == []


def test_a_client_tells_the_size_of_its_window_while_its_job_runs() -> None:
    client = client_in(RUNNING)
    client.window(24, 80)
    assert client.data_to_send() == [frames.frame(frames.WINDOW, bytes([0, 24, 0, 80]))]
    for state in (OFFERING, OFFERED, OVER):
        with pytest.raises(ValueError, match="no place"):
            client_in(state).window(24, 80)
    with pytest.raises(ValueError, match="no place"):
        worker_in(RUNNING).window(24, 80)


@pytest.mark.parametrize("body", [b"", b"\0\x18\0", b"\0\x18\0\x50\0"])
def test_a_window_size_of_another_length_is_refused(body: bytes) -> None:
    refused(worker_in(RUNNING), frames.WINDOW, body)


@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (24, 80), (4096, 4096), (4097, 65_535)])
def test_a_window_size_is_bounded(rows: int, columns: int) -> None:
    number = int.from_bytes(frames.window_body(rows, columns), "big")
    assert frames.parse_window(number) == (min(rows, frames.LARGEST_WINDOW), min(columns, frames.LARGEST_WINDOW))


@pytest.mark.parametrize("number", [b"\0", b"\x41", b"\xff", b"", b"\0\1"])
def test_an_impossible_signal_is_refused(number: bytes) -> None:
    refused(worker_in(RUNNING), frames.SIGNAL, number)


# Every frame in every state

BODIES = {
    frames.GO: job().encode(), frames.WITHDRAW: b"gone", frames.REFUSED: b"\1no", frames.SIGNAL: b"\1",
    frames.STARTED: bytes(1), frames.WINDOW: bytes(4), frames.EXIT: exited().encode(), frames.DATA: b"x",
    frames.END: bytes(8), frames.CLOSED: bytes(8), frames.BROKEN: b"eio", frames.CREDIT: bytes(4),
}  # fmt: skip
ALWAYS = {frames.PING, frames.PONG}
ON_OUTPUT = {frames.DATA, frames.END, frames.BROKEN}
MAKE: dict[str, Callable[[], Session]] = {
    "client offering": lambda: client_in(OFFERING),
    "client offered": lambda: client_in(OFFERED),
    "client waiting": lambda: client_in(RUNNING),
    "client started": lambda: client_in(RUNNING, started=True),
    "client over": lambda: client_in(OVER),
    "worker offering": lambda: worker_in(OFFERING),
    "worker offered": lambda: worker_in(OFFERED),
    "worker started": lambda: worker_in(RUNNING),
    "worker over": lambda: worker_in(OVER),
}
LETTING_GO = {frames.CANCEL, frames.RELEASE}
IGNORED = {frames.SIGNAL, frames.WINDOW}  # they may cross an exit
ALLOWED = {
    "client offering": {frames.CONFIRM},
    "client offered": {frames.WITHDRAW},
    "client waiting": {frames.PROGRAM, frames.STARTED, frames.REFUSED, frames.WITHDRAW},
    "client started": ON_OUTPUT | {frames.EXIT},
    "client over": set(frames.TYPES_OF_THE_FIRST_REVISION),
    "worker offering": LETTING_GO | IGNORED,
    "worker offered": LETTING_GO | IGNORED | {frames.GO},
    "worker started": IGNORED | {frames.CANCEL, frames.CLOSED, frames.CREDIT},
    "worker over": set(frames.TYPES_OF_THE_FIRST_REVISION),
}


@pytest.mark.parametrize("kind", frames.TYPES_OF_THE_FIRST_REVISION)
@pytest.mark.parametrize("name", MAKE)
def test_a_frame_is_taken_where_it_has_a_place_and_nowhere_else(name: str, kind: int) -> None:
    session = MAKE[name]()
    body = BODIES.get(kind, b"")
    if kind == frames.EXIT and name == "client started":
        told(session, frames.END, bytes(8), 1)
        told(session, frames.END, bytes(8), 2)
        endings = [Ending(n, WRITES, frames.ENDED, 0) for n in (1, 2)] + [Ending(0, READS, frames.READER_CLOSED, 0)]
        body = Exit(kind=frames.EXITED, status=0, endings=endings).encode()
    stream = 1 if kind in frames.OF_A_STREAM else 0
    if kind in ALLOWED[name] | ALWAYS:
        told(session, kind, body, stream)
    else:
        refused(session, kind, body, stream)


def test_every_stage_is_in_every_table() -> None:
    for table in (session_states.TRANSITIONS, session_states.FROM_WORKER, session_states.FROM_CLIENT):
        assert table.keys() == session_states.STATES.keys()
    after = {stage for stages in session_states.TRANSITIONS.values() for stage in stages}
    assert after == session_states.STATES.keys()  # each can be reached


def test_the_state_follows_the_stage() -> None:
    worker = worker_in(OFFERED)
    told(worker, frames.GO, job().encode())
    assert (worker.stage, worker.state) == (session_states.PREPARING, RUNNING)
    worker.ask_for_program("linux-x86_64")
    assert (worker.stage, worker.state) == (session_states.ASKING, RUNNING)
    worker.started()
    assert (worker.stage, worker.state) == (session_states.EXECUTING, RUNNING)
    told(worker, frames.CANCEL)
    assert (worker.stage, worker.state) == (OVER, OVER)


def test_output_before_the_program_has_started_is_refused() -> None:
    for kind in (frames.DATA, frames.END, frames.BROKEN):
        refused(client_in(RUNNING), kind, BODIES[kind], 1)


NO_STREAMS = Exit(kind=frames.EXITED, status=0, endings=[]).encode()


@pytest.mark.parametrize("asking", [False, True], ids=["preparing", "asking for the program"])
def test_an_exit_before_the_program_has_started_is_refused_even_if_all_streams_agree(asking: bool) -> None:
    """Regression: the only test of it sent endings that did not fit, so nothing showed that the state was checked."""
    client = client_in(OFFERED)
    client.go(job(streams=[]))
    if asking:
        told(client, frames.PROGRAM, b"linux-x86_64")
    refused(client, frames.EXIT, NO_STREAMS)
    assert client.next_event() is None


def test_an_exit_after_it_has_started_ends_the_same_job() -> None:
    client = client_in(OFFERED)
    client.go(job(streams=[]))
    told(client, frames.STARTED, bytes(1))
    assert [event.kind for event in told(client, frames.EXIT, NO_STREAMS)] == [frames.EXIT]


def test_an_exit_before_the_start_is_refused_though_nobody_reads_the_outputs_any_more() -> None:
    """A stream whose reader has gone is not compared, so the endings alone do not stand against it."""
    client = client_in(RUNNING)
    client.close_reader(1)
    client.close_reader(2)
    endings = [Ending(n, WRITES, frames.ENDED, 0) for n in (1, 2)] + [Ending(0, READS, frames.READER_CLOSED, 0)]
    refused(client, frames.EXIT, Exit(kind=frames.EXITED, status=0, endings=endings).encode())


@pytest.mark.parametrize(
    ("session", "kind", "what"),
    [
        (worker_in(OFFERED), frames.STARTED, "client sent a frame that has no place here"),
        (worker_in(OFFERING), frames.GO, "client sent a frame that has no place here"),
        (client_in(OFFERED), frames.GO, "worker sent a frame that has no place here"),
        (client_in(RUNNING), frames.SIGNAL, "worker sent a frame that has no place here"),
        (client_in(RUNNING), frames.DATA, "worker sent output before it had started the program"),
    ],
)
def test_the_message_says_who_was_wrong_and_how(session: Session, kind: int, what: str) -> None:
    with pytest.raises(ProtocolError, match=what):
        told(session, kind, BODIES[kind], 1 if kind in frames.OF_A_STREAM else 0)


def test_input_may_be_taken_before_the_program_has_started() -> None:
    client = client_in(RUNNING)
    told(client, frames.CREDIT, bytes(4), 0)
    assert [event.kind for event in told(client, frames.CLOSED, bytes(8), 0)] == [frames.CLOSED]


def test_a_worker_asks_for_a_program_once() -> None:
    client = client_in(RUNNING)
    assert [event.text for event in told(client, frames.PROGRAM, b"linux-x86_64", 0)] == ["linux-x86_64"]
    refused(client, frames.PROGRAM, b"linux-x86_64", 0)


@pytest.mark.parametrize("once", [True, False])
def test_a_worker_says_whether_the_job_may_ever_run_again(once: bool) -> None:
    worker, client = worker_in(OFFERED), client_in(RUNNING)
    told(worker, frames.GO, job().encode())
    worker.started(once=once)
    (frame,) = worker.data_to_send()
    client.receive_data(memoryview(frame), 0.0)
    event = client.next_event()
    assert event is not None and (event.kind, event.number) == (frames.STARTED, frames.ONCE if once else 0)


def test_stream_frames_have_a_direction() -> None:
    for kind in (frames.DATA, frames.END, frames.BROKEN):
        refused(client_in(RUNNING, started=True), kind, BODIES[kind], 0)  # the program's input
        refused(worker_in(RUNNING), kind, BODIES[kind], 1)
    for kind in (frames.CLOSED, frames.CREDIT):
        refused(client_in(RUNNING, started=True), kind, BODIES[kind], 1)
        refused(worker_in(RUNNING), kind, BODIES[kind], 0)


def test_an_unknown_stream_is_refused() -> None:
    for kind in frames.OF_A_STREAM:
        refused(worker_in(RUNNING), kind, BODIES[kind], 7)


@pytest.mark.parametrize(
    "call",
    [
        lambda s: s.confirm(), lambda s: s.withdraw("x"), lambda s: s.started(), lambda s: s.exit(exited()),
        lambda s: s.refuse(Refusal(1, "x")),
    ],
)  # fmt: skip
def test_a_client_cannot_make_the_workers_calls(call: Callable[[Session], None]) -> None:
    for make in (client_in, worker_in):
        with pytest.raises(ValueError, match="no place"):
            call(make(OVER))


@pytest.mark.parametrize(
    "call", [lambda s: s.go(job()), lambda s: s.cancel(), lambda s: s.release(), lambda s: s.signal(1)]
)
def test_a_worker_cannot_make_the_clients_calls(call: Callable[[Session], None]) -> None:
    with pytest.raises(ValueError, match="no place"):
        call(worker_in(RUNNING))


def test_a_program_is_started_or_refused_once() -> None:
    worker = worker_in(RUNNING)
    calls: list[Callable[[], object]] = [worker.started, lambda: worker.refuse(Refusal(1, "x"))]
    for call in calls:
        with pytest.raises(ValueError, match="no place"):
            call()


def test_a_go_that_is_too_long_changes_nothing() -> None:
    client = client_in(OFFERED)
    with pytest.raises(ValueError, match="at most"):
        client.go(job(arguments=[bytes(200_000)]))
    assert client.state == OFFERED and client.data_to_send() == []


# Failure


def test_failure_is_sticky() -> None:
    client = client_in(RUNNING, started=True)
    with pytest.raises(ProtocolError) as first:
        told(client, frames.GO)
    for call in (lambda: told(client, frames.PING), lambda: client.handle_timeout(1.0)):
        with pytest.raises(ProtocolError) as later:
            call()
        assert later.value is first.value


def refuses_everything(session: Session, failure: ProtocolError) -> None:
    with pytest.raises(ProtocolError) as later:
        session.receive_data(memoryview(frames.frame(frames.PING)), 1.0)
    assert later.value is failure


@given(st.sampled_from(sorted(MAKE)), st.lists(st.tuples(st.sampled_from(frames.TYPES), hostile_bytes), max_size=5))
def test_hostile_frames_are_protocol_errors(name: str, sequence: list[tuple[int, bytes]]) -> None:
    session = MAKE[name]()
    try:
        for kind, body in sequence:
            told(session, kind, body, 1 if kind in frames.OF_A_STREAM else 0)
    except ProtocolError as error:
        refuses_everything(session, error)
    else:
        assert session.stage in session_states.STATES


@given(st.sampled_from(sorted(MAKE)), st.lists(hostile_bytes, max_size=4))
def test_hostile_bytes_are_protocol_errors(name: str, sequence: list[bytes]) -> None:
    session = MAKE[name]()
    try:
        for data in sequence:
            session.receive_data(memoryview(data), 0.0)
    except ProtocolError as error:
        refuses_everything(session, error)
    else:
        assert session.stage in session_states.STATES
