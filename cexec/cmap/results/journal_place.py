"""The files of a journal in a directory where other users can make files, such as /tmp.

Contract: `prepare(path)` raises `UsageError` for a journal, or a file beside it, that is another user's.  Where others
can make files it also makes every file that SQLite would open by its name, before SQLite does: in a sticky directory
nobody but this user can then put another one in its place.  Else a log that is planted after the check would be played
back into the journal, and what a journal says is done.  `tidy(path)` removes what SQLite leaves of that.

An empty journal would not do: SQLite removes the files beside an empty database before it makes them anew.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import tempfile
from contextlib import closing, suppress

from cexec.cmap.results.journal_format import check_owner
from cexec.errors import UsageError
from cexec.system.reason import reason_of
from cexec.system.storage.own_files import in_shared_directory, open_own

MADE_FIRST = ("-wal", "-shm", "-journal")  # by SQLite's rules


def prepare(path: str) -> None:
    check_owner(path)
    if not in_shared_directory(path):
        return
    directory = os.path.dirname(path) or "."
    if not os.stat(directory).st_mode & stat.S_ISVTX:
        raise UsageError(
            f"cannot use the journal {path}: every user can replace files in {directory}; give a --state elsewhere"
        )
    try:
        _make(path, directory)
        for ending in MADE_FIRST:
            os.close(open_own(path + ending, os.O_RDWR | os.O_CREAT, 0o644))
    except OSError as error:
        raise UsageError(f"cannot use the journal {path}: {error.filename or path}: {reason_of(error)}") from None


def tidy(path: str) -> None:
    """Removes the file that SQLite does not; no coordinator has the journal now but this one."""
    if in_shared_directory(path):
        with suppress(OSError):
            os.unlink(f"{path}-journal")


def _make(path: str, directory: str) -> None:
    """Makes a journal that is no empty file, in a directory of this user alone, and gives it its name."""
    fd = open_own(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if os.fstat(fd).st_size:
            return
    finally:
        os.close(fd)
    with tempfile.TemporaryDirectory(dir=directory, prefix=".cexec-journal-") as place:
        made = os.path.join(place, "journal")
        with closing(sqlite3.connect(made, isolation_level=None)) as database:
            database.execute("PRAGMA journal_mode=WAL").fetchone()
        os.replace(made, path)  # an empty file of ours, which nobody else can exchange
