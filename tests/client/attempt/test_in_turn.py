"""The attempts of a lease: which of them an event is about."""

from __future__ import annotations

from cexec.client.attempt.attempt import ENDED, GIVEN, WITHDRAWN, Attempt, Began, Ended
from cexec.client.attempt.in_turn import AttemptsInTurn
from cexec.errors import DisconnectedError
from cexec.protocol.connection import frames
from cexec.protocol.connection.frames import Exit
from cexec.protocol.connection.session import Event


def of_a_job() -> list[Event]:
    """What comes of a short job."""
    result = Exit(kind=frames.EXITED, status=0, endings=[])
    ends = [Event(frames.END, stream=1), Event(frames.END, stream=2)]
    return [Event(frames.STARTED), *ends, Event(frames.EXIT, exit=result), Event(frames.CONFIRM)]


def two() -> tuple[AttemptsInTurn, Attempt, Attempt]:
    attempts, first, second = AttemptsInTurn(), Attempt(once=False), Attempt(once=False)
    attempts.current, attempts.following = first, second
    return attempts, first, second


def kinds(attempt: Attempt) -> list[type]:
    return [type(event) for event in iter(attempt.next_event, None)]


def test_ends_of_outputs_are_left_out() -> None:
    attempts, first, second = two()
    attempts.receive(of_a_job())
    assert kinds(first) == [Began, Ended]
    assert (first.state, second.state, attempts.live) == (ENDED, GIVEN, second)


def test_what_comes_behind_the_beginning_of_the_next_job_is_about_that() -> None:
    attempts, first, second = two()
    attempts.receive([*of_a_job(), Event(frames.GO), *of_a_job()])
    assert kinds(first) == kinds(second) == [Began, Ended]
    assert (attempts.current, attempts.following, attempts.over) == (second, None, True)


def test_a_job_that_was_returned_does_not_wait_any_more() -> None:
    attempts, first, second = two()
    attempts.receive([Event(frames.RETURNED)])
    assert (first.state, second.state, attempts.live) == (GIVEN, WITHDRAWN, first)
    attempts.receive([Event(frames.RETURNED)])  # that of nobody
    assert attempts.live is first


def test_a_connection_that_fails_is_lost_for_both() -> None:
    attempts, first, second = two()
    assert not attempts.lost
    attempts.connection_failed(DisconnectedError("gone"))
    assert attempts.lost
    assert first.over and second.over
    attempts.drop(first)
    assert attempts.lost
