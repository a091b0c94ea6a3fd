"""--state: what became of every task, so that a run which ended anyhow can go on.

Contract: an SQLite database in WAL mode, with one coordinator at a time (`UsageError` for the second) and any number
of readers.  A task is known by the hash of its command and inputs; several tasks with one hash are told apart by the
row's number and by how many of them there have been.  `kill -9` at any moment, and loss of power, lose nothing that was
committed and commit nothing again.  For a group of tasks that have ended:

1. `intend`: where the files end that are about to be added to (only if there are such files); durable;
2. the caller adds to them, and brings all files of the tasks to disk;
3. `commit`: the tasks are over, these files are to be renamed; durable; from here on they are never run again;
4. the caller renames and brings the directories to disk; 5. `settle`: nothing is left to do.

Opening a journal takes back what stopped between 1 and 3 and completes what stopped after 3 (`recovery`).  Everything
else waits in memory and is written with the next of these steps, or by `flush`.  `intend`, `commit`, `settle` and
`flush` may wait for the disk and may be called by any thread.  The other methods are for one thread; only
`begin_attempt` at a worker that must not repeat it waits.
"""

from __future__ import annotations

import json
import os
import threading
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from cexec.cmap.results.journal_format import DONE, FAILED, WAITING, stored
from cexec.cmap.results.journal_rows import (
    ATTEMPT_ENDS,
    ATTEMPTS,
    KNOWN_TASKS,
    NEW_TASKS,
    ORDER,
    PENDING,
    SETTLED,
    TASK_ENDS,
)
from cexec.cmap.results.journal_store import PATIENCE, Change, JournalStore, RowChange
from cexec.cmap.results.recovery import recover
from cexec.cmap.results.syncing import Syncer
from cexec.errors import LocalError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cexec.cmap.results.appending import Place
    from cexec.cmap.results.outcome import TaskOutcome
    from cexec.cmap.results.renames import Rename

NEW, RESUME, RESUME_FAILED, RETRY_FAILED = "new", "--resume", "--resume-failed", "--retry-failed"
_WANTED = {NEW: (WAITING,), RESUME: (WAITING,), RESUME_FAILED: (WAITING, FAILED), RETRY_FAILED: (FAILED,)}
TOKEN_SIZE = 8  # bytes (ours)
LONGEST_COMMAND = 4000  # characters (ours) of a run's command line
LONGEST_SAID = 1000  # characters (ours) of the last line of a task's standard error
MOST_UNWRITTEN = 4096  # changes (ours) that wait in memory
_OF_TASK = "WHERE key = ? AND occurrence = ?"


class TaskClaim(NamedTuple):
    """A task that is to be run, in the journal's terms."""

    key: bytes
    occurrence: int


class TaskIdentity(NamedTuple):
    """Names a task for the journal.  `old_key` makes the key that 0.1.0 had for it.

    `stamp` is another one when an input has changed, and `place` is another one when the results have other names.
    """

    key: bytes
    number: int
    stamp: str = ""
    place: str = ""
    old_key: Callable[[], bytes] | None = None


class TaskEnd(NamedTuple):
    """Holds what the journal commits of one task."""

    claim: TaskClaim
    outcome: TaskOutcome
    renames: Sequence[Rename]


class _Known(NamedTuple):
    """A task of an earlier run.  `stamp` is None in a journal of 0.1.0, whose keys contain it."""

    key: bytes
    occurrence: int
    state: int
    number: int
    stamp: str | None


