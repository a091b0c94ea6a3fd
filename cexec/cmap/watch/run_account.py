"""Reads how a run stands from its journal, again and again while the journal grows.

Contract: `RunAccount(path).look(now)` reads what is new since the last look; it takes no lock that a coordinator waits
for, about `patience` seconds at most, and memory for the states of its tasks (`TaskMap`) and for MOST_WORKERS workers,
whatever the journal contains.  `UsageError` if there is no such journal, `LocalError` if it cannot be read.  `now` is
the wall clock's.  A `RunFigures` is what was found.  What changes in a journal without an attempt is found by reading
all of it again, at most LEAST_ANEW seconds or SHARE times as long as that takes later.
"""

from __future__ import annotations

import os
import sqlite3
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cexec.cmap.results.journal_format import DONE, FAILED, FORMAT, WAITING, real_path, version_of
from cexec.cmap.results.journal_reader import reading
from cexec.cmap.watch.explain import parse_status
from cexec.cmap.watch.failed_rows import FailedRow, failed_rows
from cexec.cmap.watch.foreign_values import number_of, text_of, whole_of
from cexec.cmap.watch.task_map import TaskMap
from cexec.cmap.watch.work_sums import WorkSums
from cexec.errors import LocalError, UsageError
from cexec.system.storage.lockfile import holder

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cexec.cmap.watch.work_sums import WorkSum

PATIENCE = 20.0  # seconds (ours) for one look
RATE_SPAN = 900.0  # seconds (ours) for which the rate is told
BUCKET = 10.0  # seconds (ours) for which ends of tasks are counted together
LEAST_ANEW, SHARE = 60.0, 50.0  # seconds, and times (ours), until all of a journal that changes is read again
MOST_OPEN = 100_000  # (ours) attempts that run, and tasks whose end is waited for
LARGEST_VALUE = 64 << 20  # bytes (ours) of a value in the database
STEPS = 20_000  # (ours) of SQLite's machine between two looks at the clock
TABLES = {"run", "task", "attempt"}
_RUN = "SELECT number, started, status, {} FROM run ORDER BY number DESC LIMIT 1"
_ATTEMPT = "SELECT id, key, occurrence, substr(worker, 1, 300), started, ended, reason = '', {} FROM attempt"


@dataclass(slots=True)
class RunFigures:
    """One look at a run.  `runs`: calls of cmap with this journal; the rest tells of the latest.

    `process`: what has the journal now, in words, or nothing.  `total` is None while nobody knows.  `real` and `cpu`:
    seconds of all attempts that ended, `cpu` None if none tells it.  `noted`: when the run last said how it stands;
    `ended`: when its last attempt ended.
    """

    runs: int = 0
    started: float = 0.0
    noted: float = 0.0
    ended: float = 0.0
    command: str = ""
    host: str = ""
    process: str = ""
    total: int | None = None
    paused: bool = False
    weight: int | None = None
    counts: dict[str, int] = field(default_factory=dict)
    real: float = 0.0
    cpu: float | None = None

    @property
    def left(self) -> int:
        """Tasks that are not over, as far as anybody knows."""
        return self.counts.get("waiting", 0) + self.counts.get("running", 0)


