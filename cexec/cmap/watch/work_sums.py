"""What each worker of a run did, summed up from the attempts of its journal.

Contract: `read_all` sums all attempts that have ended, `add` adds one more.  Memory is for MOST_WORKERS workers; `more`
says how many others there are.  `real` and `cpu` are seconds of all attempts, `cpu` None if none tells it; `last` is
when the last one ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cexec.cmap.watch.foreign_values import number_of, text_of, whole_of

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

MOST_WORKERS = 1000  # (ours) that are told apart
_SUMS = "count(*), sum(reason = ''), sum(max(0, ended - started)), sum({}), max(ended) FROM attempt"
_ENDED = "WHERE ended IS NOT NULL"


@dataclass(slots=True)
class WorkSum:
    """Attempts of one worker, and seconds of those that have ended.  `last`: when the last one ended, 0 for never."""

    name: str
    attempts: int = 0
    succeeded: int = 0
    real: float = 0.0
    cpu: float | None = None
    last: float = 0.0
    running: int = 0

    def add(self, attempts: int, succeeded: int, real: float, cpu: object, last: float) -> None:
        self.attempts += attempts
        self.succeeded += succeeded
        self.real += real
        self.cpu = _sum(self.cpu, cpu)
        self.last = max(self.last, last)


class WorkSums:
    def __init__(self) -> None:
        self.more = 0
        self.real = 0.0
        self.cpu: float | None = None
        self.last = 0.0
        self._workers: dict[str, WorkSum] = {}

    def read_all(self, database: sqlite3.Connection, cpu: str) -> None:
        """`cpu` is the column of the processor time, or NULL."""
        query = f"SELECT substr(worker, 1, 300) AS w, {_SUMS.format(cpu)} {_ENDED} GROUP BY w ORDER BY 2 DESC LIMIT ?"
        for worker, count, good, real, time, last in database.execute(query, (MOST_WORKERS,)):
            found = self._workers.setdefault(text_of(worker), WorkSum(text_of(worker)))
            found.add(whole_of(count), whole_of(good), number_of(real), time, number_of(last))
        if len(self._workers) >= MOST_WORKERS:
            query = f"SELECT count(DISTINCT substr(worker, 1, 300)) FROM attempt {_ENDED}"
            ((count,),) = database.execute(query).fetchall()
            self.more = max(0, count - MOST_WORKERS)
        ((_, _, real, time, last),) = database.execute(f"SELECT {_SUMS.format(cpu)} {_ENDED}").fetchall()
        self.real, self.cpu, self.last = number_of(real), _sum(None, time), number_of(last)

    def add(self, worker: object, started: object, ended: object, succeeded: object, cpu: object) -> None:
        """Adds an attempt that has ended."""
        real = max(0.0, number_of(ended) - number_of(started))
        self.real += real
        self.cpu = _sum(self.cpu, cpu)
        self.last = max(self.last, number_of(ended))
        found = self._worker(text_of(worker))
        if found is not None:
            found.add(1, whole_of(succeeded), real, cpu, number_of(ended))

    def ordered(self, running: Iterable[str]) -> list[WorkSum]:
        """Returns the workers by name; `running` has a name for each attempt that runs."""
        for one in self._workers.values():
            one.running = 0
        for name in running:
            found = self._worker(name)
            if found is not None:
                found.running += 1
        return sorted(self._workers.values(), key=lambda one: one.name)

    def _worker(self, name: str) -> WorkSum | None:
        if name not in self._workers and len(self._workers) < MOST_WORKERS:
            self._workers[name] = WorkSum(name)
        return self._workers.get(name)


def _sum(sum: float | None, more: object) -> float | None:
    return sum if more is None else (sum or 0.0) + number_of(more)