class Journal:
    """One coordinator's.  `token` begins the names of temporary results, also those of earlier runs."""

    def __init__(
        self,
        path: str,
        mode: str,
        *,
        now: float,
        sync: bool = True,
        numbered: bool = False,
        repeat_once: bool = False,
        patience: float = PATIENCE,
    ) -> None:
        """`now` is the wall clock's.  `numbered`: the names of results contain the number of the row, so that a task of
        a journal of 0.1.0, which did not keep `place`, is done in its row only.

        `repeat_once`: tasks that a worker which must not repeat them may have begun are to be run, too.
        """
        self.left: list[int] = []  # the numbers of those that are not run again for that reason
        self.passed_over = {WAITING: 0, DONE: 0, FAILED: 0}  # counts of the tasks that this run leaves out, by state
        self._mode = mode
        self._numbered = numbered
        self._repeat_once = repeat_once
        if mode == RETRY_FAILED and not os.path.exists(path):
            raise UsageError(f"--retry-failed needs the journal of an earlier run, but there is no {path}")
        self.store = JournalStore(path, sync=sync, patience=patience)
        self._waiting: deque[Change | RowChange | TaskClaim] = (
            deque()
        )  # not written; a claim stands behind the row that makes it
        self._written: deque[TaskClaim] = deque()
        self._writing = threading.Lock()
        self._claimed: dict[bytes, set[int]] = {}  # those that may not be written
        try:
            self._begin(now, sync)
        except BaseException:
            self.store.abandon()
            raise

    def _begin(self, now: float, sync: bool) -> None:
        syncer = Syncer(on=sync)
        try:
            recover(self.store, syncer)
        finally:
            syncer.close()
        done, failed = self.counts()
        if self._mode == NEW and done + failed:
            raise UsageError(
                f"{self.store.path} knows {done} finished and {failed} failed tasks; add --resume, --resume-failed or "
                "--retry-failed, or give another --state"
            )
        ((tasks, old),) = self.store.read("SELECT count(*), count(*) - count(stamp) FROM task")
        self._has_tasks, self._has_old_tasks = tasks > 0, old > 0
        found = self.store.read("SELECT token FROM run LIMIT 1")
        self.token: str = found[0][0] if found else os.urandom(TOKEN_SIZE).hex()
        ((self._run,),) = self.store.read("SELECT coalesce(max(number), 0) + 1 FROM run")
        ((attempts,),) = self.store.read("SELECT coalesce(max(id), 0) FROM attempt")
        self._change("INSERT INTO run (number, token, started) VALUES (?, ?, ?)", self._run, self.token, now)
        self._attempts = int(attempts)
        self.flush()

    # which tasks are to be run

    def claim(self, task: TaskIdentity, command: str) -> TaskClaim | None:
        """Takes up a task; returns None if it is not to be run, because of what became of it in an earlier run."""
        found = self._find(task)
        if found is None:
            claim = self._new_claim(task.key)
            values = (*claim, self._run, task.number, WAITING, stored(command), task.stamp, task.place)
            self._add(RowChange(NEW_TASKS, values))
            self._note_claim(claim)
            return self._judged(claim, WAITING, WAITING in _WANTED[self._mode])
        changed = found.stamp not in (None, task.stamp)
        state = WAITING if changed and self._mode != RETRY_FAILED else found.state
        wanted = state in _WANTED[self._mode] and not self._must_not_be_repeated(found, task.number)
        claim = self._renamed(found, task) if found.key != task.key else TaskClaim(found.key, found.occurrence)
        self._add(RowChange(KNOWN_TASKS, (*claim, self._run, task.number, task.place)))
        if wanted and changed:
            self._change(f"UPDATE task SET state = ?, stamp = ? {_OF_TASK}", state, task.stamp, *claim)
        self._note_claim(claim)
        return self._judged(claim, state, wanted)

    def _judged(self, claim: TaskClaim, state: int, wanted: bool) -> TaskClaim | None:
        if not wanted:
            self.passed_over[state] += 1
        return claim if wanted else None

    def is_done(self, task: TaskIdentity) -> bool:
        """Before it is claimed: True if it has succeeded, with the inputs and the names of results that it has now."""
        found = self._find(task)
        return found is not None and found.state == DONE and found.stamp in (None, task.stamp)

    def counts(self) -> tuple[int, int]:
        """Tasks that have succeeded and failed, in all runs, as far as they are written."""
        counts = dict(self.store.read("SELECT state, count(*) FROM task GROUP BY state"))
        return counts.get(DONE, 0), counts.get(FAILED, 0)

    def failed_and_not_claimed(self) -> list[int]:
        """With --retry-failed: the numbers of tasks that have failed in earlier runs and are none of this run's."""
        if self._mode != RETRY_FAILED:
            return []
        self.flush()
        query = "SELECT number FROM task WHERE state = ? AND run < ? ORDER BY number"
        return [number for (number,) in self.store.read(query, FAILED, self._run)]

    def describe(self, command: str, host: str) -> None:
        """Writes down the command line of this run, and where it is."""
        values = (stored(command[:LONGEST_COMMAND]), stored(host), self._run)
        self._change("UPDATE run SET command = ?, host = ? WHERE number = ?", *values)

    def note(self, status: str) -> None:
        """Writes down how this run stands, in words of the caller's."""
        self._change("UPDATE run SET status = ? WHERE number = ?", status, self._run)

    def _find(self, task: TaskIdentity) -> _Known | None:
        """Returns what is known of a task from earlier runs."""
        if not self._has_tasks:
            return None
        self._forget_written()
        found = self._find_key(task.key, task)
        if found is None and self._has_old_tasks and task.old_key is not None:
            found = self._find_key(task.old_key(), task)
        return found

    def _find_key(self, key: bytes, task: TaskIdentity) -> _Known | None:
        """Several rows may have equal tasks, whose results have other names; rows may have moved.

        What is known of this row comes first, then of a task with these names, then of any that is not done.
        """
        taken = self._claimed.get(key, ())
        query = "SELECT key, occurrence, state, number, stamp FROM task WHERE key = ? AND run < ? AND"
        for condition, values in (
            ("number = ? AND (place IS NULL OR place = ?)", (task.number, task.place)),
            ("(place = ? OR place IS NULL AND NOT ?)", (task.place, self._numbered)),
            ("state <> ?", (DONE,)),
        ):
            order = "ORDER BY occurrence LIMIT ?"
            for row in self.store.read(f"{query} {condition} {order}", key, self._run, *values, len(taken) + 1):
                if row[1] not in taken:
                    return _Known(*row)
        return None

    def _new_claim(self, key: bytes) -> TaskClaim:
        self._forget_written()
        query = "SELECT coalesce(max(occurrence), -1) FROM task WHERE key = ?"
        return TaskClaim(key, 1 + max([*self.store.read(query, key)[0], *self._claimed.get(key, ())]))

    def _renamed(self, found: _Known, task: TaskIdentity) -> TaskClaim:
        """Gives a task of a journal of 0.1.0 the key that it has now."""
        claim = self._new_claim(task.key)
        for table in ("task", "attempt"):
            self._change(f"UPDATE {table} SET key = ?, occurrence = ? {_OF_TASK}", *claim, found.key, found.occurrence)
        self._change(f"UPDATE task SET stamp = ? {_OF_TASK}", task.stamp, *claim)
        self._note_claim(TaskClaim(found.key, found.occurrence))
        return claim

    def _must_not_be_repeated(self, found: _Known, number: int) -> bool:
        query = f"SELECT 1 FROM attempt {_OF_TASK} AND once LIMIT 1"
        if self._repeat_once or not self.store.read(query, found.key, found.occurrence):
            return False
        self.left.append(number)
        return True

    def _note_claim(self, claim: TaskClaim) -> None:
        self._claimed.setdefault(claim.key, set()).add(claim.occurrence)
        self._waiting.append(claim)

    def _forget_written(self) -> None:
        while self._written:
            claim = self._written.popleft()
            occurrences = self._claimed.get(claim.key, set())
            occurrences.discard(claim.occurrence)
            if not occurrences:
                self._claimed.pop(claim.key, None)

    # attempts

    def begin_attempt(self, claim: TaskClaim, worker: str, started: float, *, once: bool = False) -> int:
        """Writes an attempt down; returns its number.  `once`: the worker's jobs must not be repeated.

        Such an attempt is on disk when this returns, because what the worker has begun must be known for ever.
        """
        self._attempts += 1
        self._add(RowChange(ATTEMPTS, (self._attempts, *claim, stored(worker), started, once)))
        if once:
            self._write((), durable=True)
        return self._attempts

    def end_attempt(
        self, attempt: int, reason: str, ended: float, *, begun: bool = True, cpu: float | None = None
    ) -> None:
        """`reason` is empty for an attempt that succeeded.  `begun`: the program may have run.  `cpu`: seconds."""
        self._add(RowChange(ATTEMPT_ENDS, (attempt, ended, stored(reason), begun, cpu)))

    # the end of tasks

    def intend(self, places: Iterable[Place]) -> None:
        """Writes down where the files end that are about to be added to."""
        query = "INSERT INTO adding VALUES (?, ?, ?, ?)"
        told = [Change(query, (stored(at.path), at.device, at.inode, at.offset)) for at in places]
        self._write([Change("DELETE FROM adding"), *told], durable=True)

    def commit(self, ends: Iterable[TaskEnd]) -> None:
        """Makes the end of a group of tasks durable."""
        changes = [change for end in ends for change in _changes_of(end)]
        self._write([*changes, Change("DELETE FROM adding")], durable=True)

    def withdraw(self) -> None:
        """Says that what was intended has been taken back; the tasks are as they were."""
        self._write([Change("DELETE FROM adding")], durable=False)

    def settle(self, claims: Iterable[TaskClaim]) -> None:
        """Every file of these tasks has its name.  A rename that is found done after a crash is not done again."""
        self._write([RowChange(SETTLED, claim) for claim in claims], durable=False)

    @property
    def unwritten(self) -> bool:
        """True if something waits in memory."""
        return bool(self._waiting)

    def flush(self) -> None:
        """Makes everything so far visible to readers; a kill does not undo it."""
        if self.unwritten:
            self._write((), durable=False)

    def close(self) -> None:
        try:
            self.flush()
        finally:
            self.store.close()

    def abandon(self) -> None:
        """Lets the journal go as the kernel does when the process is killed: nothing more is written."""
        self.store.abandon()

    def _change(self, query: str, *values: object) -> None:
        self._add(Change(query, values))

    def _add(self, change: Change | RowChange) -> None:
        self._waiting.append(change)
        if len(self._waiting) > MOST_UNWRITTEN:  # a million rows that are done, for example
            self.flush()

    def _write(self, changes: Iterable[Change | RowChange], *, durable: bool) -> None:
        """Writes what waits, and then `changes`."""
        with self._writing:
            taken = []
            while self._waiting:
                taken.append(self._waiting.popleft())
            waiting = [entry for entry in taken if not isinstance(entry, TaskClaim)]
            try:
                self.store.write([*waiting, *changes], durable=durable, order=ORDER)
            except LocalError:
                self._waiting.extendleft(reversed(taken))
                raise
            self._written.extend(entry for entry in taken if isinstance(entry, TaskClaim))


def _changes_of(end: TaskEnd) -> Iterator[RowChange]:
    claim, outcome, renames = end
    state = DONE if outcome.succeeded else FAILED
    times = (outcome.started, outcome.runtime, outcome.sent, outcome.received)
    said = stored("".join(outcome.last_words[-1:])[:LONGEST_SAID])
    ending = (outcome.exitval, outcome.signal, stored(outcome.reason), said)
    yield RowChange(TASK_ENDS, (*claim, state, stored(outcome.worker), *times, *ending))
    if renames:
        told = json.dumps([[os.path.abspath(r.temporary), os.path.abspath(r.final), r.inode, r.size] for r in renames])
        yield RowChange(PENDING, (*claim, told))
