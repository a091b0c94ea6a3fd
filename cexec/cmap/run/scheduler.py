"""Which task runs where, and what becomes of it when an attempt ends.

Contract: a pure machine; `now` is monotonic seconds.  The coordinator says which workers there are (`worker_joined`),
asks what a free one is to do (`next_task`), and tells how that went (`began`, `ended`).  `next_event` then says what is
to be done: `Cancel` an attempt, or a task is `Settled`; an attempt that has ended and that no `Settled` names has no
result.  A worker that is given nothing may ask again at `next_timeout`, or after any event.

- A task whose program failed, was refused by --validate or took too long is tried again, up to `retries` times in all,
  on a worker on which it has not failed, as long as there is one.
- A task whose worker was lost is tried again elsewhere; when it has taken `crash_limit` workers with it, it has failed.
- A task that a worker refused, or did not begin before it was lost, is tried again elsewhere; after `MOST_REFUSALS` it
  has failed, at once if it could not even be offered (`REFUSED_FOR_GOOD`).  A worker that is UNFIT does not count.
- Speculation: when no task waits, a task that has run for more than `speculate` times the median of those that
  succeeded is started a second time, on another worker that has nothing to do, the longest running one first.  The
  first valid result counts, the other attempt is cancelled.
- What a service with --once has begun is never tried again, for any reason.
"""

from __future__ import annotations

from collections import deque

from cexec.cmap.run.policy import NOW, Median, exit_status
from cexec.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cexec.cmap.run.policy import Policy

SUCCEEDED, FAILED, LOST, REFUSED, REFUSED_FOR_GOOD = "succeeded", "failed", "lost", "refused", "refused for good"
UNFIT = "unfit"  # the worker refused, as it would any other of the tasks
NOTHING_YET = 0  # instead of the number of a task: there may be another one later
MOST_REFUSALS = 5  # workers (ours) that may refuse a task
FAILURE = 1  # exit status (ours) of a task that has none of its own


class Attempt:
    """One run of a task on a worker.  `started`: since when it counts.  `ending`: why it is being cancelled."""

    __slots__ = ("began", "ending", "number", "started", "task", "timed_out", "worker")

    def __init__(self, task: int, number: int, worker: str, now: float) -> None:
        self.task = task
        self.number = number
        self.worker = worker
        self.started = now
        self.began = False
        self.timed_out = False
        self.ending = ""


class Cancel:
    """End this attempt, then say that it has `ended`."""

    __slots__ = ("attempt", "reason")

    def __init__(self, attempt: Attempt, reason: str) -> None:
        self.attempt = attempt
        self.reason = reason


class Settled:
    """A task is over.  `attempt` is the one whose outputs count; `reason` is empty after a success."""

    __slots__ = ("attempt", "reason", "task")

    def __init__(self, attempt: Attempt, reason: str) -> None:
        self.task = attempt.task
        self.attempt = attempt
        self.reason = reason


class _Record:
    """What has happened to a task that is not over."""

    __slots__ = ("attempts", "crashes", "failed_on", "failures", "once", "reason", "refusals", "running")

    def __init__(self) -> None:
        self.once = False
        self.reason = ""
        self.attempts = self.failures = self.crashes = self.refusals = 0
        self.failed_on: set[str] = set()
        self.running: list[Attempt] = []


