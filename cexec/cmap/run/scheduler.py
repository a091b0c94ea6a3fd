"""Decides which task runs where, and what follows when an attempt ends.

Contract: a pure machine; `now` is monotonic seconds.  The coordinator says which workers there are (`worker_joined`),
asks what a free one is to do (`next_task`), and tells how that went (`began`, `ended`).  `next_event` then says what is
to be done: `Cancel` or `Recall` an attempt, or a task is `Settled`; an attempt that has ended and that no `Settled`
names has no result.  A worker that is given nothing may ask again at `next_timeout`, or after any event.

`retry` decides if a task is tried again.  A suspect, a task that may have taken workers with it, is given to a worker
that has nothing else to do, and that then gets nothing else; while other tasks wait there is one at a time.
When no task waits, `speculation` says which slow one is started a second time.  The first valid result counts, and the
other attempt is cancelled.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from math import inf
from typing import TYPE_CHECKING

from cexec.client.aio.pacing import SHORT
from cexec.cmap.run.ending import NOT_BEGUN, How
from cexec.cmap.run.losses import Losses
from cexec.cmap.run.occupancy import Occupancy
from cexec.cmap.run.policy import NOW, Median, exit_status
from cexec.cmap.run.retry import RetryQueue, TaskRecord
from cexec.cmap.run.run_state import RunProgress
from cexec.cmap.run.scheduler_events import Cancel, Recall, Settled
from cexec.cmap.run.speculation import Speculation
from cexec.cmap.run.task_attempt import AttemptState, TaskAttempt
from cexec.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cexec.cmap.run.ending import AttemptEnding
    from cexec.cmap.run.policy import Policy

OTHERS_ANSWER = 1.0  # seconds (ours) after the first attempt in which workers may answer that nobody knows yet
NOTHING_YET = 0  # instead of the number of a task: there may be another one later


class Scheduler:
    """All tasks of one call.  `total` is their number, None if nobody knows it yet; see NOTHING_YET."""

    def __init__(self, policy: Policy, tasks: Iterable[int], total: int | None) -> None:
        if policy.halt is not None and policy.halt.fraction is not None and total is None:
            raise UsageError("--halt with a percentage needs the number of tasks, which --pipe does not know")
        self.succeeded = 0
        self.failed = 0
        self.begun = 0  # tasks, not attempts
        self.median = Median()
        self._policy = policy
        self._total = total
        self.progress = RunProgress()
        self._last: int | None = None  # exit status of the task with which --halt was reached
        self._tasks = iter(tasks)
        self._upcoming = next(self._tasks, None)
        self._retries = RetryQueue()
        self._suspects = RetryQueue()  # those of them that are to run alone
        self._losses = Losses()
        self._records: dict[int, TaskRecord] = {}
        self._running: dict[TaskAttempt, None] = {}  # in the order of `started`
        self._speculation = Speculation(policy.speculate, self.median, self._running, self._records)
        self._occupancy = Occupancy(policy.placement)
        self._all_known = inf  # from when on a task that has failed on all workers need not wait for others
        self._events: deque[Cancel | Recall | Settled] = deque()

    # workers

    def worker_joined(self, worker: str, slots: int) -> None:
        self._occupancy.joined(worker, slots)
        self._look_at_retries_again()

    def limit_of(self, worker: str) -> int:
        """Returns how many tasks the worker may have at once."""
        return self._occupancy.limit(worker)

    def worker_left(self, worker: str) -> None:
        """Gives the worker no further task; its attempts have `ended`, or will."""
        self._occupancy.left(worker)
        self._look_at_retries_again()

    def others_have_answered(self) -> None:
        """Lets workers ask again for tasks that have waited for others; to be called when `waits_for_others` ends."""
        self._look_at_retries_again()

    def _look_at_retries_again(self) -> None:
        self._retries.look_again()
        self._suspects.look_again()

    # tasks

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def reserved(self) -> int:
        """Counts the workers that run a suspect and therefore get nothing else."""
        return self._occupancy.reserved

    @property
    def again(self) -> int:
        """Counts the tasks that wait and have begun before."""
        return len(self._retries) + len(self._suspects)

    @property
    def over(self) -> bool:
        """True if nothing runs and nothing will."""
        return not self._running and (self.progress.halted or (self._upcoming is None and not self.again))

    @property
    def running_tasks(self) -> list[int]:
        """The numbers of the tasks whose programs run, in ascending order; one that runs twice stands there twice."""
        return sorted(attempt.task for attempt in self._running if attempt.has_begun)

    def pause(self, now: float) -> None:
        """Lets no attempt begin until it goes on; what was given in advance and has not begun is asked for."""
        if self.progress.pause(now):
            for attempt in self._running:
                if attempt.waits and attempt.state is AttemptState.OFFERED:
                    attempt.move(AttemptState.RECALLED)
                    self._events.append(Recall(attempt))

    def go_on(self) -> None:
        """Ends a pause."""
        self.progress.go_on()

    def wants_workers(self, now: float) -> bool:
        """True if there is something to do for a worker that has nothing to do and never had."""
        if not self.progress.going:
            return False
        return bool(self._upcoming or self.again) or self._slowest("", now) is not None

    def look_again(self) -> None:
        """Asks again for the next task where there was NOTHING_YET."""
        if self._upcoming == NOTHING_YET:
            self._upcoming = next(self._tasks, None)

    def next_task(self, worker: str, now: float) -> TaskAttempt | None:
        """Returns what this worker is to do now; None if there is nothing for it."""
        if not self.progress.going or now < self._policy.pace.next_start():
            return None
        if not self._occupancy.has_room(worker):
            return None
        task = self._choose(worker, now)
        return None if task is None else self._attempt(task, worker, now, waits=False)

    def next_ahead(self, worker: str, now: float) -> TaskAttempt | None:
        """Returns what a worker is to do when it is done with what it does now; None if that is not wanted.

        Only short tasks are given so, because a free worker cannot get them any more.  Tasks under which a worker was
        lost are not, and the last ones are left to those that are free first.
        """
        median = self.median.value
        if median is None or median > SHORT or not self.progress.going or self._policy.pace.slows:
            return None
        if not self._occupancy.may_wait(worker) or self._few_are_left:
            return None
        task = None
        if self._retries:
            # Another name: what may not wait there, the worker may have all the same.
            task = self._retries.take(f"{worker} ahead", partial(self._may_wait, worker, now))
        if task is None and self._upcoming:
            task = self._take_upcoming()
        return None if task is None else self._attempt(task, worker, now, waits=True)

    def turn_came(self, attempt: TaskAttempt) -> None:
        """Says that an attempt does not wait behind another one any more."""
        attempt.waits = False
        self._occupancy.took(attempt.worker, alone=False)

    @property
    def _few_are_left(self) -> bool:
        if self._total is None or self._total - self.begun > len(self._running):
            return False
        return self._total - self.begun + self.again <= len(self._running)

    def _attempt(self, task: int, worker: str, now: float, *, waits: bool) -> TaskAttempt:
        self._all_known = min(self._all_known, now + OTHERS_ANSWER)
        record = self._records.get(task)
        if record is None:
            record = self._records[task] = TaskRecord()
        record.attempts += 1
        attempt = TaskAttempt(task, record.attempts, worker, now)
        record.running.append(attempt)
        self._running[attempt] = None
        attempt.waits = waits
        if not waits:
            self._occupancy.took(worker, alone=record.suspect)
        self._policy.pace.started(now)
        return attempt

    def began(self, attempt: TaskAttempt, now: float, *, once: bool = False) -> None:
        """Says that the program is running.  `once`: its service must not run a job twice."""
        if attempt.state in (AttemptState.OFFERED, AttemptState.RECALLED):
            attempt.move(AttemptState.RUNNING)
        attempt.started = now
        if once and attempt.task in self._records:
            self._records[attempt.task].once = True
        del self._running[attempt]
        self._running[attempt] = None

    def returned(self, attempt: TaskAttempt) -> None:
        """Says that the program has ended: its time limit does not count for what is done with the result."""
        if attempt.state is AttemptState.RUNNING:
            attempt.move(AttemptState.RETURNED)

    def ended(self, attempt: TaskAttempt, ending: AttemptEnding, now: float, *, once: bool = False) -> AttemptEnding:
        """Returns how the attempt ended, with regard to why we ended it if we did.

        `once`: its service must not run a job twice; one that is LOST may have begun although nobody has told.
        """
        ending = attempt.final(ending)
        began, cancelled = attempt.state is AttemptState.RUNNING, attempt.state is AttemptState.CANCELLED
        came_back = attempt.state is AttemptState.RECALLED and ending.how is How.WITHDRAWN
        attempt.move(AttemptState.ENDED)
        del self._running[attempt]
        if not attempt.waits:
            self._occupancy.gave_back(attempt.worker)
        record = self._records.get(attempt.task)
        if record is None:
            return ending  # the other attempt was faster
        record.running.remove(attempt)
        record.once = record.once or (once and ending.how not in NOT_BEGUN)
        if ending.how is How.SUCCEEDED:
            self.median.add(now - attempt.started)
            self._settle(attempt, "", 0)
        elif not cancelled:  # by --halt now or by the user: neither failed nor done
            lost = ending.how is How.LOST and not ending.waited
            shared = lost and self._losses.add(attempt, self._running, now, began=began)
            if not came_back:  # that was our wish
                record.note(attempt, ending, began=began, shared=shared)
            self._decide(attempt, record, ending)
        return ending

    def _decide(self, attempt: TaskAttempt, record: TaskRecord, ending: AttemptEnding) -> None:
        """Settles the task of an attempt that did not succeed, or lets it wait for another try."""
        if record.running:
            return  # the other attempt may still succeed
        if record.has_failed(ending.how, self._policy, halted=self.progress.halted):
            self._settle(attempt, record.reason, ending.failure_status)
        elif not self.progress.halted:
            (self._suspects if record.suspect else self._retries).add(attempt.task)

    def doubts(self, attempt: TaskAttempt) -> bool:
        """Returns True if a worker was lost under this task before, so that another loss is rather the task's doing."""
        return attempt.task in self._records and self._records[attempt.task].losses > 0

    def stop(self, *, end_running: bool) -> None:
        """Lets no further task begin, as the user wants it, and perhaps ends those that run."""
        self._halt()
        for attempt in self._running if end_running else ():
            self._end(attempt, AttemptState.CANCELLED, "ended by the user")

    # time

    def next_timeout(self, now: float) -> float | None:
        """Returns when `handle_timeout` or `next_task` will have something new to say; None: not by time alone."""
        times = [self._all_known] if self.waits_for_others(now) else []
        limit = self._policy.timeout.of(self.median.value)
        if limit is not None:
            oldest = next((attempt for attempt in self._running if attempt.state is AttemptState.RUNNING), None)
            times += [] if oldest is None else [oldest.started + limit]
        if self._upcoming or self.again:
            times.append(self._policy.pace.next_start())
        elif (later := self._speculation.next_timeout(now)) is not None:
            times.append(later)
        return min((time for time in times if time > now), default=None)

    def waits_for_others(self, now: float) -> bool:
        """True if a task is to be tried again, and workers may still answer on which it has not failed."""
        return now < self._all_known and bool(self.again)

    def next_start(self) -> float:
        """Returns when --delay and --rate allow another task to begin."""
        return self._policy.pace.next_start()

    def handle_timeout(self, now: float) -> None:
        """Cancels what has taken too long."""
        limit = self._policy.timeout.of(self.median.value)
        if limit is None:
            return
        for attempt in self._running:
            if attempt.state is AttemptState.RUNNING:
                if now < attempt.started + limit:
                    break  # the others began later
                self._end(attempt, AttemptState.TIMED_OUT, f"ran into its time limit of {limit:.3g} s")

    def next_event(self) -> Cancel | Recall | Settled | None:
        return self._events.popleft() if self._events else None

    def exit_status(self) -> int:
        return exit_status(
            succeeded=self.succeeded, failed=self.failed, total=self._total, halt=self._policy.halt, last=self._last
        )

    # choosing

    def _choose(self, worker: str, now: float) -> int | None:
        may_have = partial(self._may_have, worker, now)
        task = self._retries.take(worker, may_have)
        one_at_a_time = self._occupancy.reserved and (self._upcoming or self._retries)
        if task is None and self._occupancy.idle(worker) and not one_at_a_time:
            task = self._suspects.take(worker, may_have)
        if task is not None:
            return task
        if self._upcoming:
            return self._take_upcoming()
        slowest = self._slowest(worker, now)
        return None if slowest is None else slowest.task

    def _take_upcoming(self) -> int:
        task = self._upcoming
        assert task is not None
        self._upcoming = next(self._tasks, None)
        self.begun += 1
        return task

    def _may_have(self, worker: str, now: float, task: int) -> bool:
        """True if the task has not failed on this worker, or has failed on all that there are."""
        failed_on = self._records[task].failed_on
        return worker not in failed_on or (now >= self._all_known and failed_on.issuperset(self._occupancy.present))

    def _may_wait(self, worker: str, now: float, task: int) -> bool:
        return not self._records[task].losses and self._may_have(worker, now, task)

    def _slowest(self, worker: str, now: float) -> TaskAttempt | None:
        """Returns the attempt that this worker is to compete with, when no task waits."""
        return None if self._upcoming is not None else self._speculation.slowest(worker, now)

    # ends

    def _settle(self, attempt: TaskAttempt, reason: str, status: int) -> None:
        record = self._records.pop(attempt.task)
        for other in record.running:
            self._end(other, AttemptState.CANCELLED, "another attempt was faster")
        if reason:
            self.failed += 1
        else:
            self.succeeded += 1
        self._events.append(Settled(attempt, reason))
        halt = self._policy.halt
        if halt is not None and not self.progress.halted and halt.reached(self.succeeded, self.failed, self._total):
            self._halt()
            self._last = status
            for running in self._running if halt.when == NOW else ():
                self._end(running, AttemptState.CANCELLED, "halted")

    def _halt(self) -> None:
        self.progress.halt()
        for attempt in self._running:
            if attempt.waits:
                self._end(attempt, AttemptState.CANCELLED, "halted before its turn")
        self._retries.clear()
        self._suspects.clear()

    def _end(self, attempt: TaskAttempt, state: AttemptState, reason: str) -> None:
        """Asks for the end of an attempt, if nobody has asked before."""
        if attempt.can_be_ended:
            began = attempt.state is AttemptState.RUNNING
            attempt.move(state, reason)
            self._events.append(Cancel(attempt, began))
