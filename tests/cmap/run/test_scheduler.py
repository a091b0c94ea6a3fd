"""Which task runs where and what becomes of it, with a clock of its own."""

from __future__ import annotations

import random

import pytest

from cexec.client.attempt.repetition import MAXIMUM_REFUSALS
from cexec.cmap.run.ending import AttemptEnding, How
from cexec.cmap.run.policy import Pace, Placement, Policy, TimeLimit, parse_halt
from cexec.cmap.run.scheduler import NOTHING_YET, OTHERS_ANSWER, Scheduler
from cexec.cmap.run.scheduler_events import Cancel
from cexec.cmap.run.task_attempt import TaskAttempt
from cexec.errors import UsageError
from tests.cmap.run.cluster import Cluster


def test_tasks_are_given_out_in_order_one_for_each_slot() -> None:
    cluster = Cluster(4, "ab", slots=1)
    first, second = cluster.start("a"), cluster.start("b")
    assert (first.task, second.task) == (1, 2)
    assert cluster.offer("a") is None
    assert cluster.end(first) == [("done", 1, "")]
    assert cluster.start("a").task == 3
    assert not cluster.scheduler.over


def test_a_worker_that_nobody_knows_gets_nothing() -> None:
    cluster = Cluster()
    assert cluster.offer("stranger") is None
    cluster.scheduler.worker_left("a")
    assert cluster.offer("a") is None


def test_it_is_over_when_everything_is_done() -> None:
    cluster = Cluster(2)
    assert cluster.scheduler.wants_workers(0.0)
    for _ in range(2):
        assert not cluster.scheduler.over
        cluster.run()
    assert cluster.scheduler.over
    assert not cluster.scheduler.wants_workers(cluster.now)
    assert cluster.offer("a") is None
    assert (cluster.scheduler.succeeded, cluster.scheduler.failed, cluster.scheduler.exit_status()) == (2, 0, 0)


def test_there_may_be_nothing_to_do() -> None:
    assert Cluster(0).scheduler.over


def test_tasks_are_taken_from_their_source_only_when_they_are_needed() -> None:
    taken = []

    def source() -> object:
        for number in range(1, 100):
            taken.append(number)
            yield number

    scheduler = Scheduler(Policy(), source(), None)  # type: ignore[arg-type]
    scheduler.worker_joined("a", 5)
    for _ in range(3):
        scheduler.next_task("a", 0.0)
    assert len(taken) == 4  # one is known before it is needed, to tell when there are no more


def test_the_slots_of_a_worker_are_bounded() -> None:
    cluster = Cluster(9, "a", slots=3, placement=Placement(2))
    cluster.start()
    cluster.start()
    assert cluster.offer("a") is None


# failures


def test_a_failed_task_is_tried_once_by_default() -> None:
    cluster = Cluster(2)
    attempt = cluster.start()
    assert cluster.end(attempt, How.FAILED, status=3, reason="exit status 3") == [("failed", 1, "exit status 3")]
    assert cluster.scheduler.exit_status() == 1


def test_a_failed_task_is_tried_again_where_it_has_not_failed() -> None:
    cluster = Cluster(1, "abc", retries=3)
    assert cluster.end(cluster.start("a"), How.FAILED, reason="x") == []
    assert cluster.offer("a") is None
    second = cluster.start("b")
    assert (second.task, second.number) == (1, 2)
    assert cluster.end(second, How.FAILED, reason="y") == []
    assert cluster.offer("b") is None
    assert cluster.end(cluster.start("c"), How.FAILED, reason="z") == [("failed", 1, "z")]
    assert cluster.scheduler.over


def test_when_it_has_failed_everywhere_it_is_tried_anywhere() -> None:
    cluster = Cluster(1, "ab", retries=4)
    cluster.end(cluster.start("a"), How.FAILED)
    cluster.end(cluster.start("b"), How.FAILED)
    cluster.let_others_answer()
    assert cluster.start("a").task == 1


def test_what_has_failed_on_the_first_worker_waits_until_others_have_answered() -> None:
    """Regression: the first worker, a broken one, had all tries of a task before the second one was known."""
    cluster = Cluster(1, "a", retries=2)
    cluster.end(cluster.start("a"), How.FAILED)
    assert cluster.offer("a") is None
    assert cluster.scheduler.next_timeout(cluster.now) == OTHERS_ANSWER
    assert cluster.scheduler.wants_workers(cluster.now) and cluster.scheduler.waits_for_others(cluster.now)
    cluster.scheduler.worker_joined("b", 1)
    assert cluster.start("b").task == 1


