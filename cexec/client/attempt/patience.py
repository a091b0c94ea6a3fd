"""Bounds the time that a worker may keep a job: without progress, and in all.

Contract: pure.  `looked` is told after each step how many bytes have come and gone, and if it is up to this side what
happens next; it raises `StalledError` when the worker has made no progress for `progress` seconds,
or still has the job after `total` seconds.  Time in which this side kept the worker waiting, or was stopped, does not
count.  `next_timeout` says when to look although nothing has come.  0 means no limit.
"""

from __future__ import annotations

from cexec.errors import StalledError

LOOKS = 4  # (ours) in the time without progress, so that a stop of this process is noticed
LONGEST_PAUSE = 5.0  # seconds (ours) between two looks
TIME_LIMIT_GRACE = 45.0  # seconds (ours) after its time limit by which a worker has ended a job: it promises 32


class Patience:
    """`began`: when the worker got the job."""

    __slots__ = ("_asked", "_count", "_deadline", "_looked", "_moved", "_pause", "_progress", "_total")

    def __init__(self, *, progress: float, time_limit: float, began: float) -> None:
        """`progress`: of --progress-timeout.  `time_limit`: which the worker was asked to keep."""
        self._progress = progress
        self._asked = time_limit
        self._total = time_limit + TIME_LIMIT_GRACE if time_limit else 0.0
        self._pause = min(LONGEST_PAUSE, (progress or self._total) / LOOKS)
        self._count = -1
        self._moved = self._looked = began
        self._deadline = began + self._total

    def next_timeout(self) -> float:
        times = [self._looked + self._pause]
        if self._progress:
            times.append(self._moved + self._progress)
        if self._total:
            times.append(self._deadline)
        return max(self._looked, min(times))

    def looked(self, count: int, began: float, ended: float, *, ours: bool) -> None:
        """Takes the state after a step that lasted from `began` to `ended`.

        It judges by the earlier time: all that had come by then has been read.
        """
        passed, self._looked = ended - self._looked, ended
        if ours or passed > 2 * self._pause + 1.0:  # later than was asked for: this process was stopped
            self._moved = ended
            self._deadline += passed
        if count != self._count:
            self._count = count
            self._moved = ended
        if self._progress and began >= self._moved + self._progress:
            raise StalledError(f"no byte came or went for {self._progress:g} s (--progress-timeout)")
        if self._total and began >= self._deadline:
            raise StalledError(f"it still has the job {TIME_LIMIT_GRACE:g} s after its time limit of {self._asked:g} s")


def make_patience(*, progress: float, time_limit: float, began: float) -> Patience | None:
    """Returns None if nothing is limited."""
    return Patience(progress=progress, time_limit=time_limit, began=began) if progress or time_limit else None