class RunAccount:
    """One journal.  `tasks` is the map of the last look, `running` the numbers of the tasks that ran then.

    `begun`: those whose programs run, as cmap itself says; the journal knows only which ones workers were given, of
    which some may wait there.  None if cmap cannot be asked: then all of these count as running.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.begun: frozenset[int] | None = None
        self.figures = RunFigures()
        self._clear()

    def _clear(self) -> None:
        self.tasks = TaskMap()
        self._sums = WorkSums()
        self._identity: object = None  # of the journal and its latest run
        self._anew_at: float | None = None  # by the steady clock
        self._last = 0  # the id of the latest attempt that is known
        self._open: dict[int, int] = {}  # from an attempt that runs to its task
        self._open_workers: dict[int, str] = {}
        self._unsettled: set[tuple[Any, Any]] = set()  # tasks with an attempt whose end may follow
        self._since = 0.0  # the begin of the time for which ends are counted
        self._ends: dict[int, int] = {}  # from a time in BUCKETs to the tasks that ended then

    def look(self, now: float, patience: float = PATIENCE) -> None:
        process = holder(real_path(self.path))
        begun = time.monotonic()
        with reading(self.path) as database:
            try:
                _bound(database, self.path, patience)
                self._read(database, process, now)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
                    self._clear()
                    raise LocalError(f"the journal takes longer than {patience:g} seconds to be read") from None
                raise
        if self._anew_at is None:
            self._anew_at = time.monotonic() + max(LEAST_ANEW, SHARE * (time.monotonic() - begun))

    def rate(self, now: float) -> float:
        """Returns the tasks a second that ended in the last RATE_SPAN seconds of the latest run, or since its begin."""
        since = max(self.figures.started, now - RATE_SPAN)
        ends = sum(count for bucket, count in self._ends.items() if (bucket + 1) * BUCKET > since)
        return ends / max(1.0, now - since)

    def forget(self) -> None:
        """Gives the memory of the map back; `figures` and `rate` stay, and the next look reads all again."""
        ends = self._ends
        self._clear()
        self._ends = ends

    @property
    def running(self) -> set[int]:
        if not self.figures.process:
            return set()
        if self.begun is not None:  # the journal may hear of them a moment later
            return set(self.begun)
        return {number for number in self._open.values() if number}

    @property
    def workers(self) -> list[WorkSum]:
        """Who did what, by name."""
        running = self.running
        return self._sums.ordered(name for id, name in self._open_workers.items() if self._open[id] in running)

    @property
    def more_workers(self) -> int:
        """Workers beyond those that are told apart."""
        return self._sums.more

    def failed(self, after: int, most: int, patience: float = PATIENCE) -> list[FailedRow]:
        """Returns at most so many tasks that have failed, behind the task `after`."""
        numbers = self.tasks.failed(after, most)
        if not numbers:
            return []
        with reading(self.path) as database:
            _bound(database, self.path, patience)
            return failed_rows(database, numbers, told=version_of(database, self.path) >= FORMAT)

    def _read(self, database: sqlite3.Connection, process: str, now: float) -> None:
        database.execute("BEGIN")  # all of it is told of one moment
        told = version_of(database, self.path) >= FORMAT
        found = database.execute(_RUN.format("command, host" if told else "NULL, NULL")).fetchone()
        number, started, status, command, host = found or (0, 0.0, None, None, None)
        started = number_of(started)
        status_file = os.stat(self.path)
        identity = status_file.st_dev, status_file.st_ino, number
        ((last,),) = database.execute("SELECT coalesce(max(id), 0) FROM attempt").fetchall()
        overdue = self._anew_at is not None and time.monotonic() >= self._anew_at
        if identity != self._identity or overdue or last < self._last or len(self._unsettled) > MOST_OPEN:
            self._clear()
            self._since = max(started, now - RATE_SPAN)
            self._read_all(database, number, cpu="cpu" if told else "NULL")
        else:
            self._since = max(started, now - RATE_SPAN)
            self._read_new(database, cpu="cpu" if told else "NULL")
        self._identity, self._last = identity, last
        self._fill(database, process, parse_status(status or "{}"), started)
        self.figures.command, self.figures.host = text_of(command), text_of(host)

    def _read_all(self, database: sqlite3.Connection, run: object, cpu: str) -> None:
        ((runs,),) = database.execute("SELECT count(*) FROM run").fetchall()
        order = "ORDER BY run" if runs > 1 else ""  # a row that a later run has, too, is as that one says
        ended = "CASE WHEN started + runtime > ? THEN started + runtime END"
        waits = f"state = {WAITING} AND run = ?"  # its end may follow without a new attempt
        claim = f"CASE WHEN {waits} THEN key END, occurrence"
        note, count, unsettled = self.tasks.set, self._count_end, self._unsettled
        query = f"SELECT number, state, {ended}, {claim} FROM task {order}"
        for number, state, end, key, occurrence in database.execute(query, (self._since, run)):
            note(number, state)
            if end is not None and state in (DONE, FAILED):
                count(end)
            if key is not None and len(unsettled) < MOST_OPEN:
                unsettled.add((key, occurrence))
        self._sums.read_all(database, cpu)
        query = _ATTEMPT.format(cpu)
        begun = "WHERE ended IS NULL AND started >= (SELECT max(started) - 1 FROM run) LIMIT ?"
        for row in database.execute(f"{query} {begun}", (MOST_OPEN,)):  # others were cut off with an earlier run
            self._begin(database, *row[:4])

    def _read_new(self, database: sqlite3.Connection, cpu: str) -> None:
        query = _ATTEMPT.format(cpu)
        for part in _parts(sorted(self._open)):
            marks = ", ".join("?" * len(part))
            for row in database.execute(f"{query} WHERE id IN ({marks}) AND ended IS NOT NULL", part).fetchall():
                self._open.pop(row[0])
                self._open_workers.pop(row[0], None)
                self._sums.add(*row[3:])
        for row in database.execute(f"{query} WHERE id > ? ORDER BY id", (self._last,)):
            if row[5] is None:
                self._begin(database, *row[:4])
            else:
                self._unsettled.add(row[1:3])
                self._sums.add(*row[3:])
        self._settle(database)

    def _begin(self, database: sqlite3.Connection, id: int, key: object, occurrence: object, worker: object) -> None:
        found = database.execute("SELECT number FROM task WHERE key = ? AND occurrence = ?", (key, occurrence))
        self._open[id] = whole_of((found.fetchone() or (0,))[0])
        self._open_workers[id] = text_of(worker)
        self._unsettled.add((key, occurrence))

    def _settle(self, database: sqlite3.Connection) -> None:
        """Looks which of the tasks that have been tried are over."""
        query = "SELECT number, state, started + runtime FROM task WHERE key = ? AND occurrence = ?"
        for task in list(self._unsettled):
            found = database.execute(query, task).fetchone()
            if found is None:
                self._unsettled.discard(task)
                continue
            number, state, end = found
            changed = self.tasks.set(number, state)
            if state in (DONE, FAILED):
                self._unsettled.discard(task)
                if changed:  # an attempt that was too late ends after its task
                    self._count_end(end)

    def _count_end(self, end: object) -> None:
        at = number_of(end)
        if self._since < at < self._since + 2 * RATE_SPAN:
            bucket = int(at // BUCKET)
            self._ends[bucket] = self._ends.get(bucket, 0) + 1

    def _fill(self, database: sqlite3.Connection, process: str, status: dict[str, Any], started: float) -> None:
        figures = self.figures
        ((figures.runs,),) = database.execute("SELECT count(*) FROM run").fetchall()
        figures.started, figures.noted, figures.process = started, number_of(status.get("time")), process
        total = status.get("total")
        figures.total = total if type(total) is int and 0 <= total <= 1 << 53 else None
        figures.paused = bool(process) and status.get("paused") is True
        weight = status.get("weight")
        figures.weight = weight if type(weight) is int and 0 < weight < 1 << 16 else None
        self.tasks.expect(figures.total or 0)
        figures.counts = self.tasks.counts(self.running)
        figures.real, figures.cpu, figures.ended = self._sums.real, self._sums.cpu, self._sums.last
        old = self._since / BUCKET - 1
        self._ends = {bucket: count for bucket, count in self._ends.items() if bucket > old}


def _bound(database: sqlite3.Connection, path: str, patience: float) -> None:
    """Bounds what a journal of somebody else can cost; `UsageError` for a database with views in place of tables."""
    until = time.monotonic() + patience
    database.set_progress_handler(lambda: time.monotonic() > until, STEPS)
    database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LARGEST_VALUE)
    database.text_factory = lambda text: text.decode(errors="replace")
    database.execute("PRAGMA trusted_schema=OFF")
    tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not tables >= TABLES:
        raise UsageError(f"{path} is no journal of cmap")


def _parts(ids: list[int], size: int = 500) -> Iterable[list[int]]:
    return (ids[at : at + size] for at in range(0, len(ids), size))
