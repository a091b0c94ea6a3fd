"""The earlier runs of a journal, for the report of a run that goes on with it.

Contract: `earlier_runs(path)` reads the journal beside its coordinator, which has begun the latest run already, and
disturbs nothing.  Memory is bounded: of very many attempts the latest are told.  `UsageError` or `LocalError` if the
journal cannot be read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cexec.cmap.results.journal_format import FAILED, shown
from cexec.cmap.results.journal_reader import reading
from cexec.cmap.run.ending import How
from cexec.cmap.watch.history import LONGEST_TEXT, MOST_FAILURES, Failure, Slot, Span, WorkerHistory

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_RUNS = 20  # (ours) that are drawn, the latest
MOST_ATTEMPTS = 200_000  # (ours) of all of them together, the latest
CUT_OFF = "cut off"  # the reason of an attempt whose end nobody has written down


@dataclass(slots=True)
class EarlierRun:
    """One call of cmap.  `started` is the wall clock's time, `seconds` until the last end of an attempt."""

    number: int
    started: float
    seconds: float = 0.0
    workers: dict[str, WorkerHistory] = field(default_factory=dict)

    def ordered(self) -> list[WorkerHistory]:
        return sorted(self.workers.values(), key=lambda worker: worker.name)

    def add(self, worker: str, begin: float, end: float, how: How, task: int, reason: str) -> None:
        """Takes an attempt, with seconds since the run was started; attempts come in the order of their begins."""
        found = self.workers.setdefault(worker, WorkerHistory(worker, 0))
        slot = next((slot for slot in found.slots if not slot.spans or slot.spans[-1].end <= begin), None)
        if slot is None:
            slot = Slot()
            found.slots.append(slot)
            found.limit = len(found.slots)
        slot.add(Span(begin, end, how, task, reason[:LONGEST_TEXT]))
        found.counts[how] = found.counts.get(how, 0) + 1
        found.busy += end - begin
        if how is How.SUCCEEDED:
            found.seconds += end - begin
        self.seconds = max(self.seconds, end)


@dataclass(slots=True)
class Earlier:
    """All earlier runs.  `failures`: tasks that have failed there; `failed` counts them."""

    runs: list[EarlierRun] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    failed: int = 0


def earlier_runs(path: str) -> Earlier:
    with reading(path) as database:
        rows = database.execute("SELECT number, started FROM run ORDER BY number").fetchall()[:-1]
        runs = [EarlierRun(number, started) for number, started in rows[-MOST_RUNS:]]
        if not runs:
            return Earlier()
        attempts = database.execute(
            "SELECT t.number, a.worker, a.started, a.ended, a.reason FROM attempt a "
            "JOIN task t USING (key, occurrence) ORDER BY a.id DESC LIMIT ?", (MOST_ATTEMPTS,)
        ).fetchall()  # fmt: skip
        _replay(runs, sorted(attempts, key=lambda attempt: attempt[2]))
        of_earlier = "FROM task WHERE state = ? AND run <= ?"
        last = rows[-1][0]
        ((failed,),) = database.execute(f"SELECT count(*) {of_earlier}", (FAILED, last)).fetchall()
        found = database.execute(
            f"SELECT number, command, worker, reason, runtime, exitval, signal {of_earlier} ORDER BY number LIMIT ?",
            (FAILED, last, MOST_FAILURES),
        ).fetchall()
    failures = [
        Failure(n, shown(c), {}, shown(w), shown(r), t or 0.0, 128 + s if s else v) for n, c, w, r, t, v, s in found
    ]
    return Earlier(runs, failures, failed)


def _replay(runs: list[EarlierRun], attempts: Iterable[tuple[int, str, float, float | None, str]]) -> None:
    """Gives each attempt to the run in which it was begun."""
    left = list(runs)
    run = left.pop(0)
    for task, worker, started, ended, reason in attempts:
        if started < run.started:
            continue  # of a run that is not told
        while left and started >= left[0].started:
            run = left.pop(0)
        begin = started - run.started
        if ended is None:
            run.add(shown(worker), begin, begin, How.CANCELLED, task, CUT_OFF)
        else:
            how = How.FAILED if reason else How.SUCCEEDED
            run.add(shown(worker), begin, max(begin, ended - run.started), how, task, shown(reason))
