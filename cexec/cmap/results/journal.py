"""--state: what became of every task, so that a run which ended anyhow can go on.

Contract: an SQLite database in WAL mode, with one coordinator at a time (`UsageError` for the second) and any number
of readers.  A task is known by the hash of its command and inputs; several tasks with one hash are told apart by how
many of them there have been in this run.  `kill -9` at any moment loses nothing that was committed and commits nothing
again:

1. `intend`: where the files end that are about to be added to (only if there are such files);
2. the caller adds to them;
3. `commit`: the task is over, these files are to be renamed; from here on it is never run again;
4. the caller renames; 5. `settle`: nothing is left to do.

Opening a journal takes back what stopped between 1 and 3 and completes what stopped after 3.  A power failure may lose
the last commits (SQLite's synchronous=NORMAL); their results are then said to exist already.
"""

from __future__ import annotations

import json
import os
import sqlite3
from typing import TYPE_CHECKING

from cexec.cmap.results.appending import Place, cannot_write, take_back
from cexec.cmap.results.lockfile import Lock
from cexec.errors import LocalError, UsageError
from cexec.system.reason import reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    from cexec.cmap.results.outcome import TaskOutcome

    T = TypeVar("T")

NEW, RESUME, RESUME_FAILED, RETRY_FAILED = "new", "--resume", "--resume-failed", "--retry-failed"
WAITING, DONE, FAILED = range(3)
FORMAT = 1
APPLICATION = 0x636D6170  # "cmap", in the database's header
MAGIC = b"SQLite format 3\0"
TOKEN_SIZE = 8  # bytes (ours)
_SCHEMA = """
CREATE TABLE run (number INTEGER PRIMARY KEY, token TEXT, started REAL, status TEXT);
CREATE TABLE task (
    key BLOB, occurrence INTEGER, run INTEGER, number INTEGER, state INTEGER, command TEXT, worker TEXT, started REAL,
    runtime REAL, sent INTEGER, received INTEGER, exitval INTEGER, signal INTEGER, reason TEXT,
    PRIMARY KEY (key, occurrence)
) WITHOUT ROWID;
CREATE TABLE attempt (
    id INTEGER PRIMARY KEY, key BLOB, occurrence INTEGER, worker TEXT, started REAL, ended REAL, reason TEXT
);
CREATE INDEX attempt_task ON attempt (key, occurrence);
CREATE TABLE pending (key BLOB, occurrence INTEGER, places TEXT, renames TEXT, PRIMARY KEY (key, occurrence));
"""


class TaskClaim:
    """A task that is to be run, in the journal's terms."""

    __slots__ = ("key", "occurrence")

    def __init__(self, key: bytes, occurrence: int) -> None:
        self.key = key
        self.occurrence = occurrence


