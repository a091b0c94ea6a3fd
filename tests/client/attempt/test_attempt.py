"""The meaning of session events, descriptors, the connection and time for an attempt: every event in every state."""

from __future__ import annotations

import errno
import itertools
from typing import TYPE_CHECKING

import pytest

from cexec.client.attempt import attempt as meaning
from cexec.client.attempt import rare_events
from cexec.client.attempt.attempt import ENDED, FAILED, GIVEN, LOST, REFUSED, RUNNING, TRANSITIONS, WITHDRAWN, Attempt
from cexec.errors import DisconnectedError, LocalError, ProtocolError, SilentPeerError, WithdrawnError
from cexec.net.pump import Trouble
from cexec.protocol.connection import frames
from cexec.protocol.connection.frames import Exit, Refusal
from cexec.protocol.connection.session import Event
from cexec.protocol.connection.silence import LONGEST_SILENCE, LOOK_INTERVAL

if TYPE_CHECKING:
    from cexec.client.attempt.attempt import AttemptEvent

STARTED = Event(frames.STARTED)
EXIT = Event(frames.EXIT, exit=Exit(kind=frames.EXITED, status=3, endings=[]))
REFUSAL = Event(frames.REFUSED, refusal=Refusal(frames.HERE, "no room"))
WITHDRAW = Event(frames.WITHDRAW, text="busy")
WANTED = Event(frames.WANTED)
BROKEN = Event(frames.BROKEN, stream=1, text="disk error")
FULL = Trouble(1, True, errno.ENOSPC)
UNREADABLE = Trouble(0, False, errno.EIO)

EVERYTHING: dict[str, tuple[Event | Trouble | Exception, str]] = {
    "started": (STARTED, RUNNING),
    "exit": (EXIT, ENDED),
    "refused": (REFUSAL, REFUSED),
    "withdraw": (WITHDRAW, WITHDRAWN),
    "broken": (BROKEN, LOST),
    "connection": (DisconnectedError("gone"), LOST),
    "violation": (ProtocolError("nonsense"), LOST),
    "full": (FULL, FAILED),
    "unreadable": (UNREADABLE, FAILED),
    "ours": (LocalError("cannot write x"), FAILED),
}
WAYS: dict[str, list[str]] = {
    GIVEN: [],
    RUNNING: ["started"],
    ENDED: ["started", "exit"],
    REFUSED: ["refused"],
    WITHDRAWN: ["withdraw"],
    LOST: ["started", "connection"],
    FAILED: ["started", "full"],
}


def tell(attempt: Attempt, name: str) -> list[AttemptEvent]:
    what = EVERYTHING[name][0]
    if isinstance(what, ProtocolError | DisconnectedError | LocalError):
        attempt.connection_failed(what)
    else:
        assert isinstance(what, Event | Trouble)
        attempt.receive([what])
    return drain(attempt)


def drain(attempt: Attempt) -> list[AttemptEvent]:
    found = []
    while (event := attempt.next_event()) is not None:
        found.append(event)
    return found


def reached(state: str) -> Attempt:
    attempt = Attempt(once=False)
    for name in WAYS[state]:
        tell(attempt, name)
    assert attempt.state == state
    return attempt


@pytest.mark.parametrize(("state", "name"), list(itertools.product(TRANSITIONS, EVERYTHING)))
def test_every_event_in_every_state(state: str, name: str) -> None:
    """An event either moves along the table and is reported once, or is ignored."""
    attempt = reached(state)
    target = EVERYTHING[name][1]
    if state in (GIVEN, RUNNING) and target not in TRANSITIONS[state]:
        with pytest.raises(ValueError, match=f"is {state} cannot become {target}"):
            tell(attempt, name)  # the session lets no such event pass
        return
    events = tell(attempt, name)
    if target in TRANSITIONS[state]:
        assert (attempt.state, len(events)) == (target, 1)
    else:
        assert (attempt.state, events) == (state, [])


def test_the_table_names_every_state_and_ends_lead_nowhere_else() -> None:
    assert set(itertools.chain.from_iterable(TRANSITIONS.values())) <= set(TRANSITIONS)
    assert [state for state, following in TRANSITIONS.items() if not following] == [REFUSED, WITHDRAWN, LOST, FAILED]
    assert TRANSITIONS[ENDED] == (FAILED,)


def test_a_slot_that_is_wanted_changes_nothing_and_is_told() -> None:
    attempt = reached(RUNNING)
    attempt.receive([WANTED])
    (event,) = drain(attempt)
    assert isinstance(event, rare_events.SlotWanted)
    assert (attempt.state, attempt.over) == (RUNNING, False)
    assert [type(one) for one in tell(attempt, "exit")] == [meaning.Ended]


@pytest.mark.parametrize("state", [ENDED, REFUSED, WITHDRAWN, LOST, FAILED])
def test_a_job_that_is_over_hears_no_more_that_its_slot_is_wanted(state: str) -> None:
    attempt = reached(state)
    attempt.receive([WANTED])
    assert drain(attempt) == []


@pytest.mark.parametrize("following", [name for name in EVERYTHING if EVERYTHING[name][1] != FAILED])
def test_a_complete_result_stays_one_whatever_follows_in_the_same_batch(following: str) -> None:
    attempt = reached(RUNNING)
    what = EVERYTHING[following][0]
    attempt.receive([EXIT] if isinstance(what, Exception) else [EXIT, what])
    if isinstance(what, ProtocolError | DisconnectedError):
        attempt.connection_failed(what)
    (event,) = drain(attempt)
    assert isinstance(event, meaning.Ended)
    assert (event.exit.status, attempt.state) == (3, ENDED)


