"""Tasks that wait at a worker behind the one that it runs: who gets them, and what becomes of them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cexec.client.aio.lease_job import LeaseJob
from cexec.client.aio.pacing import SHORT
from cexec.cmap.run.ending import AttemptEnding, How
from cexec.cmap.run.policy import Pace, parse_halt
from cexec.cmap.run.task_attempt import AttemptState, TaskAttempt
from cexec.errors import DisconnectedError
from cexec.protocol.connection.frames import Exit, Go
from tests.cmap.fakes import FakeLease, Workers, instantly
from tests.cmap.run.cluster import Cluster
from tests.cmap.run.test_coordinator import Run

BRIEF = SHORT / 2  # seconds that a task takes
LOST = How.LOST


@pytest.fixture(autouse=True)
def _directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def measured(tasks: int = 20, seconds: float = BRIEF, **rules: object) -> Cluster:
    """A cluster in which three tasks have succeeded, each after so many seconds."""
    cluster = Cluster(tasks, **rules)  # type: ignore[arg-type]
    for _ in range(3):
        cluster.run("a", seconds)
    return cluster


def ahead(cluster: Cluster, worker: str = "a") -> TaskAttempt | None:
    return cluster.scheduler.next_ahead(worker, cluster.now)


def waits(cluster: Cluster, worker: str = "a") -> TaskAttempt:
    attempt = ahead(cluster, worker)
    assert attempt is not None and attempt.waits
    return attempt


def lost(cluster: Cluster, attempt: TaskAttempt, *, waited: bool = False) -> None:
    cluster.scheduler.ended(attempt, AttemptEnding(LOST, "lost", waited=waited), cluster.now)


# the scheduler


def test_only_short_tasks_are_given_in_advance_and_only_when_that_is_known() -> None:
    assert ahead(Cluster(20)) is None
    assert ahead(measured(seconds=2 * SHORT)) is None
    cluster = measured()
    cluster.start("a")
    assert waits(cluster).task == 5


def test_a_task_that_waits_takes_no_room_until_its_turn_comes() -> None:
    cluster = measured()
    first = cluster.start("a")
    behind = waits(cluster)
    cluster.end(first)
    assert cluster.offer("a") is not None  # another lease, whose worker is free
    cluster.scheduler.turn_came(behind)
    assert cluster.offer("a") is None


def test_the_last_tasks_are_left_to_those_that_are_free_first() -> None:
    cluster = measured(6)
    first = cluster.start("a")  # the fourth; two are left
    behind = waits(cluster)
    assert behind.task == 5 and ahead(cluster) is None
    for attempt in (first, behind):
        cluster.end(attempt)
    assert cluster.offer("b") is not None


@pytest.mark.parametrize("rules", [{"pace": Pace(delay=0.1)}], ids=["delay"])
def test_nothing_is_given_in_advance_where_the_starts_are_counted(rules: dict[str, object]) -> None:
    cluster = Cluster(20, **rules)  # type: ignore[arg-type]
    for _ in range(3):
        cluster.now += 1.0
        cluster.run("a", BRIEF)
    cluster.now += 1.0
    cluster.start("a")
    assert ahead(cluster) is None


def test_nothing_is_given_in_advance_during_a_pause_or_to_a_worker_that_has_left() -> None:
    cluster = measured()
    cluster.start("a")
    cluster.scheduler.pause(cluster.now)
    assert ahead(cluster) is None
    cluster.scheduler.go_on()
    cluster.scheduler.worker_left("a")
    assert ahead(cluster) is None and waits(cluster, "b")


def test_a_task_under_which_a_worker_was_lost_does_not_wait_behind_another() -> None:
    cluster = measured(slots=2)
    poison = cluster.start("a")
    lost(cluster, poison)
    assert waits(cluster, "b").task != poison.task
    retried = cluster.offer("b")
    assert retried is not None and retried.task == poison.task


def test_a_loss_counts_for_the_task_that_ran_and_not_for_the_one_behind_it() -> None:
    cluster = measured(crash_limit=1, retries=1)
    first = cluster.start("a")
    behind = waits(cluster)
    lost(cluster, first)
    lost(cluster, behind, waited=True)
    assert cluster.events() == []  # neither has failed: the first loss may be shared
    again = [cluster.start("b"), cluster.offer("a")]
    assert {one.task for one in again if one is not None} == {first.task, behind.task}


def test_a_task_that_waits_for_ever_behind_lost_ones_has_not_failed() -> None:
    cluster = measured(40, crash_limit=1)
    for _ in range(8):
        cluster.start("b")
        behind = waits(cluster, "b")
        lost(cluster, behind, waited=True)
        cluster.scheduler.worker_joined("b", 20)
    assert not [event for event in cluster.events() if event[0] == "failed"]


def test_what_waits_is_taken_back_when_no_further_task_is_to_begin() -> None:
    cluster = measured(halt=parse_halt("soon,fail=1"))
    first = cluster.start("a")
    behind = waits(cluster)
    assert cluster.end(first, How.FAILED, reason="exited with 1") == [
        ("failed", first.task, "exited with 1"), ("cancel", behind.task, "halted before its turn"),
    ]  # fmt: skip
    assert behind.state is AttemptState.CANCELLED and not cluster.scheduler.over
    cluster.end(behind, How.WITHDRAWN)
    assert cluster.scheduler.over


# the coordinator


def in_advance(program: object = instantly, names: str = "a", slots: int = 2) -> Workers:
    workers = Workers(program, names, slots)  # type: ignore[arg-type]
    workers.gives_ahead = True
    return workers


def test_a_lease_runs_tasks_in_advance_each_once_and_all() -> None:
    workers = in_advance()
    run = Run(workers, 60)
    assert run() == 0
    assert sorted(run.outcomes) == list(range(1, 61)) and all(o.succeeded for o in run.outcomes.values())
    assert sum(lease.jobs for lease in workers.leases) == 60 and len(workers.leases) == 2
    assert sum(lease.given_ahead for lease in workers.leases) > 40
    assert {lease.ended for lease in workers.leases} == {"released"}


def test_a_task_whose_turn_does_not_come_runs_elsewhere_or_later() -> None:
    workers = in_advance()
    workers.turn_after = 5.0
    run = Run(workers, 12)
    assert run() == 0
    assert len(run.outcomes) == 12 and not any(lease.complaints for lease in workers.leases)
    assert How.WITHDRAWN in {how for _, how in run.ended_how}


def test_an_input_that_cannot_be_given_in_advance_waits_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LeaseJob, "whole_inputs", lambda job: None)
    workers = in_advance()
    run = Run(workers, 30)
    assert run() == 0 and len(run.outcomes) == 30
    assert {how for _, how in run.ended_how} == {How.SUCCEEDED}
    assert sum(lease.given_ahead for lease in workers.leases) == 0


@pytest.mark.parametrize("crash_limit", [1, 3])
def test_a_worker_that_is_lost_with_two_tasks_costs_neither_anything(crash_limit: int) -> None:
    struck: list[int] = []

    async def dies_once(lease: FakeLease, job: LeaseJob, go: Go) -> Exit:
        if not struck and lease.given_ahead:
            struck.append(lease.jobs)
            await asyncio.sleep(0.05)  # in the time of this test, which stands still while somebody can go on
            lease.over = True
            raise DisconnectedError("the connection has ended")
        return await instantly(lease, job, go)

    workers = in_advance(dies_once)
    run = Run(workers, 40, crash_limit=crash_limit)
    assert run() == 0
    assert struck and sorted(run.outcomes) == list(range(1, 41)) and all(o.succeeded for o in run.outcomes.values())
    assert [how for _, how in run.ended_how].count(LOST) == 2
    assert sum(len(lease.complaints) for lease in workers.leases) == 1
