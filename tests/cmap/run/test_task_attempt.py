"""The states of an attempt, how it ended, and whether its task is tried again."""

from __future__ import annotations

from itertools import product

import pytest

from cexec.client.attempt.repetition import MAXIMUM_REFUSALS
from cexec.cmap.results.outcome import ENDED_BY_US
from cexec.cmap.run.ending import AttemptEnding, How
from cexec.cmap.run.policy import Policy
from cexec.cmap.run.retry import RetryQueue, TaskRecord
from cexec.cmap.run.task_attempt import TRANSITIONS, AttemptState, TaskAttempt
from cexec.protocol.connection import frames
from cexec.protocol.connection.frames import EXITED, LIMITED, SIGNALLED, Exit
from cexec.protocol.connection.options import READS, WRITES

PATHS = {
    AttemptState.OFFERED: [],
    AttemptState.RECALLED: [AttemptState.RECALLED],
    AttemptState.RUNNING: [AttemptState.RUNNING],
    AttemptState.RETURNED: [AttemptState.RUNNING, AttemptState.RETURNED],
    AttemptState.TIMED_OUT: [AttemptState.RUNNING, AttemptState.TIMED_OUT],
    AttemptState.CANCELLED: [AttemptState.CANCELLED],
    AttemptState.ENDED: [AttemptState.ENDED],
}


def attempt_in(state: AttemptState) -> TaskAttempt:
    attempt = TaskAttempt(1, 1, "a", 0.0)
    for step in PATHS[state]:
        attempt.move(step, "too long" if step in (AttemptState.TIMED_OUT, AttemptState.CANCELLED) else "")
    return attempt


@pytest.mark.parametrize(("before", "after"), list(product(AttemptState, AttemptState)))
def test_only_the_moves_of_the_table_are_possible(before: AttemptState, after: AttemptState) -> None:
    attempt = attempt_in(before)
    if after in TRANSITIONS[before]:
        attempt.move(after)
        assert attempt.state is after
    else:
        with pytest.raises(AssertionError, match=rf"that is {before.value} cannot become {after.value}"):
            attempt.move(after)
        assert attempt.state is before


@pytest.mark.parametrize("how", list(How))
def test_how_an_attempt_ended_depends_on_why_it_was_ended(how: How) -> None:
    ending = AttemptEnding(how, "gone", status=143, exitval=0, signal=15)
    assert attempt_in(AttemptState.OFFERED).final(ending) == attempt_in(AttemptState.RUNNING).final(ending) == ending
    late, unwanted = attempt_in(AttemptState.TIMED_OUT).final(ending), attempt_in(AttemptState.CANCELLED).final(ending)
    if how is How.SUCCEEDED:
        assert late == unwanted == ending
    else:
        assert (late.how, late.reason, late.exitval, late.signal) == (How.FAILED, "too long", ENDED_BY_US, 0)
        assert (unwanted.how, unwanted.reason) == (How.CANCELLED, "too long")


@pytest.mark.parametrize(
    ("kind", "status", "message", "how", "reason", "exitval", "signal"),
    [
        (EXITED, 0, "", How.SUCCEEDED, "", 0, 0),
        (EXITED, 3, "", How.FAILED, "exited with 3", 3, 0),
        (EXITED, 127, "not found", How.FAILED, "exited with 127: not found", 127, 0),
        (SIGNALLED, 9, "", How.FAILED, "died of signal 9", 0, 9),
        (LIMITED, 9, "1 GiB", How.FAILED, "ran into a limit: 1 GiB", 137, 0),
    ],
)  # fmt: skip
def test_an_exit_frame_says_how_an_attempt_ended(
    kind: int, status: int, message: str, how: How, reason: str, exitval: int, signal: int
) -> None:
    endings = [
        frames.Ending(number, direction, 0, count)
        for number, direction, count in ((0, READS, 5), (1, WRITES, 7), (2, WRITES, 1))
    ]
    ending = AttemptEnding.of_exit(Exit(kind=kind, status=status, endings=endings, message=message), {})
    assert (ending.how, ending.reason, ending.exitval, ending.signal) == (how, reason, exitval, signal)
    assert (ending.sent, ending.received, ending.rejected) == (5, 8, False)


def test_a_file_that_did_not_come_makes_a_failure_of_a_success_only() -> None:
    missing = {"picture": "no such file"}
    ending = AttemptEnding.of_exit(Exit(kind=EXITED, status=0, endings=[]), missing)
    assert (ending.how, ending.reason) == (How.FAILED, "cannot fetch picture: no such file")
    assert (ending.rejected, ending.exitval, ending.failure_status) == (True, 1, 1)
    failed = AttemptEnding.of_exit(Exit(kind=EXITED, status=3, endings=[]), missing)
    assert (failed.reason, failed.rejected, failed.failure_status) == ("exited with 3", False, 3)
    assert AttemptEnding(How.LOST).failure_status == 1


# another try


def tried(*hows: How, policy: Policy, began: bool = True, once: bool = False) -> tuple[bool, str]:
    """Whether a task has failed after these attempts, each on another worker, and why."""
    record = TaskRecord()
    record.once = once
    failed = False
    for number, how in enumerate(hows):
        assert not failed
        record.note(TaskAttempt(1, number, f"w{number}", 0.0), AttemptEnding(how, "x"), began=began)
        failed = record.has_failed(how, policy, halted=False)
    return failed, record.reason


def test_failures_losses_and_refusals_have_limits_of_their_own() -> None:
    policy = Policy(retries=2, crash_limit=3)
    assert tried(How.FAILED, policy=policy) == (False, "x")
    assert tried(How.FAILED, How.FAILED, policy=policy) == (True, "x")
    assert tried(How.LOST, How.LOST, policy=policy) == (False, "x")
    assert tried(*[How.LOST] * 3, policy=policy) == (True, "x; 3 workers were lost while it ran alone (--crash-limit)")
    assert tried(*[How.LOST] * 50, policy=Policy(crash_limit=0)) == (False, "x")
    told = f"x; {MAXIMUM_REFUSALS} workers did not begin it"
    assert tried(*[How.LOST] * MAXIMUM_REFUSALS, policy=policy, began=False) == (True, told)
    assert tried(*[How.REFUSED] * MAXIMUM_REFUSALS, policy=policy) == (True, told)
    assert tried(*[How.UNFIT] * 50, policy=policy) == (False, "x")
    assert tried(How.REFUSED_FOR_GOOD, policy=policy) == (True, "x")


def test_what_a_service_with_once_has_begun_is_not_tried_again() -> None:
    said = "x; this service must not run a task twice (cservice --once)"
    assert tried(How.LOST, policy=Policy(), once=True) == (True, said)


def test_a_worker_looks_at_each_waiting_task_once() -> None:
    queue, looked = RetryQueue(), []

    def never(task: int) -> bool:
        looked.append(task)
        return False

    for task in (1, 2, 3):
        queue.add(task)
    assert queue.take("a", never) is None and looked == [1, 2, 3]
    assert queue.take("a", never) is None and looked == [1, 2, 3]
    queue.add(4)
    assert queue.take("a", never) is None and looked == [1, 2, 3, 4]
    assert queue.take("b", lambda task: task == 2) == 2
    queue.look_again()
    assert queue.take("a", lambda task: True) == 1 and len(queue) == 2
    queue.clear()
    assert not queue
