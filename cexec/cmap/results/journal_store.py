"""The database of a journal: one coordinator writes it, from one thread at a time, and nobody waits for a reader.

Contract: `write` makes one transaction of all changes and brings it to disk if it is `durable` (SQLite's
synchronous=FULL); it may wait for the disk, or for another program that has locked the database.  `read` may go on
meanwhile in one other thread, and never waits for a writer.  `LocalError` when the database fails, or is locked for
longer than `patience` seconds.  The file that a symbolic link names is locked, so that it has one coordinator by
whatever name.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

from cexec.cmap.results.appending import cannot_write
from cexec.cmap.results.journal_format import check_magic, real_path, steps_from, version_of
from cexec.cmap.results.lockfile import Lock
from cexec.cmap.results.syncing import sync_directory, sync_way_to
from cexec.errors import LocalError

T = TypeVar("T")
PATIENCE = 120.0  # seconds (ours) that another program, such as a backup, may lock the database


class Change(NamedTuple):
    """A statement and its values."""

    query: str
    values: tuple[object, ...] = ()


class JournalStore:
    """Without `sync` nothing is brought to disk: what has been written survives a kill, but no loss of power."""

    def __init__(self, path: str, *, sync: bool, patience: float) -> None:
        self.path = path
        self._sync = sync
        self._patience = patience
        real = real_path(path)
        try:
            self._lock = Lock(real)
        except OSError as error:
            raise cannot_write(path, error) from None
        self._open: list[sqlite3.Connection] = []
        try:
            check_magic(real)
            self.database = self._connect(real)
            self.version = self._guard(lambda: version_of(self.database, path))  # when it was opened
            self._guard(lambda: self.database.execute("PRAGMA journal_mode=WAL").fetchone())
            self.write([Change(step) for step in steps_from(self.version)], durable=True)
            self._reader = self._connect(real)
            if sync:
                sync_directory(os.path.dirname(real))
                sync_way_to(os.path.dirname(real))
        except BaseException:
            self.abandon()
            raise

    def read(self, query: str, *values: object) -> list[Any]:
        """Returns all rows."""
        return self._guard(lambda: self._reader.execute(query, values).fetchall())

    def write(self, changes: Iterable[Change], *, durable: bool) -> None:
        """All of the changes or, after `LocalError`, none of them."""
        self._guard(lambda: self._transact(changes, "FULL" if durable and self._sync else "NORMAL"))

    def close(self) -> None:
        try:
            for database in self._open:
                self._guard(database.close)
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
