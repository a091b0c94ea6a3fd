"""The state file of `cgate`: an SQLite database with one writer.

Contract: `write` runs a change in the writer's thread, and returns when it is on the disk; changes that come together
are committed together, and one that raises is taken back alone.  `read` runs a query in another thread, which never
waits for the writer.  Both take a function of a connection.  `write_now` is for commands, which have no event loop and
may work while a `cgate` serves.  `LocalError` when the database fails (`StateFullError`: no room), `UsageError` for
a file that is not a state file, is that of another user or was written by a newer version.  With `sole`, `LocalError`
says which process has it.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, TypeAlias, TypeVar

from cexec.errors import LocalError, UsageError
from cexec.gate.store import access_schema, job_schema, page_rows, pcci_rows
from cexec.system.call_threads import Threads, start_thread
from cexec.system.reason import reason_of
from cexec.system.storage.lockfile import Lock
from cexec.system.storage.own_files import check_own, open_own

T = TypeVar("T")
Change: TypeAlias = Callable[[sqlite3.Connection], T]

APPLICATION = 0x63676174  # "cgat", in the database's header
VERSION = 1  # of the tables
MAGIC = b"SQLite format 3\0"
MOST_TOGETHER = 500  # changes (ours) of one transaction
PATIENCE = 10.0  # seconds (ours) that another program, such as `cgate token add` or a backup, may lock the database
LOCK_PATIENCE = 1.0  # seconds (ours) for the lock of a `cgate` that was killed
BESIDE = ("", "-wal", "-shm", "-journal")  # the endings of the names of SQLite's files


class StateFullError(LocalError):
    """There is no room for what was to be kept."""


@dataclass(slots=True)
class _Waiting:
    """A change whose caller waits for it."""

    change: Change[Any]
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    result: Any = None
    error: BaseException | None = None


class StateReader:
    """A connection that only reads, closed with its `Database`."""

    def __init__(self, connection: sqlite3.Connection, path: str) -> None:
        self._connection = connection
        self._path = path

    def read(self, query: Change[T]) -> T:
        """Runs the query in this thread."""
        try:
            return query(self._connection)
        except sqlite3.Error as error:
            raise _named(error, self._path) from None


class Database:
    """One state file.  `sole`: for a `cgate` that serves, of which there is one; otherwise for a command."""

    def __init__(self, path: str, *, sole: bool) -> None:
        self.path = path
        self._lock = _take_lock(path) if sole else None
        self._open: list[sqlite3.Connection] = []
        self._thread: threading.Thread | None = None
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._readers: Threads | None = None
        try:
            _check_file(path)
            self._writer = self._connect()
            self._guard(self._prepare)
            self._reader = self._connect()
            self._guard(lambda: self._reader.execute("PRAGMA query_only=1"))
        except BaseException:
            self.close()
            raise
        if sole:
            self._readers = Threads(1, "reader of the state")
            thread = threading.Thread(target=self._write_all, name="writer of the state", daemon=True)
            try:
                start_thread(thread)
            except LocalError:
                self.close()
                raise
            self._thread = thread

    async def write(self, change: Change[T]) -> T:
        """Runs the change in a transaction; returns what it returns, when that is on the disk."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._queue.put(_Waiting(change, future, loop))
        return await future

    async def read(self, query: Change[T]) -> T:
        """Runs the query in the reader's thread."""
        assert self._readers is not None, "only a sole user reads so"
        return await asyncio.get_running_loop().run_in_executor(self._readers, self.read_now, query)

    def write_now(self, change: Change[T]) -> T:
        """Runs the change in this thread.  For commands, and before anything else goes on."""

        def transact() -> T:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                result = change(self._writer)
                self._writer.execute("COMMIT")
                return result
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

        return self._guard(transact)

    def read_now(self, query: Change[T]) -> T:
        """Runs the query in this thread."""
        return self._guard(lambda: query(self._reader))

    def new_reader(self) -> StateReader:
        """Returns a reader for one thread, which neither waits for other readers nor for the writer."""
        connection = self._connect()
        self._guard(lambda: connection.execute("PRAGMA query_only=1"))
        return StateReader(connection, self.path)

    def close(self) -> None:
        """Waits for the changes that were asked for, and closes the file."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None
        if self._readers is not None:
            self._readers.shutdown()
            self._readers = None
        for connection in self._open:
            connection.close()
        self._open.clear()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    # the writer's thread

    def _write_all(self) -> None:
        last = False
        while not last:
            batch = [self._queue.get()]
            while len(batch) < MOST_TOGETHER and not self._queue.empty():
                batch.append(self._queue.get())
            last = None in batch
            waiting = [one for one in batch if one is not None]
            if waiting:
                self._write_batch(waiting)
                for loop in {one.loop for one in waiting}:
                    _tell(loop, [one for one in waiting if one.loop is loop])

    def _write_batch(self, batch: list[_Waiting]) -> None:
        try:
            self._guard(lambda: self._transact(batch))
        except LocalError as error:
            for one in batch:
                one.error = one.error or error

    def _transact(self, batch: list[_Waiting]) -> None:
        """Runs all changes in one transaction; if one raises, all again, each of which can be taken back alone.

        At each call of SQLite this thread lets the others run, and then waits for its turn: few calls are what counts.
        """
        try:
            self._run_all(batch, alone=False)
        except Exception:
            if len(batch) == 1 and batch[0].error is not None:
                return
            self._run_all(batch, alone=True)

    def _run_all(self, batch: list[_Waiting], *, alone: bool) -> None:
        execute = self._writer.execute
        execute("BEGIN IMMEDIATE")
        try:
            for one in batch:
                one.error = None
                if alone:
                    execute("SAVEPOINT one")
                try:
                    one.result = one.change(self._writer)
                except Exception as error:
                    one.error = _named(error, self.path)
                    if not alone or not self._writer.in_transaction:  # SQLite itself may have taken all back
                        raise
                    execute("ROLLBACK TO one")
                if alone:
                    execute("RELEASE one")
            execute("COMMIT")
        except BaseException:
            if self._writer.in_transaction:
                execute("ROLLBACK")
            raise

    # the file

    def _connect(self) -> sqlite3.Connection:
        connection = self._guard(
            lambda: sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
        )
        self._open.append(connection)
        return connection

    def _prepare(self) -> None:
        execute = self._writer.execute
        application, version = (execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
        tables = execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if tables and application != APPLICATION:
            raise UsageError(f"{self.path} is not a state file of cgate; give another --state")
        if version > VERSION:
            raise UsageError(
                f"{self.path} was written by a newer cgate (its format is {version}, this cgate knows {VERSION}); "
                "use that cgate, or give another --state"
            )
        execute("PRAGMA journal_mode=WAL")
        execute("PRAGMA synchronous=FULL")
        if not tables:
            self.write_now(_make_tables)

    def _guard(self, what: Callable[[], T]) -> T:
        try:
            return what()
        except sqlite3.Error as error:
            raise _named(error, self.path) from None


def _make_tables(connection: sqlite3.Connection) -> None:
    if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        return  # another command has made them meanwhile
    for statement in (*job_schema.TABLES, *access_schema.TABLES, *pcci_rows.TABLES, *page_rows.TABLES):
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id={APPLICATION}")
    connection.execute(f"PRAGMA user_version={VERSION}")


def _named(error: BaseException, path: str) -> BaseException:
    """Returns the error that a user is told."""
    if not isinstance(error, sqlite3.Error):
        return error
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        return StateFullError(f"cannot write the state {path}: no space left on device")
    return LocalError(f"cannot use the state {path}: {str(error).lower()}")


def _take_lock(path: str) -> Lock:
    try:
        return Lock(path, LOCK_PATIENCE)
    except UsageError as error:
        raise LocalError(f"another cgate serves with this state: {error}") from None
    except OSError as error:
        raise LocalError(f"cannot write the state {path}: {reason_of(error)}") from None


def _check_file(path: str) -> None:
    """Makes the file, which only its owner may read: it tells what everybody has run."""
    try:
        fd = open_own(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            begin = os.pread(fd, len(MAGIC), 0)
        finally:
            os.close(fd)
        for ending in BESIDE:
            check_own(path + ending)
    except OSError as error:
        raise LocalError(f"cannot use the state {path}: {reason_of(error)}") from None
    if begin and begin != MAGIC:
        raise UsageError(f"{path} is not a state file of cgate; give another --state")


def _tell(loop: asyncio.AbstractEventLoop, batch: list[_Waiting]) -> None:
    try:
        loop.call_soon_threadsafe(_resolve, batch)
    except RuntimeError:
        pass  # the loop has ended, and nobody waits


def _resolve(batch: list[_Waiting]) -> None:
    for one in batch:
        if one.future.done():
            continue
        if one.error is not None:
            one.future.set_exception(one.error)
        else:
            one.future.set_result(one.result)
