"""The rivals for whose sake a slowed worker rests, and those for whose sake it does not."""

from __future__ import annotations

import pytest

from cexec.protocol.decisions.rivals import (
    CLAIM_LIFETIME,
    LIFETIME,
    MAXIMUM_REMEMBERED,
    YIELDING,
    YIELDING_TO_HEALTHY,
    Rivals,
    RivalWord,
)

REST, SHORTEST = 2.0, 1.0
CLOCK = 1_700_000_000_000.0  # of a rival, milliseconds


def word(
    rival: bytes = b"rival",
    at: float = 0.0,
    *,
    completed: bool = True,
    succeeded: bool = True,
    job: bytes = b"job",
    clock: float | None = None,
) -> RivalWord:
    clock = CLOCK + 1000 * at if clock is None else clock
    return RivalWord(rival, job=job, completed=completed, succeeded=succeeded, clock=clock, said_at=at)


def rest(rivals: Rivals, since: float = 0.0, seconds: float = REST) -> float:
    """The seconds that a rest takes."""
    return rivals.rest_until(since, shortest=SHORTEST, rest=seconds) - since


def test_rest_is_short_without_rivals_longer_after_a_claim_and_longest_beside_a_healthy_rival() -> None:
    rivals = Rivals()
    assert rest(rivals) == SHORTEST
    rivals.took_a_job(b"job", 0.0)
    assert rest(rivals) == CLAIM_LIFETIME
    assert rest(rivals, seconds=0.5) == YIELDING * 0.5
    rivals.told(word(), 0.0)
    assert rest(rivals) == YIELDING_TO_HEALTHY * REST
    assert rest(rivals, seconds=20.0) == LIFETIME


def test_a_rest_ends_when_the_last_healthy_rival_has_done_nothing_for_a_minute() -> None:
    rivals = Rivals()
    rivals.told(word(b"a", 0.0), 0.0)
    rivals.told(word(b"b", 10.0), 10.0)
    assert rest(rivals, since=55.0, seconds=5.0) == 15.0
    assert rest(rivals, since=LIFETIME + 10.0) == SHORTEST


def test_a_rival_that_abandons_a_job_is_no_reason_to_rest_until_it_completes_one() -> None:
    """Regression: after all connections were reset, every worker rested for the sake of rivals that rested, too."""
    rivals = Rivals()
    for rival in (b"a", b"b"):
        rivals.told(word(rival, 0.0), 0.0)
        rivals.told(word(rival, 1.0, completed=False), 1.0)
    assert rest(rivals, since=1.0) == SHORTEST
    rivals.told(word(b"b", 2.0), 2.0)
    assert rest(rivals, since=1.0) == YIELDING_TO_HEALTHY * REST


def test_a_rival_of_which_a_client_complains_is_no_reason_to_rest_until_it_completes_a_job() -> None:
    """Regression: of two workers that were complained about, each rested for the sake of the other."""
    rivals = Rivals()
    rivals.told(word(at=0.0), 0.0)
    rivals.took_a_job(b"lost", 1.0)
    rivals.blamed(b"rival", job=b"lost", said_at=1.5, now=1.5)
    assert rest(rivals, since=1.5) == SHORTEST
    rivals.told(word(at=2.0), 2.0)
    assert rest(rivals, since=1.5) == YIELDING_TO_HEALTHY * REST


def test_a_rival_with_trouble_is_no_reason_to_rest_before_a_job_of_it_succeeds() -> None:
    """Regression: a slowed rival, whose earlier job ended with an exit status that was not 0, was waited for."""
    rivals = Rivals()
    rivals.told(word(at=0.0, succeeded=False), 0.0)
    assert rest(rivals) == YIELDING_TO_HEALTHY * REST  # an exit status alone says nothing against it
    rivals.blamed(b"rival", job=b"lost", said_at=1.0, now=1.0)
    rivals.told(word(at=2.0, succeeded=False), 2.0)
    assert rest(rivals, since=2.0) == SHORTEST
    rivals.told(word(at=3.0), 3.0)
    assert rest(rivals, since=3.0) == YIELDING_TO_HEALTHY * REST


