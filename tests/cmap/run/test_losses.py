"""Lost workers: which task is to blame, and what runs alone until that is known."""

from __future__ import annotations

import pytest

from cexec.client.attempt.repetition import MAXIMUM_REFUSALS
from cexec.cmap.run.ending import AttemptEnding, How
from cexec.cmap.run.losses import ONE_LOSS, Losses
from cexec.cmap.run.policy import Policy
from cexec.cmap.run.retry import SUSPICIOUS, TaskRecord
from cexec.cmap.run.task_attempt import AttemptState, TaskAttempt
from tests.cmap.run.cluster import Cluster

SLOTS = 4
Ended = list[tuple[str, int, str]]


def lose(cluster: Cluster, *attempts: TaskAttempt) -> Ended:
    """The worker dies with all that runs there; its connections break one after the other."""
    found: Ended = []
    for attempt in attempts:
        found += cluster.end(attempt, How.LOST, reason="gone")
        cluster.scheduler.worker_left(attempt.worker)
        cluster.now += 0.01
    return found


def live(cluster: Cluster, poison: set[int]) -> tuple[Ended, list[list[int]]]:
    """Workers of SLOTS slots, each of which dies a second after a poison task has begun there, until all is over.

    Returns how the tasks ended, and those that ran beside each other.
    """
    ended: Ended = []
    together: list[list[int]] = []
    lives = 0
    while not cluster.scheduler.over:
        lives += 1
        assert lives < 100
        worker = f"life {lives}"
        cluster.scheduler.worker_joined(worker, SLOTS)
        dead = False
        while not dead and not cluster.scheduler.over:
            running = []
            while (attempt := cluster.offer(worker)) is not None:
                cluster.scheduler.began(attempt, cluster.now)
                running.append(attempt)
            together.append([attempt.task for attempt in running])
            cluster.now += 1.0
            dead = not poison.isdisjoint(together[-1])
            for attempt in () if dead else running:
                ended += cluster.end(attempt)
        ended += lose(cluster, *running) if dead else []
    return sorted(ended), together


def test_a_poison_task_fails_alone() -> None:
    """Regression: on one worker with four slots all four tasks failed."""
    cluster = Cluster(4, "")
    ended, together = live(cluster, {1})
    assert ended == [
        ("done", 2, ""), ("done", 3, ""), ("done", 4, ""),
        ("failed", 1, "gone; 5 workers were lost while it ran alone (--crash-limit)"),
    ]  # fmt: skip
    assert together[:SUSPICIOUS] == [[1, 2, 3, 4]] * SUSPICIOUS
    assert all(len(tasks) == 1 for tasks in together[SUSPICIOUS:])


def test_two_poison_tasks_fail_and_nothing_else() -> None:
    ended, _ = live(Cluster(12, "", crash_limit=2), {2, 7})
    assert [(what, task) for what, task, _ in ended if what == "failed"] == [("failed", 2), ("failed", 7)]
    assert len(ended) == 12


def test_poison_does_not_use_up_the_retries_of_others() -> None:
    cluster = Cluster(4, "", retries=2)
    ended, _ = live(cluster, {1})
    assert [task for what, task, _ in ended if what == "done"] == [2, 3, 4]


def test_a_worker_that_dies_once_by_itself_makes_no_suspects() -> None:
    cluster = Cluster(4, "ab", slots=SLOTS)
    assert lose(cluster, *[cluster.start("a") for _ in range(4)]) == []
    assert sorted(cluster.start("b").task for _ in range(4)) == [1, 2, 3, 4]


def test_a_loss_counts_for_a_task_that_ran_alone() -> None:
    cluster = Cluster(1, "a", slots=SLOTS, crash_limit=1)
    said = "gone; 1 worker was lost while it ran alone (--crash-limit)"
    assert lose(cluster, cluster.start("a")) == [("failed", 1, said)]


def test_a_task_is_not_alone_beside_one_that_still_runs_or_was_only_offered() -> None:
    cluster = Cluster(4, "ab", slots=2, crash_limit=1)
    first, second = cluster.start("a"), cluster.start("a")
    assert lose(cluster, first) == []
    assert cluster.end(second) == [("done", 2, "")]
    third, offered = cluster.start("b"), cluster.offer("b")
    assert offered is not None
    assert lose(cluster, third) == []


def test_tasks_that_were_lost_one_after_the_other_have_nothing_to_do_with_each_other() -> None:
    cluster = Cluster(2, "a", slots=2, crash_limit=1)
    for _ in range(2):
        cluster.scheduler.worker_joined("a", 2)
        assert [what for what, *_ in lose(cluster, cluster.start("a"))] == ["failed"]


