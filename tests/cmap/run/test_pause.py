"""A run that is paused, goes on, and gets another weight: what begins, what is given back, and what does not end it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cexec.client.aio.lease_job import LeaseJob
from cexec.client.aio.pacing import IDLE_PATIENCE
from cexec.client.attempt.repetition import MAXIMUM_WITHDRAWALS
from cexec.cmap.run.coordinator import Coordinator
from cexec.cmap.run.ending import How
from cexec.cmap.run.lease_service import PERMANENT_PATIENCE
from cexec.cmap.run.observer import Counts
from cexec.cmap.run.policy import parse_halt
from cexec.cmap.run.task_attempt import AttemptState
from cexec.errors import RefusedError
from cexec.protocol.connection.frames import Exit, Go
from tests.cmap.fakes import BEGIN, FakeLease, Workers, clock, exited, instantly
from tests.cmap.run.test_ahead import measured, waits
from tests.cmap.run.test_coordinator import Between, Run

PAUSED_AT, PAUSE = 1.05, 60.0  # seconds of the run's clock


@pytest.fixture(autouse=True)
def _directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def pausing(also: Callable[[Run, Coordinator], None] = lambda run, coordinator: None) -> Between:
    """Pauses a run; `also` is called in the middle of the pause."""

    async def pause(run: Run, coordinator: Coordinator) -> None:
        await asyncio.sleep(PAUSED_AT)
        waiting = sum(lease.waiting for lease in run.workers.leases)
        coordinator.pause()
        assert sum(len(lease.taken_back) for lease in run.workers.leases) == waiting, "they are asked for at once"
        await asyncio.sleep(PAUSE / 2)
        also(run, coordinator)
        await asyncio.sleep(PAUSE / 2)
        coordinator.go_on()

    return pause


# the scheduler


def test_what_waits_in_advance_comes_back_and_is_given_out_again_once() -> None:
    cluster = measured()
    running, behind = cluster.start("a"), waits(cluster)
    cluster.scheduler.pause(cluster.now)
    assert cluster.events() == [("recall", behind.task, "")]
    assert cluster.end(behind, How.WITHDRAWN) == []
    assert cluster.scheduler.again == 1 and cluster.scheduler.running_tasks == [running.task]
    assert cluster.offer("b") is None and not cluster.scheduler.over
    cluster.scheduler.go_on()
    again = cluster.offer("b")
    assert again is not None and (again.task, again.number) == (behind.task, 2)


def test_what_has_begun_meanwhile_goes_on_during_the_pause() -> None:
    cluster = measured()
    first, behind = cluster.start("a"), waits(cluster)
    cluster.scheduler.pause(cluster.now)
    cluster.events()
    cluster.end(first)
    cluster.scheduler.turn_came(behind)
    cluster.scheduler.began(behind, cluster.now)
    assert behind.state is AttemptState.RUNNING and cluster.scheduler.running_tasks == [behind.task]
    assert cluster.end(behind) == [("done", behind.task, "")]


def test_any_number_of_pauses_costs_a_task_none_of_its_tries() -> None:
    cluster = measured()
    cluster.start("a")
    for _ in range(2 * MAXIMUM_WITHDRAWALS):
        behind = waits(cluster)
        cluster.scheduler.pause(cluster.now)
        cluster.events()
        assert cluster.end(behind, How.WITHDRAWN) == []
        cluster.scheduler.go_on()
    assert cluster.scheduler.failed == 0


def test_what_was_asked_for_is_cancelled_when_the_run_halts() -> None:
    cluster = measured(halt=parse_halt("soon,fail=1"))
    running, behind = cluster.start("a"), waits(cluster)
    cluster.scheduler.pause(cluster.now)
    cluster.events()
    assert cluster.end(running, How.FAILED, reason="x") == [
        ("failed", running.task, "x"), ("cancel", behind.task, "halted before its turn"),
    ]  # fmt: skip
    cluster.end(behind, How.WITHDRAWN)
    cluster.scheduler.go_on()
    assert cluster.scheduler.progress.halted and cluster.scheduler.over and not cluster.scheduler.again


# the coordinator


def test_leases_are_given_back_and_the_worker_is_not_taken_for_contended() -> None:
    held: list[int] = []
    workers = Workers(instantly)
    workers.gives_ahead = True
    run = Run(workers, 100)
    given_ahead: list[int] = []

    def look(run: Run, coordinator: Coordinator) -> None:
        held.append(sum(worker.taken for worker in workers.workers))
        given_ahead.append(len(coordinator.attempts.running))

    assert run(pausing(look)) == 0
    assert held == [0] and given_ahead == [0]
    assert sorted(run.outcomes) == list(range(1, 101)) and all(o.succeeded for o in run.outcomes.values())
    assert not [time for time, _ in run.begun if PAUSED_AT + 0.05 < time < PAUSED_AT + PAUSE]
    assert sum(lease.given_ahead for lease in workers.leases) > 10
    ended = [how for _, how in run.ended_how]
    assert ended.count(How.SUCCEEDED) == 100 and 0 < ended.count(How.WITHDRAWN) <= 4
    assert len(workers.leases) <= 10, "leases are kept as before, so nobody believes that others want the workers"


def test_a_task_that_could_not_be_given_in_advance_waits_here_and_does_not_begin() -> None:
    """It has its turn at us when the one before it ends; that may be during a pause."""

    class Never(FakeLease):
        def give_ahead(self, job: LeaseJob, attempt: int) -> bool:
            return False

    workers = Workers(instantly, "a", slots=1)
    workers.gives_ahead = True
    find = workers.find_worker

    async def never_ahead(terms: Any, choose: Callable[[Any, str], Go]) -> Any:
        lease = await find(terms, choose)
        lease.__class__ = Never
        return lease

    workers.find_worker = never_ahead  # type: ignore[method-assign]
    run = Run(workers, 20)
    assert run(pausing()) == 0
    assert not [time for time, _ in run.begun if PAUSED_AT + 0.05 < time < PAUSED_AT + PAUSE]
    assert len(run.outcomes) == 20


def test_an_idle_lease_is_given_back_when_its_worker_confirms() -> None:
    workers = Workers(instantly, "a", slots=1)
    workers.confirms_after = IDLE_PATIENCE / 2
    taken: list[int] = []
    run = Run(workers, 20)
    assert run(pausing(lambda run, coordinator: taken.append(workers.workers[0].taken))) == 0
    assert taken == [0] and {lease.ended for lease in workers.leases} == {"released"}


def test_a_pause_is_told_at_once_and_so_is_its_end() -> None:
    class Counting(Run):
        paused: list[tuple[float, bool]]

        def counted(self, counts: Counts, now: float) -> None:
            super().counted(counts, now)
            self.paused.append((now - BEGIN, counts.paused))

    run = Counting(Workers(instantly), 60)
    run.paused = []
    assert run(pausing()) == 0
    first = next(time for time, paused in run.paused if paused)
    last = next(time for time, paused in run.paused if time > first and not paused)
    assert first == pytest.approx(PAUSED_AT, abs=0.01) and last == pytest.approx(PAUSED_AT + PAUSE, abs=0.01)


def test_a_pause_in_which_no_worker_can_answer_is_no_reason_to_give_up() -> None:
    workers = Workers(instantly)

    def vanish(run: Run, coordinator: Coordinator) -> None:
        for worker in workers.workers:
            worker.answers = not worker.answers

    async def pause(run: Run, coordinator: Coordinator) -> None:
        await pausing(vanish)(run, coordinator)
        await asyncio.sleep(8.0)  # less than the accept timeout, which has begun anew
        vanish(run, coordinator)

    run = Run(workers, 60, accept_timeout=10.0)
    assert run(pause) == 0 and len(run.outcomes) == 60


def test_workers_that_do_not_fit_are_not_judged_during_a_pause() -> None:
    """Their number of seconds begins anew when the run goes on."""
    workers = Workers(instantly, "a", slots=1)

    async def refuse(lease: FakeLease, job: LeaseJob, go: Go) -> Exit:
        if clock() < BEGIN + PAUSED_AT + PAUSE and lease.hello.name == "a":
            raise RefusedError("takes no arguments", True)
        return await instantly(lease, job, go)

    workers.program, workers.begins = refuse, False

    async def pause(run: Run, coordinator: Coordinator) -> None:
        await asyncio.sleep(PERMANENT_PATIENCE / 2)
        coordinator.pause()
        await asyncio.sleep(PAUSE)
        coordinator.go_on()
        workers.workers += Workers(instantly, "b").workers

    run = Run(workers, 5)
    assert run(pause) == 0 and len(run.outcomes) == 5


def test_the_end_of_the_work_and_halt_end_a_run_that_is_paused() -> None:
    async def slow(lease: FakeLease, job: LeaseJob, go: Go) -> Exit:
        await asyncio.sleep(10.0)
        return exited(3)

    async def pause(run: Run, coordinator: Coordinator) -> None:
        await asyncio.sleep(PAUSED_AT)
        coordinator.pause()

    last = Run(Workers(slow), 4)  # as many as there are slots
    assert last(pause) == 4 and last.took < 12.0
    halted = Run(Workers(slow), 9, halt=parse_halt("soon,fail=1"))
    assert halted(pause) == 3 and halted.took < 12.0 and len(halted.outcomes) == 4


@pytest.mark.parametrize("twice", [False, True])
def test_the_user_can_end_a_run_that_is_paused(twice: bool) -> None:
    async def slow(lease: FakeLease, job: LeaseJob, go: Go) -> Exit:
        await asyncio.sleep(50.0)
        return exited()

    async def stop(run: Run, coordinator: Coordinator) -> None:
        await asyncio.sleep(PAUSED_AT)
        coordinator.pause()
        await asyncio.sleep(1.0)
        for _ in range(1 + twice):
            coordinator.stop(end_running=_ > 0)

    run = Run(Workers(slow), 9)
    assert run(stop) == 0
    assert (run.took < 5.0) is twice and len(run.outcomes) == (0 if twice else 4)


# the weight


def test_a_new_weight_is_announced_at_once_and_no_lease_keeps_the_old_one_for_more_than_two_tasks() -> None:
    workers = Workers(instantly)
    workers.gives_ahead = True
    weights: list[int] = []
    found_with: list[tuple[float, int]] = []  # when a search has found a worker, and with which weight
    jobs: dict[FakeLease, int] = {}
    find = workers.find_worker

    async def noting(terms: Any, choose: Callable[[Any, str], Go]) -> Any:
        weights.append(weight := terms.target.weight)
        lease = await find(terms, choose)
        found_with.append((clock() - BEGIN, weight))
        return lease

    workers.find_worker = noting  # type: ignore[method-assign]

    async def change(run: Run, coordinator: Coordinator) -> None:
        await asyncio.sleep(PAUSED_AT)
        jobs.update({lease: lease.jobs for lease in workers.leases})
        before = len(weights)
        coordinator.set_weight(7)
        assert coordinator.weight == 7
        await asyncio.sleep(1.0)
        assert set(weights[:before]) == {1} and set(weights[before:]) == {7}
        assert all(lease.ended == "released" and lease.jobs <= jobs[lease] + 2 for lease in jobs)
        after = len(weights)
        coordinator.set_weight(7)
        await asyncio.sleep(1.0)
        assert len(weights) <= after + 1, "the same weight changes nothing"

    run = Run(workers, 200)
    assert run(change) == 0 and len(jobs) == 4
    assert {weight for time, weight in found_with if time > PAUSED_AT} == {7}, "no search goes on with the old weight"
    assert len(run.outcomes) == 200 and [how for _, how in run.ended_how].count(How.SUCCEEDED) == 200
