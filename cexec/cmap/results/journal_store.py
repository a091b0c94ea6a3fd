"""The database of a journal: one coordinator writes it, from one thread at a time, and nobody waits for a reader.

Contract: `write` makes one transaction of all changes and brings it to disk if it is `durable` (SQLite's
synchronous=FULL); it may wait for the disk, or for another program that has locked the database.  `read` may go on
meanwhile in one other thread, and never waits for a writer.  `LocalError` when the database fails, or is locked for
longer than `patience` seconds.  The file that a symbolic link names is locked, so that it has one coordinator by
whatever name.  `UsageError` for a journal that another user has made.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple, TypeVar

from cexec.cmap.results.appending import cannot_write
from cexec.cmap.results.journal_format import check_link, check_magic, check_owner, real_path, steps_from, version_of
from cexec.cmap.results.journal_place import prepare, tidy
from cexec.cmap.results.syncing import sync_directory, way_to
from cexec.errors import LocalError
from cexec.system.storage.lockfile import Lock

T = TypeVar("T")
MOST_ROWS = 50  # (ours) of one statement: older versions of SQLite take 999 values
PATIENCE = 120.0  # seconds (ours) that another program, such as a backup, may lock the database


class Change(NamedTuple):
    """A statement and its values."""

    query: str
    values: tuple[object, ...] = ()


class RowStatement(NamedTuple):
    """A statement that takes many rows at once, as VALUES between `head` and `tail`.

    A thread lets others run at each call of SQLite, and then waits for its turn, so few calls are what counts.
    """

    head: str
    tail: str = ""


class RowChange(NamedTuple):
    """One row for such a statement."""

    statement: RowStatement
    values: tuple[object, ...]


class JournalStore:
    """Without `sync` nothing is brought to disk: what has been written survives a kill, but no loss of power."""

    def __init__(self, path: str, *, sync: bool, patience: float) -> None:
        self.path = path
        self._sync = sync
        self._patience = patience
        check_link(path)
        real = real_path(path)
        check_owner(real)
        try:
            self._lock = Lock(real)
        except OSError as error:
            raise cannot_write(path, error) from None
        self._open: list[sqlite3.Connection] = []
        self._real = real
        try:
            prepare(real)
            check_magic(real)
            self.database = self._connect(real)
            self.version = self._guard(lambda: version_of(self.database, path))  # when it was opened
            self._guard(lambda: self.database.execute("PRAGMA journal_mode=WAL").fetchone())
            check_owner(real)  # again, now that SQLite has opened all of its files: nobody can exchange them any more
            self.write([Change(step) for step in steps_from(self.version)], durable=True)
            self._reader = self._connect(real)
            if sync:
                directory = os.path.dirname(real)
                for path in (directory, *way_to(directory)):
                    sync_directory(path)
        except BaseException:
            self.abandon()
            raise

    def read(self, query: str, *values: object) -> list[Any]:
        """Returns all rows."""
        return self._guard(lambda: self._reader.execute(query, values).fetchall())

    def write(
        self, changes: Iterable[Change | RowChange], *, durable: bool, order: Sequence[RowStatement] = ()
    ) -> None:
        """All of the changes or, after `LocalError`, none of them: plain ones first, then rows in the order given."""
        plain: list[Change] = []
        rows: dict[RowStatement, list[tuple[object, ...]]] = {statement: [] for statement in order}
        for change in changes:
            if isinstance(change, RowChange):
                rows[change.statement].append(change.values)
            else:
                plain.append(change)
        for statement, values in rows.items():
            plain += _together(statement, values)
        self._guard(lambda: self._transact(plain, "FULL" if durable and self._sync else "NORMAL"))

    def close(self) -> None:
        try:
            for database in self._open:
                self._guard(database.close)
            tidy(self._real)
        finally:
            self._lock.close()

    def abandon(self) -> None:
        """Lets everything go as the kernel does when the process is killed."""
        for database in self._open:
            database.close()
        try:
            self._lock.close()
        except OSError:
            pass  # it has been let go before

    def _connect(self, path: str) -> sqlite3.Connection:
        database = self._guard(
            lambda: sqlite3.connect(path, timeout=self._patience, isolation_level=None, check_same_thread=False)
        )
        self._open.append(database)
        return database

    def _transact(self, changes: Iterable[Change], synchronous: str) -> None:
        execute = self.database.execute
        execute(f"PRAGMA synchronous={synchronous}")
        execute("BEGIN IMMEDIATE")
        try:
            for query, values in changes:
                execute(query, values)
            execute("COMMIT")
        except BaseException:
            if self.database.in_transaction:
                execute("ROLLBACK")
            raise

    def _guard(self, what: Callable[[], T]) -> T:
        try:
            return what()
        except sqlite3.Error as error:
            raise LocalError(f"cannot use the journal {self.path}: {str(error).lower()}") from None


def _together(statement: RowStatement, rows: Sequence[tuple[object, ...]]) -> Iterator[Change]:
    for start in range(0, len(rows), MOST_ROWS):
        part = rows[start : start + MOST_ROWS]
        places = ", ".join([f"({', '.join('?' * len(part[0]))})"] * len(part))
        yield Change(f"{statement.head} VALUES {places} {statement.tail}", tuple(chain.from_iterable(part)))
