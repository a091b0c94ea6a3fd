"""When a job whose attempt has failed may have another one, and what is said if not."""

from __future__ import annotations

import pytest

from cexec.client.attempt.repetition import MAXIMUM_REFUSALS, MAXIMUM_WITHDRAWALS, Repetitions
from cexec.errors import CexecError, DisconnectedError, RefusedError, SilentPeerError, WithdrawnError

WHO = "worker w at 10.0.0.1"


def lost(repetitions: Repetitions, *, once: bool = False, obstacle: str = "") -> tuple[str, CexecError | None]:
    return repetitions.lost(WHO, DisconnectedError("gone"), once=once, obstacle=lambda: obstacle)


def test_a_lost_job_is_repeated_so_often_and_no_more() -> None:
    repetitions = Repetitions(2)
    for _ in range(2):
        assert lost(repetitions) == (f"{WHO} failed: gone", None)
    reason, error = lost(repetitions)
    assert reason == f"{WHO} failed: gone"
    assert isinstance(error, DisconnectedError)
    assert str(error) == f"{WHO} failed: gone; not repeated, because 3 attempts are enough (--retries)"


@pytest.mark.parametrize(
    ("retries", "once", "obstacle", "said"),
    [
        (0, False, "", "--retries is 0"),
        (2, True, "", "this service must not run a job twice (cservice --once)"),
        (0, True, "half of it was read", "this service must not run a job twice (cservice --once)"),
        (2, False, "half of it was read", "half of it was read"),
    ],
)
def test_the_first_reason_against_a_repetition_is_said(retries: int, once: bool, obstacle: str, said: str) -> None:
    _, error = lost(Repetitions(retries), once=once, obstacle=obstacle)
    assert str(error) == f"{WHO} failed: gone; not repeated, because {said}"


def test_the_error_keeps_its_class() -> None:
    _, error = Repetitions(0).lost(WHO, SilentPeerError("silence"), once=False, obstacle=str)
    assert type(error) is SilentPeerError


def test_a_worker_that_refuses_costs_no_retry_but_few_may() -> None:
    repetitions = Repetitions(0)
    for _ in range(MAXIMUM_REFUSALS - 1):
        assert repetitions.refused(WHO, RefusedError("no room", False)) == (f"{WHO} refuses the job: no room", None)
    _, error = repetitions.refused(WHO, RefusedError("no room", False))
    assert isinstance(error, RefusedError)
    assert (str(error), error.permanent) == (f"{WHO} refuses the job: no room", False)


def test_a_refusal_that_every_worker_would_repeat_is_final() -> None:
    _, error = Repetitions(5).refused(WHO, RefusedError("no arguments", True))
    assert isinstance(error, RefusedError) and error.permanent


def test_offers_that_are_taken_back_are_nobodys_fault() -> None:
    repetitions = Repetitions(0)
    for _ in range(MAXIMUM_WITHDRAWALS - 1):
        assert repetitions.withdrawn(WHO, WithdrawnError("it stops"))[1] is None
    reason, error = repetitions.withdrawn(WHO, WithdrawnError("it stops"))
    assert isinstance(error, WithdrawnError)
    assert str(error) == reason == f"{WHO} has taken its offer back: it stops"
