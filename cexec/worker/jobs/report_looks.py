"""When a worker looks at the reports of processes that wake nobody: those whose leases go ahead without a word.

Contract: a process that has reported something is `news`; from then on it is `due` every READ_TOGETHER seconds, until
two looks in a row have `found_nothing`.  It is told so, because then it has to wake the worker again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cexec.worker.jobs.job_process import JobProcess

READ_TOGETHER = 0.008  # seconds (ours) between two looks at reports that need no answer: each look costs a wake-up
LOOKS_IN_VAIN = 2  # (ours) after which a process has to wake the worker


class ReportLooks:
    """The processes of one worker that are looked at."""

    __slots__ = ("_due", "_in_vain")

    def __init__(self) -> None:
        self._in_vain: dict[JobProcess, int] = {}  # how many looks at them in a row have found nothing
        self._due = 0.0

    def next_timeout(self) -> float | None:
        """Returns when the next look is due."""
        return self._due if self._in_vain else None

    def news(self, process: JobProcess, now: float) -> None:
        """The process has reported something, and need not wake us for what follows."""
        if not self._in_vain:
            self._due = now + READ_TOGETHER
        self._in_vain[process] = 0
        process.watched = True

    def due(self, now: float) -> list[JobProcess]:
        """Returns those that are to be looked at now."""
        if not self._in_vain or now < self._due:
            return []
        self._due = now + READ_TOGETHER
        return list(self._in_vain)

    def found_nothing(self, process: JobProcess) -> None:
        """The process has to wake us from now on.

        One more look follows: it may have noted something while it was still told that we watch.
        """
        self._in_vain[process] += 1
        process.watched = False
        if self._in_vain[process] >= LOOKS_IN_VAIN:
            del self._in_vain[process]

    def drop(self, process: JobProcess) -> None:
        """The process has ended."""
        self._in_vain.pop(process, None)
