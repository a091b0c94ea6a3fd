"""`cexec --all`: when jobs may begin, when the roll is closed, and what is said when nothing can be started."""

from __future__ import annotations

import pytest

from cexec.client.everywhere.roll_call import ABSENCE_PATIENCE, may_have_run
from cexec.errors import NoWorkerError
from cexec.protocol.datagrams import datagram
from cexec.protocol.datagrams.opened_announcement import open_announcement
from tests.client.everywhere.calling import START, Calling
from tests.protocol.census_workers import EXPIRED, KEYS, FakeWorker, key_with
from tests.protocol.wires import APPLICATION, hello_of


def fleet(count: int) -> list[FakeWorker]:
    return [FakeWorker(number) for number in range(count)]


def named(*names: str) -> list[FakeWorker]:
    return [FakeWorker(number, key_with(name, None)) for number, name in enumerate(names)]


# when jobs may begin


def test_jobs_may_begin_with_the_first_answer_and_the_roll_is_closed_when_the_census_is_over() -> None:
    calling = Calling(fleet(5))
    assert not calling.call.demands_met
    calling.until(1.0, lambda: calling.call.demands_met)
    assert len(calling.roll) == 1 and calling.now < START + 0.03 and not calling.call.closed
    calling.until(1.0, lambda: calling.call.closed)
    assert len(calling.roll) == 5 and START + 0.1 < calling.now < START + 0.2
    assert calling.call.next_timeout() == float("inf")


def test_jobs_begin_only_when_as_many_as_are_expected_have_answered() -> None:
    calling = Calling(fleet(5), expected=4)
    calling.turn()
    parsed = datagram.parse(calling.announcer.sent[0], KEYS)
    assert parsed is not None  # their answers are spread for so many
    assert open_announcement(APPLICATION.worker, parsed.inner).announcement.weight == 4
    calling.until(1.0, lambda: calling.call.demands_met)
    assert len(calling.roll) == 4
    calling.until(1.0, lambda: calling.call.closed)
    assert len(calling.roll) == 5


def test_jobs_begin_only_when_all_that_are_named_have_answered() -> None:
    workers = named("ann", "bob", "cid")
    calling = Calling(
        workers, wanted=["cid", "10.0.0.1"], lost=lambda round, worker: round == 1 and worker is workers[2]
    )
    calling.until(0.05)
    assert len(calling.roll) == 2 and not calling.call.demands_met
    calling.until(1.0, lambda: calling.call.demands_met)
    assert calling.roll[-1] == workers[2].address and not calling.call.closed


def test_a_worker_with_an_expired_certificate_does_not_count() -> None:
    calling = Calling([FakeWorker(1, EXPIRED), FakeWorker(2)], expected=2)
    calling.until(1.0, lambda: len(calling.roll) == 2)
    assert not calling.call.demands_met


def test_an_answer_that_was_lost_joins_in_a_later_round() -> None:
    workers = fleet(3)
    calling = Calling(workers, lost=lambda round, worker: round == 1 and worker is workers[1])
    calling.until(0.05)
    assert calling.call.demands_met and len(calling.roll) == 2 and not calling.call.closed
    calling.until(1.0, lambda: calling.call.closed)
    assert calling.roll[-1] == workers[1].address


def test_a_worker_that_was_started_after_the_first_jobs_does_not_join() -> None:
    """It may be one that has had the job, and was started again by it."""
    workers = [FakeWorker(0, uptime=60), FakeWorker(1, slow=1.5, uptime=0), FakeWorker(2, slow=1.5, uptime=1)]
    calling = Calling(workers)
    calling.until(1.0, lambda: calling.call.demands_met)
    calling.call.begin(calling.now)
    calling.until(0.05)
    calling.now = START + 1.6  # this process was stopped
    calling.until(3.0, lambda: calling.call.closed)
    assert calling.roll == [workers[0].address, workers[2].address]


def test_an_uptime_is_rounded_down() -> None:
    assert may_have_run(hello_of(APPLICATION.worker, uptime=2), START, START + 2.9)
    assert not may_have_run(hello_of(APPLICATION.worker, uptime=2), START, START + 3.0)


# a process that was stopped


def test_answers_that_came_while_the_process_was_stopped_are_heard_before_the_roll_is_closed() -> None:
    workers = fleet(3)
    calling = Calling(workers, lost=lambda round, worker: round == 1 and worker is not workers[0])
    calling.until(1.0, lambda: len(calling.announcer.sent) == 2)
    assert len(calling.roll) == 1 and len(calling.coming) == 2
    calling.now += 5.0
    calling.turn()
    assert len(calling.roll) == 3 and not calling.call.closed
    calling.until(9.0, lambda: calling.call.closed)
    assert len(calling.announcer.sent) > 2


# when nothing can be started


def failure(calling: Calling) -> str:
    with pytest.raises(NoWorkerError) as caught:
        calling.until(10.0)
    assert ABSENCE_PATIENCE <= calling.now - START < ABSENCE_PATIENCE + 1.0
    return str(caught.value)


def test_who_is_absent_is_named_after_some_censuses_in_which_the_known_need_not_answer() -> None:
    workers = named("bob", "ann")
    calling = Calling(workers, wanted=["ann", "eve", "bob", "10.0.0.9"])
    words = "absent: eve, 10.0.0.9 (present: ann, bob); nothing has been started"
    assert failure(calling) == words
    assert all(worker.rounds == [1] for worker in workers)
    assert len(calling.announcer.sent) > 5 and not calling.announcer.browses


def test_too_few_workers_are_told_and_those_that_cannot_be_used_are_not_counted() -> None:
    calling = Calling([*named("ann"), FakeWorker(7, EXPIRED)], expected=2)
    assert failure(calling) == "expected 2 workers, but 1 answered (present: ann); nothing has been started"


def test_a_worker_that_comes_in_the_meantime_is_found() -> None:
    calling = Calling(fleet(1), expected=2)
    calling.until(2.0)
    calling.workers.append(FakeWorker(1))
    calling.until(3.0, lambda: calling.call.demands_met)
    assert len(calling.roll) == 2


def test_multicast_dns_is_asked_when_a_census_was_in_vain() -> None:
    calling = Calling(fleet(1), expected=2, loopback=False)
    calling.until(0.1)
    assert not calling.announcer.browses
    calling.until(0.3)
    assert calling.announcer.browses