@pytest.mark.parametrize(("pause", "how_many"), [(ONE_LOSS / 2, 0), (2 * ONE_LOSS, 1)])
def test_connections_of_one_worker_that_break_within_a_while_are_one_loss(pause: float, how_many: int) -> None:
    cluster = Cluster(2, "a", slots=2, crash_limit=1)
    first, second = cluster.start("a"), cluster.start("a")
    assert lose(cluster, first) == []
    cluster.now += pause
    assert len(lose(cluster, second)) == how_many


def test_what_had_not_begun_shares_a_loss_with_programs_that_ran_only() -> None:
    """A worker that begins nothing must not be asked for ever, as if others were to blame."""
    running, offered, other = (TaskAttempt(task, 1, "a", 0.0) for task in (1, 2, 3))
    running.move(AttemptState.RUNNING)
    losses = Losses()
    assert losses.add(running, [offered], 1.0, began=True)
    assert losses.add(offered, [], 1.1, began=False)
    losses = Losses()
    assert not losses.add(offered, [other], 1.0, began=False)
    assert not losses.add(other, [], 1.1, began=False)


def test_a_shared_loss_of_what_had_not_begun_counts_for_nothing() -> None:
    record = TaskRecord()
    for _ in range(2 * MAXIMUM_REFUSALS):
        record.note(TaskAttempt(1, 1, "a", 0.0), AttemptEnding(How.LOST, "gone"), began=False, shared=True)
        assert not record.has_failed(How.LOST, Policy(), halted=False)
    assert not record.suspect


def suspects(cluster: Cluster, number: int) -> None:
    """Makes suspects of the first tasks, which are lost together with workers that nobody sees again."""
    for life in range(SUSPICIOUS):
        cluster.scheduler.worker_joined(f"lost {life}", number)
        assert lose(cluster, *[cluster.start(f"lost {life}") for _ in range(number)]) == []


def test_a_suspect_has_a_worker_for_itself() -> None:
    cluster = Cluster(9, "", slots=3)
    suspects(cluster, 1)
    cluster.scheduler.worker_joined("a", 3)
    suspect = cluster.start("a")
    assert suspect.task == 1 and cluster.scheduler.reserved == 1
    assert cluster.offer("a") is None
    assert cluster.end(suspect) == [("done", 1, "")] and cluster.scheduler.reserved == 0
    assert [cluster.start("a").task for _ in range(3)] == [2, 3, 4]


def test_a_busy_worker_gets_no_suspect() -> None:
    cluster = Cluster(2, "", slots=3)
    suspects(cluster, 1)
    cluster.scheduler.worker_joined("a", 3)
    cluster.scheduler.worker_joined("b", 3)
    suspect, other = cluster.start("a"), cluster.start("b")
    assert (suspect.task, other.task) == (1, 2)
    lose(cluster, suspect)
    assert cluster.offer("b") is None  # which has another one
    cluster.end(other)
    assert cluster.start("b").task == 1


def test_suspects_run_one_at_a_time_while_other_tasks_wait_and_then_one_on_each_worker() -> None:
    cluster = Cluster(5, "", slots=2)
    suspects(cluster, 3)
    for worker in "abc":
        cluster.scheduler.worker_joined(worker, 2)
    assert [cluster.start(worker).task for worker in "abb"] == [1, 4, 5]
    assert cluster.start("c").task == 2  # nothing else waits now
    assert cluster.scheduler.reserved == 2


def test_a_suspect_has_no_competitor() -> None:
    cluster = Cluster(5, "", slots=1, speculate=1.5)
    suspects(cluster, 1)
    for worker in "abc":
        cluster.scheduler.worker_joined(worker, 1)
    suspect = cluster.start("a")
    for _ in range(4):
        cluster.run("b")
    cluster.now += 100.0
    assert cluster.offer("b") is None
    assert cluster.end(suspect) == [("done", 1, "")]


def test_a_worker_is_blamed_for_the_first_loss_of_a_task_only() -> None:
    cluster = Cluster(1, "ab")
    first = cluster.start("a")
    assert not cluster.scheduler.doubts(first)
    lose(cluster, first)
    assert cluster.scheduler.doubts(cluster.start("b"))


def test_a_run_that_halts_forgets_its_suspects() -> None:
    cluster = Cluster(4, "", slots=2)
    suspects(cluster, 2)
    assert cluster.scheduler.again == 2 and cluster.scheduler.wants_workers(cluster.now)
    cluster.scheduler.stop(end_running=False)
    assert cluster.scheduler.over and cluster.scheduler.again == 0
