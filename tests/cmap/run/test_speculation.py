"""A slow task that is started a second time, with a clock of its own, as the scheduler does it."""

from __future__ import annotations

import random
from typing import Any

from cexec.cmap.run.ending import AttemptEnding, How
from cexec.cmap.run.policy import Policy
from cexec.cmap.run.scheduler import Scheduler
from cexec.cmap.run.scheduler_events import Cancel
from cexec.cmap.run.task_attempt import TaskAttempt
from tests.cmap.run.cluster import Cluster


def speculating(**rules: Any) -> tuple[Cluster, TaskAttempt]:
    """Three tasks of 1 s are done, the fourth and last begins on b; a has nothing to do."""
    cluster = Cluster(4, "ab", speculate=2.0, **rules)
    for _ in range(3):
        cluster.run("a")
    return cluster, cluster.start("b")


def test_a_slow_last_task_is_tried_by_an_idle_worker_too() -> None:
    cluster, slow = speculating()
    assert cluster.offer("a") is None
    assert not cluster.scheduler.wants_workers(cluster.now)
    assert cluster.scheduler.next_timeout(cluster.now) == cluster.now + 2.0
    cluster.pass_time(2.01)
    assert cluster.scheduler.wants_workers(cluster.now)
    assert cluster.offer("b") is None
    second = cluster.start("a")
    assert (second.task, second.number) == (4, 2)
    assert not cluster.scheduler.wants_workers(cluster.now)
    assert cluster.end(second) == [("cancel", 4, "another attempt was faster"), ("done", 4, "")]
    assert not cluster.scheduler.over
    assert cluster.end(slow, How.LOST) == []
    assert cluster.scheduler.over
    assert (cluster.scheduler.succeeded, cluster.scheduler.failed) == (4, 0)


def test_the_first_attempt_may_still_win() -> None:
    cluster, slow = speculating()
    cluster.pass_time(2.01)
    second = cluster.start("a")
    assert cluster.end(slow) == [("cancel", 4, "another attempt was faster"), ("done", 4, "")]
    assert cluster.end(second) == []  # both may succeed: one result counts
    assert cluster.scheduler.succeeded == 4


def test_an_attempt_that_fails_leaves_the_task_to_the_other() -> None:
    cluster, slow = speculating()
    cluster.pass_time(2.01)
    second = cluster.start("a")
    assert cluster.end(second, How.FAILED, reason="x") == []
    assert cluster.offer("a") is None
    assert cluster.end(slow) == [("done", 4, "")]


def test_when_both_attempts_fail_the_task_has_failed_once() -> None:
    cluster, slow = speculating()
    cluster.pass_time(2.01)
    second = cluster.start("a")
    assert cluster.end(second, How.FAILED, reason="x") == []
    assert cluster.end(slow, How.LOST, reason="y") == [("failed", 4, "y")]
    assert cluster.scheduler.over


def test_there_are_never_three_attempts_at_once() -> None:
    cluster, _ = speculating()
    cluster.scheduler.worker_joined("c", 1)
    cluster.pass_time(2.01)
    cluster.start("a")
    cluster.pass_time(100.0)
    assert cluster.offer("c") is None


def test_no_speculation_while_tasks_wait_or_without_the_option() -> None:
    cluster = Cluster(6, "ab", speculate=2.0)
    slow = cluster.start("b")
    for _ in range(3):
        cluster.run("a")
    cluster.pass_time(100.0)
    assert cluster.start("a").task != slow.task
    plain = Cluster(1, "ab")
    plain.start("b")
    plain.pass_time(1000.0)
    assert plain.offer("a") is None


def test_no_speculation_with_a_service_that_is_once() -> None:
    cluster = Cluster(4, "ab", speculate=2.0)
    for _ in range(3):
        cluster.run("a")
    cluster.start("b", once=True)
    cluster.pass_time(100.0)
    assert cluster.offer("a") is None
    assert not cluster.scheduler.wants_workers(cluster.now)


def test_the_longest_running_task_is_tried_first() -> None:
    cluster = Cluster(5, "abc", speculate=2.0)
    for _ in range(3):
        cluster.run("a")
    first = cluster.start("b")
    cluster.now += 1.0
    cluster.start("c")
    cluster.pass_time(50.0)
    assert cluster.start("a").task == first.task


def makespan(slow_factor: float, speculate: float, workers: int, tasks: int) -> float:
    """Simulated seconds: equal tasks of 1 s, one of the workers slower."""
    names = [f"w{number}" for number in range(workers)]
    scheduler = Scheduler(Policy(speculate=speculate), range(1, tasks + 1), tasks)
    randomness = random.Random(1)
    for name in names:
        scheduler.worker_joined(name, 1)
    busy: dict[TaskAttempt, float] = {}
    now = 0.0
    while not scheduler.over:
        for name in names:
            attempt = scheduler.next_task(name, now)
            if attempt is not None:
                scheduler.began(attempt, now)
                busy[attempt] = now + randomness.uniform(0.9, 1.1) * (slow_factor if name == "w0" else 1.0)
        timeout = scheduler.next_timeout(now)
        now = min([*busy.values(), *([timeout] if timeout is not None else [])]) + 1e-9
        for attempt in [attempt for attempt, end in busy.items() if end <= now]:
            del busy[attempt]
            scheduler.ended(attempt, AttemptEnding(How.SUCCEEDED), now)
        while (event := scheduler.next_event()) is not None:
            if isinstance(event, Cancel):
                busy.pop(event.attempt, None)
                scheduler.ended(event.attempt, AttemptEnding(How.LOST), now)
    assert scheduler.succeeded == tasks
    return now


def test_a_host_ten_times_slower_costs_at_most_a_third_of_the_time_without_it() -> None:
    for workers, tasks in ((4, 40), (4, 100), (8, 80), (3, 30)):
        without = makespan(1.0, 0.0, workers - 1, tasks)
        assert makespan(10.0, 1.5, workers, tasks) <= 1.3 * without
        assert makespan(10.0, 0.0, workers, tasks) > makespan(10.0, 1.5, workers, tasks)