class Scheduler:
    """All tasks of one call.  `total` is their number, None if nobody knows it yet; see NOTHING_YET."""

    def __init__(self, policy: Policy, tasks: Iterable[int], total: int | None) -> None:
        if policy.halt is not None and policy.halt.fraction is not None and total is None:
            raise UsageError("--halt with a percentage needs the number of tasks, which --pipe does not know")
        self.succeeded = 0
        self.failed = 0
        self.begun = 0  # tasks, not attempts
        self.halted = False
        self.paused = False
        self.median = Median()
        self._policy = policy
        self._total = total
        self._last: int | None = None  # exit status of the task with which --halt was reached
        self._tasks = iter(tasks)
        self._upcoming = next(self._tasks, None)
        self._again: deque[int] = deque()
        self._records: dict[int, _Record] = {}
        self._running: dict[Attempt, None] = {}  # in the order of `started`
        self._limits: dict[str, int] = {}  # of the workers that are there
        self._loads: dict[str, int] = {}
        self._events: list[Cancel | Settled] = []
        self._additions = 0  # to `_again`, so far
        self._seen: dict[str, int] = {}  # how many of them a worker may not have, for none of those that are left

    # workers

    def worker_joined(self, worker: str, slots: int) -> None:
        self._limits[worker] = self._policy.placement.limit(slots)
        self._loads.setdefault(worker, 0)
        self._seen.clear()

    def limit_of(self, worker: str) -> int:
        """How many tasks it may have at once."""
        return self._limits.get(worker, 0)

    def worker_left(self, worker: str) -> None:
        """Its attempts have `ended`, or will."""
        self._limits.pop(worker, None)
        self._seen.clear()

    # tasks

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def again(self) -> int:
        """How many tasks wait that have been begun before."""
        return len(self._again)

    @property
    def over(self) -> bool:
        """Whether nothing runs and nothing will."""
        return not self._running and (self.halted or (self._upcoming is None and not self._again))

    def wants_workers(self, now: float) -> bool:
        """Whether there is something to do for a worker that has nothing to do and never had."""
        if self.halted or self.paused:
            return False
        return bool(self._upcoming or self._again) or self._slowest("", now) is not None

    def look_again(self) -> None:
        """A task may have come where there was NOTHING_YET."""
        if self._upcoming == NOTHING_YET:
            self._upcoming = next(self._tasks, None)

    def next_task(self, worker: str, now: float) -> Attempt | None:
        """What this worker is to do now, if anything."""
        if self.halted or self.paused or now < self._policy.pace.next_start():
            return None
        if self._loads.get(worker, 0) >= self._limits.get(worker, 0):
            return None
        task = self._choose(worker, now)
        if task is None:
            return None
        record = self._records.setdefault(task, _Record())
        record.attempts += 1
        attempt = Attempt(task, record.attempts, worker, now)
        record.running.append(attempt)
        self._running[attempt] = None
        self._loads[worker] += 1
        self._policy.pace.started(now)
        return attempt

    def began(self, attempt: Attempt, now: float, *, once: bool = False) -> None:
        """The program is running.  `once`: its service must not run a job twice."""
        attempt.began = True
        attempt.started = now
        if once and attempt.task in self._records:
            self._records[attempt.task].once = True
        del self._running[attempt]
        self._running[attempt] = None

    def ended(
        self, attempt: Attempt, how: str, now: float, *, status: int = FAILURE, reason: str = "", once: bool = False
    ) -> None:
        """`how` is SUCCEEDED (also by the judgement of --validate), FAILED, LOST, REFUSED, REFUSED_FOR_GOOD or UNFIT.

        `status` is the exit status of a task that failed, `reason` says in words why.  `once`: its service must not run
        a job twice; one that is LOST may have begun although nobody has told.
        """
        del self._running[attempt]
        self._loads[attempt.worker] -= 1
        if not self._loads[attempt.worker] and attempt.worker not in self._limits:
            del self._loads[attempt.worker]
        record = self._records.get(attempt.task)
        if record is None:
            return  # the other attempt was faster
        record.running.remove(attempt)
        record.once = record.once or (once and how not in (REFUSED, REFUSED_FOR_GOOD, UNFIT))
        if how == SUCCEEDED:
            self.median.add(now - attempt.started)
            self._settle(attempt, "", 0)
            return
        if attempt.ending and not attempt.timed_out:
            return  # by --halt now: neither failed nor done
        self._note(attempt, record, how, reason)
        if record.running:
            return  # the other attempt may still succeed
        if self._has_failed(record, how):
            self._settle(attempt, record.reason, status)
        elif not self.halted:
            self._again.append(attempt.task)
            self._additions += 1

    def stop(self, *, end_running: bool) -> None:
        """The user wants no further task to begin, and perhaps those that run to end."""
        self.halted = True
        self._again.clear()
        for attempt in self._running if end_running else ():
            self._cancel(attempt, "ended by the user")

    # time

    def next_timeout(self, now: float) -> float | None:
        """When `handle_timeout` or `next_task` will have something new to say; None: not before something happens."""
        times = []
        median = self.median.value
        limit = self._policy.timeout.of(median)
        if limit is not None:
            oldest = next((attempt for attempt in self._running if attempt.began and not attempt.ending), None)
            times += [] if oldest is None else [oldest.started + limit]
        if self._upcoming or self._again:
            times.append(self._policy.pace.next_start())
        elif self._policy.speculate and median is not None:
            times += [attempt.started + self._policy.speculate * median for attempt in self._alone()]
        return min((time for time in times if time > now), default=None)

    def next_start(self) -> float:
        """When --delay and --rate allow another task to begin."""
        return self._policy.pace.next_start()

    def handle_timeout(self, now: float) -> None:
        """Cancels what has taken too long."""
        limit = self._policy.timeout.of(self.median.value)
        if limit is None:
            return
        for attempt in self._running:
            if attempt.began and now < attempt.started + limit:
                break
            if attempt.began and not attempt.ending:
                attempt.timed_out = True
                self._cancel(attempt, f"ran into its time limit of {limit:.3g} s")

    def next_event(self) -> Cancel | Settled | None:
        return self._events.pop(0) if self._events else None

    def exit_status(self) -> int:
        return exit_status(
            succeeded=self.succeeded, failed=self.failed, total=self._total, halt=self._policy.halt, last=self._last
        )

    # choosing

    def _choose(self, worker: str, now: float) -> int | None:
        for place in range(min(len(self._again), self._additions - self._seen.get(worker, 0)), 0, -1):
            task = self._again[-place]
            failed_on = self._records[task].failed_on
            if worker not in failed_on or failed_on.issuperset(self._limits):
                del self._again[-place]
                return task
        self._seen[worker] = self._additions
        if self._upcoming:
            task = self._upcoming
            self._upcoming = next(self._tasks, None)
            self.begun += 1
            return task
        slowest = self._slowest(worker, now)
        return None if slowest is None else slowest.task

    def _slowest(self, worker: str, now: float) -> Attempt | None:
        """The attempt that this worker is to compete with."""
        median = self.median.value
        if not self._policy.speculate or median is None or self._upcoming is not None:
            return None
        for attempt in self._alone():
            if now - attempt.started <= self._policy.speculate * median:
                return None
            if attempt.worker != worker and worker not in self._records[attempt.task].failed_on:
                return attempt
        return None

    def _alone(self) -> Iterator[Attempt]:
        """Attempts that have no competitor and may have one, the longest running one first."""
        for attempt in self._running:
            record = self._records.get(attempt.task)
            if record is None or record.once or len(record.running) > 1:
                continue
            if attempt.began and not attempt.ending:
                yield attempt

    # ends

    def _note(self, attempt: Attempt, record: _Record, how: str, reason: str) -> None:
        """Adds an unsuccessful attempt to the task's record."""
        record.failed_on.add(attempt.worker)
        record.reason = attempt.ending or reason or how
        if how == FAILED or attempt.timed_out:
            record.failures += 1
        elif how == LOST and attempt.began:
            record.crashes += 1
        elif how != UNFIT:
            record.refusals += 1

    def _has_failed(self, record: _Record, how: str) -> bool:
        """Whether the task is not to be tried again; `record.reason` then says why in full."""
        if how == REFUSED_FOR_GOOD or record.failures >= self._policy.retries or (record.failures and self.halted):
            return True
        if record.once:
            record.reason += "; this service must not run a task twice (cservice --once)"
        elif self._policy.crash_limit and record.crashes >= self._policy.crash_limit:
            record.reason += f"; {record.crashes} workers were lost while it ran (--crash-limit)"
        elif record.refusals >= MOST_REFUSALS:
            record.reason += f"; {record.refusals} workers did not begin it"
        else:
            return False
        return True

    def _settle(self, attempt: Attempt, reason: str, status: int) -> None:
        record = self._records.pop(attempt.task)
        for other in record.running:
            self._cancel(other, "another attempt was faster")
        if reason:
            self.failed += 1
        else:
            self.succeeded += 1
        self._events.append(Settled(attempt, reason))
        halt = self._policy.halt
        if halt is not None and not self.halted and halt.reached(self.succeeded, self.failed, self._total):
            self.halted = True
            self._last = status
            self._again.clear()
            for running in self._running if halt.when == NOW else ():
                self._cancel(running, "halted")

    def _cancel(self, attempt: Attempt, reason: str) -> None:
        if not attempt.ending:
            attempt.ending = reason
            self._events.append(Cancel(attempt, reason))
