"""Speculation: which slow attempt a worker that has nothing to do may compete with (`cmap --speculate`).

Contract: pure; `now` is monotonic seconds.  An attempt that has run for more than `factor` times the median of those
that succeeded may get one competitor, the longest running one first.  The first valid result counts.  A task that a
service must not run twice, or that may have taken workers with it, gets none.  Without a factor nothing is slow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cexec.cmap.run.task_attempt import AttemptState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from cexec.cmap.run.policy import Median
    from cexec.cmap.run.retry import TaskRecord
    from cexec.cmap.run.task_attempt import TaskAttempt


class Speculation:
    """The rule for one run, which looks at what the scheduler knows."""

    def __init__(
        self, factor: float, median: Median, running: Iterable[TaskAttempt], records: Mapping[int, TaskRecord]
    ) -> None:
        """`running`: the attempts in the order of `started`; `records`: of the tasks that are not over."""
        self._factor = factor
        self._median = median
        self._running = running
        self._records = records

    def slowest(self, worker: str, now: float) -> TaskAttempt | None:
        """Returns the attempt that this worker is to compete with."""
        median = self._median.value
        if not self._factor or median is None:
            return None
        for attempt in self._alone():
            if now - attempt.started <= self._factor * median:
                return None
            if attempt.worker != worker and worker not in self._records[attempt.task].failed_on:
                return attempt
        return None

    def next_timeout(self, now: float) -> float | None:
        """Returns when another attempt becomes a slow one."""
        median = self._median.value
        if not self._factor or median is None:
            return None
        after = self._factor * median
        later = next((a.started for a in self._alone() if a.started + after > now), None)  # the others began later
        return None if later is None else later + after

    def _alone(self) -> Iterator[TaskAttempt]:
        """Yields the attempts that have no competitor and may have one, the longest running one first."""
        for attempt in self._running:
            record = self._records.get(attempt.task)
            if record is None or record.once or record.suspect or len(record.running) > 1:
                continue
            if attempt.state is AttemptState.RUNNING:
                yield attempt
