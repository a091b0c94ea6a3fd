"""Complaints: which count, how long a worker rests for them, and whose word loses its weight."""

from __future__ import annotations

import pytest

from cexec.protocol.decisions.complaints import (
    COMPLAINT_DELAY,
    COMPLAINT_LIFETIME,
    DISBELIEF,
    DISBELIEF_LIFETIME,
    FIRST_REST,
    LONGEST_SLOWNESS,
    MAXIMUM_REMEMBERED,
    Complaints,
)
from cexec.protocol.decisions.rivals import LIFETIME, Rivals, RivalWord

LONGEST = LONGEST_SLOWNESS


class Record:
    """The complaints about one worker, which numbers its jobs."""

    def __init__(self) -> None:
        self.complaints = Complaints()
        self.rivals = Rivals()
        self._jobs = 0

    def take(self, client: bytes, now: float) -> bytes:
        self._jobs += 1
        job = b"%d" % self._jobs
        self.complaints.taken(job, client, now)
        return job

    def drop(self, client: bytes, now: float) -> bool:
        """A job that is lost at once, of which its client complains."""
        job = self.take(client, now)
        self.complaints.ended(job, now, succeeded=False)
        return self.complaints.complained(job, now)

    def succeed(self, client: bytes, now: float) -> None:
        job = self.take(client, now)
        self.complaints.ended(job, now, succeeded=True)
        self.complaints.acknowledged(job, now)

    def rest(self, now: float) -> float:
        """The seconds until a job is taken."""
        return max(0.0, self.complaints.held_until(self.rivals, longest=LONGEST) - now)

    def rest_from(self, client: bytes, now: float) -> float:
        return max(0.0, self.complaints.client_held_until(client, self.rivals, longest=LONGEST) - now)

    def healthy_rival(self, now: float) -> None:
        self.rivals.told(RivalWord(b"rival", job=b"", completed=True, clock=now, said_at=now), now)


def test_a_complaint_about_a_job_that_was_never_taken_counts_for_nothing() -> None:
    record = Record()
    assert not record.complaints.complained(b"invented", 0.0)
    assert record.complaints.slowness(0.0) == 0.0


def test_a_complaint_counts_once_for_a_job() -> None:
    """Regression: a recorded complaint could be sent again every 31 s."""
    record = Record()
    job = record.take(b"a", 0.0)
    assert record.complaints.complained(job, 0.0)
    for now in (0.1, 31.0, 62.0):
        assert not record.complaints.complained(job, now)


@pytest.mark.parametrize(
    ("after", "counts"), [(0.0, True), (COMPLAINT_LIFETIME, True), (COMPLAINT_LIFETIME + 1, False)]
)
def test_a_complaint_counts_for_a_minute_after_the_end_of_the_job(after: float, counts: bool) -> None:
    record = Record()
    job = record.take(b"a", 0.0)
    record.complaints.ended(job, 1000.0, succeeded=False)
    assert record.complaints.complained(job, 1000.0 + after) is counts


def test_a_complaint_counts_before_the_worker_knows_that_the_job_is_over() -> None:
    record = Record()
    assert record.complaints.complained(record.take(b"a", 0.0), 1000.0)


@pytest.mark.parametrize("acknowledged", [True, False])
def test_a_complaint_about_a_result_counts_unless_the_client_has_acknowledged_it(acknowledged: bool) -> None:
    record = Record()
    job = record.take(b"a", 0.0)
    record.complaints.ended(job, 1.0, succeeded=True)
    if acknowledged:
        record.complaints.acknowledged(job, 1.0)
    assert record.complaints.complained(job, 2.0) is not acknowledged


def test_after_one_moment_in_which_all_jobs_were_lost_a_worker_rests_for_a_second() -> None:
    """Regression: four jobs that were lost together made a rest of many seconds, on all workers alike."""
    record = Record()
    jobs = [record.take(b"%d" % client, 0.0) for client in range(8)]
    for job in jobs:
        record.complaints.ended(job, 10.0, succeeded=False)
        assert record.complaints.complained(job, 10.0)
    assert record.complaints.slowness(10.0) == LONGEST_SLOWNESS
    assert record.rest(10.0) == FIRST_REST


def test_a_try_that_fails_makes_the_next_rest_twice_as_long() -> None:
    record = Record()
    now, rests = 0.0, []
    for _ in range(5):
        record.drop(b"a", now)
        rests.append(max(record.rest(now), record.rest_from(b"a", now)))
        now += rests[-1]
    assert rests == pytest.approx([1.0, 2.0, 4.0, LONGEST_SLOWNESS, LONGEST_SLOWNESS], abs=0.01)


def test_beside_a_healthy_rival_a_worker_that_drops_everything_gets_one_job_in_a_long_time() -> None:
    record = Record()
    now, drops = 0.0, 0
    while now < 600.0:
        record.healthy_rival(now)
        record.drop(b"a", now)
        drops += 1
        record.healthy_rival(now)
        now += max(record.rest(now), record.rest_from(b"a", now))
    assert drops <= 16


def test_a_client_that_resets_its_own_jobs_and_complains_costs_others_little() -> None:
    """Regression: such a client could keep a worker from everybody's jobs for as long as it went on."""
    record = Record()
    now, jobs = 0.0, 0
    while now < 600.0:
        record.healthy_rival(now)
        record.drop(b"attacker", now)
        if record.rest(now):
            now += 0.5  # and it goes on meanwhile
        else:
            record.succeed(b"honest", now)
            jobs += 1
            now += 1.0
    assert jobs >= 550