@pytest.mark.parametrize("said_at", [-1.0, 5.0 - LIFETIME, 5.0 + LIFETIME])
def test_a_complaint_about_a_rival_that_is_older_than_its_last_success_or_from_the_future_changes_nothing(
    said_at: float,
) -> None:
    rivals = Rivals()
    rivals.told(word(at=0.0), 0.0)
    rivals.blamed(b"rival", job=b"other", said_at=said_at, now=5.0)
    assert rest(rivals) == YIELDING_TO_HEALTHY * REST


def test_a_complaint_about_a_rival_leaves_the_claims_of_other_jobs() -> None:
    rivals = Rivals()
    rivals.took_a_job(b"job", 0.0)
    rivals.blamed(b"unknown", job=b"other", said_at=0.0, now=0.0)
    assert rest(rivals) == CLAIM_LIFETIME


def test_a_rival_that_has_left_is_no_reason_to_rest() -> None:
    rivals = Rivals()
    rivals.told(word(), 0.0)
    rivals.left(b"rival")
    rivals.left(b"stranger")
    assert rest(rivals) == SHORTEST


@pytest.mark.parametrize("completed", [True, False])
def test_a_claim_counts_until_its_worker_says_how_the_job_ended(completed: bool) -> None:
    rivals = Rivals()
    rivals.took_a_job(b"job", 0.0)
    rivals.took_a_job(b"other", 0.0)
    rivals.told(word(job=b"job", completed=completed), 0.5)
    rivals.left(b"rival")
    assert rest(rivals) == CLAIM_LIFETIME
    rivals.told(word(at=0.6, job=b"other", completed=completed), 0.6)
    rivals.left(b"rival")
    assert rest(rivals) == SHORTEST


@pytest.mark.parametrize("completed", [True, False])
def test_a_job_of_a_lease_ends_the_oldest_claim_because_that_named_another_job(completed: bool) -> None:
    """Regression: claims of leases whose jobs had succeeded made all workers rest for 5 s after each had lost a job."""
    rivals = Rivals()
    rivals.took_a_job(b"announced", 0.0)
    rivals.took_a_job(b"another", 1.0)
    rivals.told(word(at=1.1, job=b"of the lease", completed=completed), 1.1)
    rivals.left(b"rival")
    assert rest(rivals) == 1.0 + CLAIM_LIFETIME
    rivals.told(word(at=1.2, job=b"second of the lease", completed=completed), 1.2)
    rivals.left(b"rival")
    assert rest(rivals) == SHORTEST


def test_replayed_words_change_nothing() -> None:
    """Regression: two recorded alerts, replayed, made a worker rest."""
    rivals = Rivals()
    old, lost = word(at=0.0), word(at=1.0, completed=False)
    assert rivals.told(old, 0.0)
    assert rivals.told(lost, 1.0)
    assert not rivals.told(old, 2.0)
    assert rest(rivals, since=2.0) == SHORTEST
    fresh = Rivals()  # of a worker that has not heard them the first time
    assert not fresh.told(word(at=0.0), LIFETIME)
    assert rest(fresh, since=LIFETIME) == SHORTEST


def test_words_from_the_future_change_nothing() -> None:
    rivals = Rivals()
    assert not rivals.told(word(at=3600.0), 0.0)
    assert rivals.told(word(at=30.0), 0.0)  # a clock that is a little wrong
    assert rest(rivals, since=0.0, seconds=20.0) == LIFETIME


def test_memory_is_bounded() -> None:
    rivals = Rivals()
    for number in range(2 * MAXIMUM_REMEMBERED):
        rivals.told(word(b"%d" % number), 0.0)
        rivals.took_a_job(b"%d" % number, 0.0)
    for number in range(MAXIMUM_REMEMBERED):
        assert rivals.told(word(b"%d" % number, clock=0.0), 0.0)  # forgotten: so this is not older than another
    assert not rivals.told(word(b"%d" % (MAXIMUM_REMEMBERED - 1), clock=-1.0), 0.0)