def test_what_has_failed_on_the_only_worker_is_tried_there_again_when_nobody_else_has_answered() -> None:
    cluster = Cluster(1, "a", retries=2)
    cluster.end(cluster.start("a"), How.FAILED)
    assert cluster.offer("a") is None
    cluster.let_others_answer()
    assert not cluster.scheduler.waits_for_others(cluster.now)
    cluster.end(cluster.start("a"))
    assert cluster.scheduler.over and cluster.scheduler.succeeded == 1


def test_when_the_others_have_left_it_is_tried_where_it_has_failed() -> None:
    cluster = Cluster(1, "ab", retries=3)
    cluster.end(cluster.start("a"), How.FAILED)
    assert cluster.offer("a") is None
    cluster.scheduler.worker_left("b")
    cluster.let_others_answer()
    assert cluster.start("a").task == 1


def test_a_worker_on_which_everything_fails_gets_new_tasks_meanwhile() -> None:
    cluster = Cluster(4, "ab", retries=2)
    for task in (1, 2, 3):
        attempt = cluster.start("a")
        assert attempt.task == task
        cluster.end(attempt, How.FAILED)
    assert [cluster.start("b").task] == [1]


def test_a_task_that_failed_is_tried_before_new_ones() -> None:
    cluster = Cluster(9, "ab", retries=2)
    cluster.end(cluster.start("a"), How.FAILED)
    assert cluster.start("b").task == 1


def test_many_failures_on_one_worker_do_not_slow_it_down() -> None:
    cluster = Cluster(20_000, "ab", retries=2)
    for _ in range(10_000):
        cluster.end(cluster.start("a"), How.FAILED)
    assert cluster.start("b").task == 1
    assert cluster.start("a").task == 10_001


def test_what_a_worker_could_not_have_is_looked_at_again_when_others_come_or_go() -> None:
    cluster = Cluster(2, "ab", retries=3)
    cluster.end(cluster.start("a"), How.FAILED)
    cluster.end(cluster.start("a"), How.FAILED)
    assert cluster.offer("a") is None
    cluster.scheduler.worker_left("b")
    cluster.let_others_answer()
    assert [cluster.start("a").task] == [1]
    cluster.scheduler.worker_joined("c", 2)
    assert [cluster.start("c").task] == [2]


def test_a_lost_worker_is_no_failure_of_the_task() -> None:
    cluster = Cluster(1, "abc")
    assert cluster.end(cluster.start("a"), How.LOST, reason="lost") == []
    assert cluster.offer("a") is None
    assert cluster.end(cluster.start("b")) == [("done", 1, "")]


def test_a_task_that_takes_its_workers_with_it_fails() -> None:
    cluster = Cluster(1, "abcdef", crash_limit=3)
    assert cluster.end(cluster.start("a"), How.LOST, reason="gone") == []
    assert cluster.end(cluster.start("b"), How.LOST, reason="gone") == []
    assert cluster.end(cluster.start("c"), How.LOST, reason="gone") == [
        ("failed", 1, "gone; 3 workers were lost while it ran alone (--crash-limit)")
    ]


def test_without_a_limit_any_number_of_workers_may_be_lost() -> None:
    cluster = Cluster(1, "a", crash_limit=0)
    for _ in range(50):
        assert cluster.end(cluster.start("a"), How.LOST) == []
        cluster.let_others_answer()
    assert cluster.end(cluster.start("a")) == [("done", 1, "")]


def test_a_worker_that_is_lost_before_the_task_began_is_not_its_fault() -> None:
    cluster = Cluster(1, "ab", crash_limit=1)
    for _ in range(MAXIMUM_REFUSALS - 1):
        attempt = cluster.offer("a") or cluster.offer("b")
        assert attempt is not None
        assert cluster.end(attempt, How.LOST, reason="lost") == []
        cluster.let_others_answer()
    attempt = cluster.offer("a") or cluster.offer("b")
    assert attempt is not None
    said = f"lost; {MAXIMUM_REFUSALS} workers did not begin it"
    assert cluster.end(attempt, How.LOST, reason="lost") == [("failed", 1, said)]


def test_a_refusal_goes_to_another_worker_and_one_for_good_ends_the_task() -> None:
    cluster = Cluster(2, "ab")
    attempt = cluster.offer("a")
    assert attempt is not None
    assert cluster.end(attempt, How.REFUSED, reason="no memory") == []
    second = cluster.offer("b")
    assert second is not None and second.task == 1
    assert cluster.end(second, How.REFUSED_FOR_GOOD, reason="no arguments here") == [("failed", 1, "no arguments here")]


def test_workers_that_can_run_no_task_at_all_are_no_refusals_of_this_one() -> None:
    cluster = Cluster(1, "abcdefgh")
    for worker in "abcdefg":
        attempt = cluster.offer(worker)
        assert attempt is not None
        assert cluster.end(attempt, How.UNFIT) == []
    assert cluster.start("h").task == 1