def test_output_that_cannot_be_written_after_the_exit_is_a_failure_of_ours() -> None:
    """N1: every byte that the exit frame counts has been written here."""
    attempt = reached(ENDED)
    (event,) = tell(attempt, "full")
    assert isinstance(event, rare_events.FailedHere)
    assert (event.stream, event.writing, event.reason) == (1, True, "no space left on device")


@pytest.mark.parametrize("number", [errno.EPIPE, errno.ECONNRESET])
def test_a_reader_that_has_gone_is_no_failure(number: int) -> None:
    attempt = Attempt(once=False, piped=[1])
    tell(attempt, "started")
    attempt.receive([Trouble(1, True, number)])
    assert (drain(attempt), attempt.state) == ([], RUNNING)
    attempt.receive([Trouble(0, False, number)])  # an input that is reset is one
    assert attempt.state == FAILED


@pytest.mark.parametrize("number", [errno.EPIPE, errno.ECONNRESET])
@pytest.mark.parametrize("stream", [1, frames.FIRST_FILE])
def test_a_file_has_no_reader_that_could_have_gone(number: int, stream: int) -> None:
    """Regression: a file system that reported a broken pipe cut a result short, and the job succeeded."""
    attempt = Attempt(once=False, piped=[2])
    tell(attempt, "started")
    attempt.receive([Trouble(stream, True, number)])
    (event,) = drain(attempt)
    assert isinstance(event, rare_events.FailedHere)
    assert attempt.state == FAILED


def test_what_a_job_asks_for_and_says_on_the_way() -> None:
    attempt = Attempt(once=False)
    attempt.receive([Event(frames.PROGRAM, text="linux-x86_64")])
    (asked,) = drain(attempt)
    assert isinstance(asked, rare_events.ProgramAsked)
    assert asked.platform == "linux-x86_64"
    attempt.receive([STARTED, Event(frames.BROKEN, stream=frames.FIRST_FILE, text="no such file")])
    began, missing = drain(attempt)
    assert isinstance(began, meaning.Began)
    assert isinstance(missing, rare_events.FileMissing)
    assert (missing.stream, missing.reason, attempt.state) == (frames.FIRST_FILE, "no such file", RUNNING)


def test_the_end_of_an_output_is_told_also_after_the_exit() -> None:
    """Pending bytes of a slow reader are written only then."""
    attempt = reached(ENDED)
    attempt.receive([Event(frames.END, stream=1)])
    (ended,) = drain(attempt)
    assert isinstance(ended, meaning.OutputEnded)
    assert ended.stream == 1


@pytest.mark.parametrize(("hello", "flag", "once"), [(False, 0, False), (True, 0, True), (False, frames.ONCE, True)])
def test_once_is_known_from_the_hello_or_from_started(hello: bool, flag: int, once: bool) -> None:
    attempt = Attempt(once=hello)
    assert attempt.once == hello  # before STARTED only the hello can tell
    attempt.receive([Event(frames.STARTED, number=flag)])
    assert attempt.once == once


def test_refusals_are_told_with_their_kind() -> None:
    never = Event(frames.REFUSED, refusal=Refusal(frames.PERMANENT, "never"))
    for event, permanent in ((never, True), (REFUSAL, False)):
        attempt = Attempt(once=False)
        attempt.receive([event])
        (refused,) = drain(attempt)
        assert isinstance(refused, rare_events.Refused)
        assert refused.error.permanent == permanent


def test_a_withdrawal_is_no_refusal() -> None:
    """Regression: the drivers could not tell them apart, and complained about a worker whose offer had expired."""
    attempt = Attempt(once=False)
    attempt.receive([WITHDRAW])
    (withdrawn,) = drain(attempt)
    assert isinstance(withdrawn, rare_events.Withdrawn)
    assert isinstance(withdrawn.error, WithdrawnError)
    assert str(withdrawn.error) == "busy"


def test_what_is_broken_has_its_name() -> None:
    attempt = reached(RUNNING)
    (lost,) = tell(attempt, "broken")
    assert isinstance(lost, rare_events.Lost)
    assert str(lost.error) == "lost standard output of the program: disk error"


# the worker's machine


def looks(attempt: Attempt, until: float, outstanding: bool, acknowledged: float) -> list[float]:
    """Returns the times at which the attempt wants the kernel to be asked, until it is over."""
    found = []
    while not attempt.over and (due := attempt.next_timeout()) is not None and due <= until:
        assert attempt.stepped(due)
        found.append(due)
        attempt.looked(outstanding, due - acknowledged, due)
    return found


def test_a_machine_that_acknowledges_nothing_is_lost_after_fifteen_seconds() -> None:
    attempt = reached(RUNNING)
    attempt.stepped(100.0)
    times = looks(attempt, 1000.0, outstanding=True, acknowledged=100.0)
    (lost,) = drain(attempt)
    assert isinstance(lost, rare_events.Lost)
    assert isinstance(lost.error, SilentPeerError)
    assert LONGEST_SILENCE <= times[-1] - 100.0 <= LONGEST_SILENCE + LOOK_INTERVAL


def test_a_silent_worker_whose_machine_answers_is_not_given_up() -> None:
    attempt = reached(RUNNING)
    now = 100.0
    for _ in range(200):
        attempt.stepped(now)
        assert looks(attempt, now + LOOK_INTERVAL, outstanding=True, acknowledged=now + LOOK_INTERVAL - 0.1)
        now += LOOK_INTERVAL
    assert (attempt.state, drain(attempt)) == (RUNNING, [])


def test_an_idle_connection_costs_one_look() -> None:
    attempt = reached(RUNNING)
    assert attempt.next_timeout() is None
    attempt.stepped(100.0)
    assert looks(attempt, 1000.0, outstanding=False, acknowledged=0.0) == [100.0 + LOOK_INTERVAL]
    assert attempt.next_timeout() is None
