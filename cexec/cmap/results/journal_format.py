"""The tables of a journal: what they are called, how texts are stored, and how an older journal becomes a new one.

Contract: `steps_from` makes the tables in a new database and brings older ones up to date; `version_of` raises
`UsageError` for a database that is no journal.  `stored` makes of any text something that SQLite takes, `shown` makes the text of it.

| table | content |
|---|---|
| `run` | one row for each call of cmap with this journal: its `command` line, its `host`, and how it stands (`status`) |
| `task` | what became of each task; equal tasks, which have one `key`, differ by `occurrence`; `stamp` tells its inputs' size and time, `place` is a hash of its results' names; `said` is the last line of a failed one's standard error |
| `attempt` | each attempt; `once`: at a worker whose jobs must not be repeated; `cpu`: seconds, NULL if nobody knows |
| `adding` | where files ended before the tasks that end now were added to them: what lies beyond was not committed |
| `pending` | files of tasks that are done, which may not have their names yet |
"""  # noqa: E501

from __future__ import annotations

import os
import sqlite3

from cexec.errors import UsageError
from cexec.system.reason import reason_of
from cexec.system.storage.own_files import check_output, check_own

WAITING, DONE, FAILED = range(3)
APPLICATION = 0x636D6170  # "cmap", in the database's header
OLD_FORMAT, ONCE_FORMAT, FORMAT = 1, 2, 3  # the old one is that of 0.1.0; the next one knows `once`
OLD_PENDING = "old_pending"  # the table `pending` of 0.1.0, until what it tells is done
BESIDE = ("-wal", "-shm", "-journal")  # the endings of SQLite's files beside a database
MAGIC = b"SQLite format 3\0"
_SCHEMA = (
    "CREATE TABLE run (number INTEGER PRIMARY KEY, token TEXT, started REAL, status TEXT)",
    "CREATE TABLE task ("
    "key BLOB, occurrence INTEGER, run INTEGER, number INTEGER, state INTEGER, command TEXT, worker TEXT, "
    "started REAL, runtime REAL, sent INTEGER, received INTEGER, exitval INTEGER, signal INTEGER, reason TEXT, "
    "PRIMARY KEY (key, occurrence)) WITHOUT ROWID",
    "CREATE TABLE attempt ("
    "id INTEGER PRIMARY KEY, key BLOB, occurrence INTEGER, worker TEXT, started REAL, ended REAL, reason TEXT)",
    "CREATE INDEX attempt_task ON attempt (key, occurrence)",
)
_ADDED = (
    "ALTER TABLE task ADD COLUMN stamp TEXT",
    "ALTER TABLE task ADD COLUMN place TEXT",
    "ALTER TABLE attempt ADD COLUMN once INTEGER",
    "CREATE INDEX task_number ON task (number)",
    "CREATE TABLE adding (path TEXT, device INTEGER, inode INTEGER, size INTEGER)",
    "CREATE TABLE pending (key BLOB, occurrence INTEGER, renames TEXT, PRIMARY KEY (key, occurrence))",
)
_TOLD = (
    "ALTER TABLE run ADD COLUMN command TEXT",
    "ALTER TABLE run ADD COLUMN host TEXT",
    "ALTER TABLE attempt ADD COLUMN cpu REAL",
    "ALTER TABLE task ADD COLUMN said TEXT",
)
_MARKS = (f"PRAGMA application_id={APPLICATION}", f"PRAGMA user_version={FORMAT}")


def check_magic(path: str) -> None:
    """Raises `UsageError` for a file that is no database: SQLite takes one of a few bytes for an empty database."""
    try:
        with open(path, "rb") as file:
            begin = file.read(len(MAGIC))
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageError(f"cannot read {path}: {reason_of(error)}") from None
    if begin and begin != MAGIC:
        raise UsageError(f"{path} is no journal of cmap; give another --state")


def check_owner(path: str) -> None:
    """Raises `UsageError` if another user has made a journal, or a file beside it that SQLite takes for a part of it.

    What a journal says is done: its tasks' files get their names.  So nobody's but this user's word counts.
    """
    for ending in ("", *BESIDE):
        try:
            check_own(path + ending)
        except OSError as error:
            raise UsageError(f"cannot use the journal {path}: {path}{ending}: {reason_of(error)}") from None


def check_link(path: str) -> None:
    """Raises `UsageError` for a link that another user can have put in the place of a journal."""
    try:
        check_output(path)
    except OSError as error:
        raise UsageError(f"cannot use the journal {path}: {reason_of(error)}") from None


def version_of(database: sqlite3.Connection, path: str) -> int:
    """Returns the version of a journal, 0 for an empty database; raises `UsageError` for any other."""
    (application,) = database.execute("PRAGMA application_id").fetchone()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if (application, version, tables) == (0, 0, 0):
        return 0
    if application != APPLICATION or version not in (OLD_FORMAT, ONCE_FORMAT, FORMAT):
        raise UsageError(f"{path} is no journal of this version of cmap; give another --state")
    return int(version)


def steps_from(version: int) -> tuple[str, ...]:
    """Returns what makes a journal of this version out of an empty database (0) or an older journal."""
    if version == FORMAT:
        return ()
    if version == ONCE_FORMAT:
        return (*_TOLD, *_MARKS)
    before = (f"ALTER TABLE pending RENAME TO {OLD_PENDING}",) if version else _SCHEMA
    return (*before, *_ADDED, *_TOLD, *_MARKS)


def stored(text: str) -> str | bytes:
    """Bytes that are no UTF-8, which `text` has as surrogate escapes, make the whole a BLOB."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape" if _only_escapes(text) else "replace")
    return text


def shown(value: str | bytes | None) -> str:
    """The text that was stored; empty for none."""
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value or ""


def _only_escapes(text: str) -> bool:
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False  # half a character, which a worker's name may have
    return True


def real_path(path: str) -> str:
    """A symbolic link to a journal is the same journal: SQLite and the lock find it by this name."""
    return os.path.realpath(path)