@pytest.mark.parametrize("how", [How.FAILED, How.LOST])
def test_what_a_service_with_once_has_begun_is_never_tried_again(how: How) -> None:
    cluster = Cluster(1, "ab", retries=5)
    attempt = cluster.start("a", once=True)
    said = "x; this service must not run a task twice (cservice --once)"
    assert cluster.end(attempt, how, reason="x") == [("failed", 1, said)]


def test_what_a_service_with_once_has_refused_may_be_tried_elsewhere() -> None:
    cluster = Cluster(1, "ab")
    attempt = cluster.offer("a")
    assert attempt is not None
    assert cluster.end(attempt, How.REFUSED) == []
    assert cluster.start("b").task == 1


# time limits


def test_a_task_that_takes_too_long_is_cancelled_and_has_failed() -> None:
    cluster = Cluster(2, "ab", timeout=TimeLimit(10.0))
    first = cluster.start("a")
    cluster.now = 4.0
    cluster.start("b")
    assert cluster.scheduler.next_timeout(cluster.now) == 10.0
    assert cluster.pass_time(5.9) == []
    assert cluster.pass_time(0.1) == [("cancel", 1, "ran into its time limit of 10 s")]
    assert cluster.pass_time(0.0) == []
    assert cluster.scheduler.next_timeout(cluster.now) == 14.0
    assert cluster.end(first, How.LOST) == [("failed", 1, "ran into its time limit of 10 s")]
    assert cluster.pass_time(4.0) == [("cancel", 2, "ran into its time limit of 10 s")]


def test_a_task_that_succeeds_while_it_is_cancelled_has_succeeded() -> None:
    cluster = Cluster(1, timeout=TimeLimit(10.0))
    attempt = cluster.start()
    cluster.pass_time(10.0)
    assert cluster.end(attempt) == [("done", 1, "")]


def test_a_time_limit_counts_as_a_failure_and_not_as_a_lost_worker() -> None:
    cluster = Cluster(1, "ab", timeout=TimeLimit(10.0), retries=2, crash_limit=1)
    attempt = cluster.start("a")
    cluster.pass_time(10.0)
    assert cluster.end(attempt, How.LOST) == []
    assert cluster.start("b").task == 1


def test_the_time_counts_from_the_beginning_of_the_program() -> None:
    cluster = Cluster(1, timeout=TimeLimit(10.0))
    attempt = cluster.offer("a")
    assert attempt is not None
    assert cluster.scheduler.next_timeout(0.0) is None
    assert cluster.pass_time(60.0) == []
    cluster.scheduler.began(attempt, cluster.now)
    assert cluster.pass_time(9.9) == []
    assert len(cluster.pass_time(0.1)) == 1


def test_a_limit_in_percent_of_the_median_waits_for_some_successes() -> None:
    cluster = Cluster(5, "ab", timeout=TimeLimit(fraction=2.0))
    slow = cluster.start("b")
    for seconds in (1.0, 3.0):
        cluster.run("a", seconds)
        assert cluster.pass_time(0.0) == []
    cluster.run("a", 2.0)
    assert cluster.pass_time(0.0) == [("cancel", slow.task, "ran into its time limit of 4 s")]


# stopping, pausing, pace


def test_halting_now_cancels_what_runs() -> None:
    cluster = Cluster(5, "ab", halt=parse_halt("now,fail=1"))
    first, second = cluster.start("a"), cluster.start("b")
    assert cluster.end(first, How.FAILED, status=7, reason="x") == [("failed", 1, "x"), ("cancel", 2, "halted")]
    assert cluster.offer("a") is None
    assert not cluster.scheduler.over
    assert cluster.end(second, How.LOST) == []
    assert cluster.scheduler.over
    assert (cluster.scheduler.succeeded, cluster.scheduler.failed, cluster.scheduler.exit_status()) == (0, 1, 7)


def test_halting_soon_waits_for_what_runs_and_begins_nothing() -> None:
    cluster = Cluster(5, "abc", retries=2, halt=parse_halt("soon,success=1"))
    first, second, third = (cluster.start(worker) for worker in "abc")
    assert cluster.end(first) == [("done", 1, "")]
    assert cluster.end(second, How.FAILED, reason="x") == [("failed", 2, "x")]
    assert cluster.end(third) == [("done", 3, "")]
    assert cluster.scheduler.over
    assert cluster.scheduler.exit_status() == 0


def test_a_task_that_may_be_tried_again_does_not_count_for_halting() -> None:
    cluster = Cluster(5, "ab", retries=2, halt=parse_halt("now,fail=1"))
    assert cluster.end(cluster.start("a"), How.FAILED) == []
    assert not cluster.scheduler.progress.halted