class Journal:
    """One coordinator's.  `token` begins the names of temporary results, also those of earlier runs."""

    def __init__(self, path: str, mode: str, *, now: float) -> None:
        """`now` is the wall clock's."""
        self._path = path
        self._mode = mode
        if mode == RETRY_FAILED and not os.path.exists(path):
            raise UsageError(f"--retry-failed needs the journal of an earlier run, but there is no {path}")
        try:
            self._lock = Lock(path)
        except OSError as error:
            raise cannot_write(path, error) from None
        try:
            _check_magic(path)
            self.database = self._guard(lambda: sqlite3.connect(path))
            try:
                self._open(now)
            except BaseException:
                self.database.close()
                raise
        except BaseException:
            self._lock.close()
            raise

    def _open(self, now: float) -> None:
        (application,) = self._execute("PRAGMA application_id").fetchone()
        (version,) = self._execute("PRAGMA user_version").fetchone()
        (tables,) = self._execute("SELECT count(*) FROM sqlite_master").fetchone()
        if (application, version, tables) != (0, 0, 0) and (application, version) != (APPLICATION, FORMAT):
            raise UsageError(f"{self._path} is no journal of this version of cmap; give another --state")
        self._execute("PRAGMA journal_mode=WAL")
        self._execute("PRAGMA synchronous=NORMAL")
        if not tables:
            marks = f"PRAGMA application_id={APPLICATION}; PRAGMA user_version={FORMAT};"
            self._guard(lambda: self.database.executescript(f"BEGIN; {_SCHEMA} {marks} COMMIT;"))
        self._recover()
        done, failed = self.counts()
        if self._mode == NEW and done + failed:
            raise UsageError(
                f"{self._path} knows {done} finished and {failed} failed tasks; add --resume, --resume-failed or "
                "--retry-failed, or give another --state"
            )
        found = self._execute("SELECT token FROM run LIMIT 1").fetchone()
        self.token = found[0] if found else os.urandom(TOKEN_SIZE).hex()
        self._run = self._execute("INSERT INTO run (token, started) VALUES (?, ?)", self.token, now).lastrowid
        self.flush()

    # which tasks are to be run

    def claim(self, key: bytes, number: int, command: str) -> TaskClaim | None:
        """Takes up a task; returns None if it is not to be run, because of what became of it in an earlier run."""
        found = self._execute(
            "SELECT occurrence, state FROM task WHERE key = ? AND run < ? ORDER BY occurrence LIMIT 1", key, self._run
        ).fetchone()
        if found is None:
            (count,) = self._execute("SELECT count(*) FROM task WHERE key = ?", key).fetchone()
            occurrence, state = count, WAITING
            self._execute(
                "INSERT INTO task (key, occurrence, run, number, state, command) VALUES (?, ?, ?, ?, ?, ?)",
                key, occurrence, self._run, number, WAITING, command,
            )  # fmt: skip
        else:
            occurrence, state = found
            query = "UPDATE task SET run = ?, number = ? WHERE key = ? AND occurrence = ?"
            self._execute(query, self._run, number, key, occurrence)
        wanted = {NEW: (WAITING,), RESUME: (WAITING,), RESUME_FAILED: (WAITING, FAILED), RETRY_FAILED: (FAILED,)}
        return TaskClaim(key, occurrence) if state in wanted[self._mode] else None

    def is_done(self, key: bytes) -> bool:
        """Returns True if a task with this hash has succeeded, so that its result may be there."""
        query = "SELECT 1 FROM task WHERE key = ? AND state = ? LIMIT 1"
        return self._execute(query, key, DONE).fetchone() is not None

    def counts(self) -> tuple[int, int]:
        """Tasks that have succeeded and failed, in all runs."""
        counts = dict(self._execute("SELECT state, count(*) FROM task GROUP BY state").fetchall())
        return counts.get(DONE, 0), counts.get(FAILED, 0)

    def note(self, status: str) -> None:
        """Writes down how this run stands, in words of the caller's; durable with the next commit."""
        self._execute("UPDATE run SET status = ? WHERE number = ?", status, self._run)

    # attempts, for `cmap explain`: not durable before the next commit

    def begin_attempt(self, claim: TaskClaim, worker: str, started: float) -> int:
        """Writes an attempt down; returns the number of its row."""
        query = "INSERT INTO attempt (key, occurrence, worker, started) VALUES (?, ?, ?, ?)"
        return self._execute(query, claim.key, claim.occurrence, worker, started).lastrowid or 0

    def end_attempt(self, attempt: int, reason: str, ended: float) -> None:
        """`reason` is empty for an attempt that succeeded."""
        self._execute("UPDATE attempt SET ended = ?, reason = ? WHERE id = ?", ended, reason, attempt)

    # the end of a task

    def intend(self, claim: TaskClaim, places: Sequence[Place]) -> None:
        """Writes down where the files end that are about to be added to."""
        told = json.dumps([[place.path, place.device, place.inode, place.offset] for place in places])
        self._execute("INSERT OR REPLACE INTO pending VALUES (?, ?, ?, NULL)", claim.key, claim.occurrence, told)
        self.flush()

    def commit(self, claim: TaskClaim, outcome: TaskOutcome, renames: Sequence[tuple[str, str]]) -> None:
        """Makes the end of a task durable; `renames` are pairs of temporary and final names."""
        self._execute(
            "UPDATE task SET state = ?, worker = ?, started = ?, runtime = ?, sent = ?, received = ?, exitval = ?, "
            "signal = ?, reason = ? WHERE key = ? AND occurrence = ?",
            DONE if outcome.succeeded else FAILED, outcome.worker, outcome.started, outcome.runtime, outcome.sent,
            outcome.received, outcome.exitval, outcome.signal, outcome.reason, claim.key, claim.occurrence,
        )  # fmt: skip
        if renames:
            told = json.dumps([[os.path.abspath(path) for path in pair] for pair in renames])
            self._execute("INSERT OR REPLACE INTO pending VALUES (?, ?, '[]', ?)", claim.key, claim.occurrence, told)
        else:
            self.settle(claim)
        self.flush()

    def withdraw(self, claim: TaskClaim) -> None:
        """Says that what was intended has been taken back; the task is as it was."""
        self._guard(self.database.rollback)
        self.settle(claim)
        self.flush()

    def settle(self, claim: TaskClaim) -> None:
        """Every file has its name.  Durable with the next commit: a rename that is found done is not done again."""
        self._execute("DELETE FROM pending WHERE key = ? AND occurrence = ?", claim.key, claim.occurrence)

    def flush(self) -> None:
        """Makes everything so far durable and visible to readers."""
        self._guard(self.database.commit)

    def close(self) -> None:
        try:
            self.flush()
        finally:
            self.database.close()
            self._lock.close()

    def abandon(self) -> None:
        """Lets the journal go as the kernel does when the process is killed: nothing more is committed."""
        self.database.close()
        try:
            self._lock.close()
        except OSError:
            pass  # it has been let go before

    # after a crash

    def _recover(self) -> None:
        for places, renames in self._execute("SELECT places, renames FROM pending").fetchall():
            try:
                for values in json.loads(places):
                    take_back(Place(*values))
                for temporary, final in json.loads(renames or "[]"):
                    if os.path.lexists(temporary):
                        os.rename(temporary, final)
            except OSError as error:
                reason = reason_of(error)
                raise LocalError(f"cannot complete what {self._path} began: {error.filename}: {reason}") from None
        self._execute("DELETE FROM pending")
        self.flush()

    def _execute(self, query: str, *values: object) -> sqlite3.Cursor:
        return self._guard(lambda: self.database.execute(query, values))

    def _guard(self, what: Callable[[], T]) -> T:
        try:
            return what()
        except sqlite3.DatabaseError as error:
            raise LocalError(f"cannot use the journal {self._path}: {str(error).lower()}") from None


def _check_magic(path: str) -> None:
    """SQLite takes a file of a few bytes for an empty database."""
    try:
        with open(path, "rb") as file:
            begin = file.read(len(MAGIC))
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageError(f"cannot read {path}: {reason_of(error)}") from None
    if begin and begin != MAGIC:
        raise UsageError(f"{path} is no journal of cmap; give another --state")