def test_a_success_for_another_client_makes_a_complaint_count_for_less_until_ten_minutes_have_passed() -> None:
    record = Record()
    record.drop(b"a", 0.0)
    assert record.complaints.slowness(0.0) == COMPLAINT_DELAY
    record.succeed(b"b", 1.0)
    assert record.complaints.slowness(1.0) == 0.0
    record.drop(b"a", 2.0)
    assert record.complaints.slowness(2.0) == COMPLAINT_DELAY / DISBELIEF
    record.succeed(b"b", 3.0)
    record.drop(b"b", 4.0)  # whose word counts in full
    assert record.complaints.slowness(4.0) == COMPLAINT_DELAY
    record.succeed(b"a", 5.0)
    record.drop(b"a", 5.0 + DISBELIEF_LIFETIME)
    assert record.complaints.slowness(5.0 + DISBELIEF_LIFETIME) == COMPLAINT_DELAY


def test_a_success_for_the_client_that_complained_ends_it_and_leaves_its_word() -> None:
    record = Record()
    for now in range(3):
        record.drop(b"a", float(now))
        assert record.complaints.slowness(now) == COMPLAINT_DELAY
        record.succeed(b"a", float(now))
        assert record.complaints.slowness(now) == 0.0


def test_the_complaint_of_a_second_client_begins_a_rest_from_all_jobs() -> None:
    record = Record()
    record.healthy_rival(0.0)
    record.drop(b"a", 0.0)
    rested = record.rest(0.0)
    assert record.rest(rested) == 0.0
    record.healthy_rival(rested)
    record.drop(b"b", rested)
    assert record.rest(rested) > rested


def test_a_job_that_is_meant_for_this_worker_waits_for_one_rest_only() -> None:
    record = Record()
    record.healthy_rival(0.0)
    record.drop(b"a", 0.0)
    assert record.complaints.single_rest_until(b"a", longest=LONGEST) == COMPLAINT_DELAY
    assert record.complaints.single_rest_until(None, longest=LONGEST) == COMPLAINT_DELAY
    assert record.complaints.single_rest_until(b"b", longest=LONGEST) < 0.0


def test_memory_of_jobs_and_clients_is_bounded() -> None:
    record = Record()
    first = record.take(b"a", 0.0)
    for number in range(MAXIMUM_REMEMBERED):
        record.take(b"%d" % number, 0.0)
    assert not record.complaints.complained(first, 0.0)
    for number in range(2 * MAXIMUM_REMEMBERED):
        record.drop(b"client %d" % number, 0.0)
    record.succeed(b"b", 0.0)
    record.drop(b"client 0", 1.0)  # forgotten, so nothing is known against it
    assert record.complaints.slowness(1.0) == COMPLAINT_DELAY


# What the others think of this worker


def test_a_worker_that_has_told_of_a_success_rests_for_nobody_because_the_others_rest_for_its_sake() -> None:
    """Regression: idle workers rested for each other's sake for 25 s, when processes that had told of a success died
    before the client had let go."""
    record = Record()
    record.drop(b"a", 0.0)
    record.healthy_rival(0.0)
    assert record.rest(0.0) == 12 * COMPLAINT_DELAY
    job = record.take(b"b", 24.0)
    record.complaints.ended(job, 24.1, succeeded=True)
    assert record.rest(24.1) == pytest.approx(FIRST_REST, abs=0.2)
    assert record.complaints.slowness(24.1)  # the client may not have the result


@pytest.mark.parametrize("completed", [True, False])
def test_a_job_that_broke_off_ends_that_and_a_failure_of_the_program_does_not(completed: bool) -> None:
    record = Record()
    record.drop(b"a", 0.0)
    record.complaints.ended(record.take(b"b", 1.0), 1.1, succeeded=True)
    record.complaints.ended(record.take(b"b", 1.2), 1.2, completed=completed, succeeded=False)
    record.healthy_rival(1.2)
    assert (record.rest(1.2) < 2 * FIRST_REST) is completed


@pytest.mark.parametrize("ended", [True, False])
def test_a_complaint_ends_that_if_its_job_was_the_last_one_or_runs_still(ended: bool) -> None:
    """A worker whose results do not arrive tells of a success each time."""
    record = Record()
    record.complaints.ended(record.take(b"b", 0.0), 0.0, succeeded=True)
    job = record.take(b"a", 1.0)
    if ended:
        record.complaints.ended(job, 1.0, succeeded=True)
    assert record.complaints.complained(job, 1.0)
    record.healthy_rival(1.0)
    assert record.rest(1.0) > 2 * COMPLAINT_DELAY


def test_a_complaint_about_an_earlier_job_does_not_end_that() -> None:
    """The others do not count it either: it was said before the success."""
    record = Record()
    lost = record.take(b"a", 0.0)
    record.complaints.ended(lost, 1.0, completed=False, succeeded=False)
    record.complaints.ended(record.take(b"b", 0.5), 1.01, succeeded=True)
    assert record.complaints.complained(lost, 1.02)
    record.healthy_rival(1.02)
    assert record.rest(1.02) <= FIRST_REST


@pytest.mark.parametrize(("ago", "rests"), [(LIFETIME - 1, False), (LIFETIME + 1, True)])
def test_a_success_counts_as_long_as_the_others_count_it(ago: float, rests: bool) -> None:
    record = Record()
    record.complaints.ended(record.take(b"b", 1.0), 1.0, succeeded=True)
    lost = record.take(b"a", 0.5)
    record.complaints.ended(lost, 0.9, succeeded=False)
    assert record.complaints.complained(lost, 1.0)
    now = 1.0 + ago
    record.take(b"b", now)
    record.healthy_rival(now)
    assert (record.rest(now) > 2 * FIRST_REST) is rests