def test_halting_at_a_percentage() -> None:
    cluster = Cluster(6, "a", halt=parse_halt("soon,fail=30%"))
    for _ in range(2):
        cluster.end(cluster.start(), How.FAILED)
    assert cluster.scheduler.progress.halted
    assert cluster.scheduler.exit_status() == 34
    with pytest.raises(UsageError, match="--halt with a percentage needs the number of tasks"):
        Scheduler(Policy(halt=parse_halt("soon,fail=30%")), [1], None)


def test_pausing_begins_nothing_until_it_goes_on() -> None:
    cluster = Cluster(2, "ab")
    attempt = cluster.start("a")
    cluster.scheduler.pause(cluster.now)
    assert cluster.scheduler.progress.paused
    assert cluster.offer("b") is None
    assert not cluster.scheduler.wants_workers(0.0)
    assert cluster.end(attempt) == [("done", 1, "")]
    assert not cluster.scheduler.over
    cluster.scheduler.go_on()
    assert cluster.start("b").task == 2


def test_the_pace_of_starts() -> None:
    cluster = Cluster(5, "a", slots=5, pace=Pace(delay=2.0))
    cluster.start()
    assert cluster.offer("a") is None
    assert cluster.scheduler.next_timeout(cluster.now) == 2.0
    cluster.pass_time(2.0)
    assert cluster.start().task == 2


def test_everything_ends_once_whatever_happens() -> None:
    for seed in range(60):
        _random_history(random.Random(seed))


def _random_history(randomness: random.Random) -> None:
    tasks = randomness.randint(1, 12)
    cluster = Cluster(
        tasks,
        "abcd",
        slots=randomness.randint(1, 3),
        retries=randomness.randint(1, 3),
        crash_limit=randomness.randint(0, 3),
        speculate=randomness.choice([0.0, 1.5]),
        timeout=TimeLimit(randomness.choice([None, 5.0])),
    )
    running: list[TaskAttempt] = []
    settled: list[int] = []
    for _ in range(3000):
        cluster.now += randomness.random()
        if randomness.random() < 0.5:
            attempt = cluster.offer(randomness.choice("abcd"))
            if attempt is not None:
                running.append(attempt)
                if randomness.random() < 0.9:
                    cluster.scheduler.began(attempt, cluster.now)
        elif running:
            attempt = running.pop(randomness.randrange(len(running)))
            how = randomness.choice([How.SUCCEEDED, How.SUCCEEDED, How.FAILED, How.LOST, How.REFUSED])
            cluster.scheduler.ended(attempt, AttemptEnding(how, how.value), cluster.now)
        cluster.scheduler.handle_timeout(cluster.now)
        settled += [task for what, task, _ in cluster.events() if what != "cancel"]
        if cluster.scheduler.over:
            break
    assert cluster.scheduler.over
    assert sorted(settled) == list(range(1, tasks + 1))
    assert cluster.scheduler.succeeded + cluster.scheduler.failed == tasks
    assert not cluster.scheduler.running


def test_tasks_that_have_not_come_are_waited_for() -> None:
    numbers = iter((1, NOTHING_YET, NOTHING_YET, 2))
    scheduler = Scheduler(Policy(), numbers, None)
    scheduler.worker_joined("a", 2)
    first = scheduler.next_task("a", 0.0)
    assert first is not None
    scheduler.began(first, 0.0)
    scheduler.ended(first, AttemptEnding(How.SUCCEEDED), 1.0)
    assert scheduler.next_task("a", 1.0) is None
    assert not scheduler.wants_workers(1.0) and not scheduler.over
    scheduler.look_again()
    assert not scheduler.wants_workers(2.0)
    scheduler.look_again()
    assert scheduler.wants_workers(3.0)
    second = scheduler.next_task("a", 3.0)
    assert second is not None and second.task == 2
    assert scheduler.begun == 2


def test_the_user_ends_a_run() -> None:
    scheduler = Scheduler(Policy(), [1, 2, 3], 3)
    scheduler.worker_joined("a", 2)
    attempts = [scheduler.next_task("a", 0.0) for _ in range(2)]
    scheduler.stop(end_running=False)
    assert scheduler.next_event() is None
    assert not scheduler.wants_workers(0.0)
    scheduler.stop(end_running=True)
    for attempt in attempts:
        event = scheduler.next_event()
        assert attempt is not None and isinstance(event, Cancel) and event.attempt is attempt
        scheduler.ended(attempt, AttemptEnding(How.FAILED, "ended"), 1.0)
    assert scheduler.over and not scheduler.failed
