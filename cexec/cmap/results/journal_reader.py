"""Reads a journal that somebody else may be writing, may own, or keeps where nothing can be written.

Contract: `reading(path)` gives a connection that changes nothing, disturbs no coordinator, and returns texts as they
were before they were stored.  `UsageError` when there is no such journal, `LocalError` when it cannot be read.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import quote

from cexec.cmap.results.journal_format import real_path, version_of
from cexec.errors import LocalError, UsageError
from cexec.system.reason import reason_of
from cexec.system.storage.own_files import in_shared_directory

LOG = "-wal"  # the ending of the file with what has been committed and is not in the main file yet
INDEX = "-shm"  # that of its index, which every reader needs


@contextmanager
def reading(path: str) -> Iterator[sqlite3.Connection]:
    if not os.path.isfile(path):
        raise UsageError(f"there is no journal {path}; give the --state of the run")
    with ExitStack() as stack:
        try:
            yield _open(path, stack)
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
                raise UsageError(f"{path} is no journal of cmap") from None
            raise LocalError(f"cannot read the journal {path}: {str(error).lower()}") from None
        except OSError as error:
            raise LocalError(f"cannot read the journal {path}: {reason_of(error)}") from None


def _open(path: str, stack: ExitStack) -> sqlite3.Connection:
    """SQLite makes files beside a journal that has a log.  Where it cannot, or another user owns it, a copy is read."""
    real = real_path(path)
    if not os.path.exists(real + LOG):
        return _connect(real, path, stack, "&immutable=1")
    owner = os.stat(real).st_uid
    # Where others can make files, they can put a link in the place of the index.
    if (os.geteuid() == owner and not in_shared_directory(real)) or _is_index(real + INDEX, owner):
        try:
            return _connect(real, path, stack)
        except sqlite3.OperationalError:
            pass
    directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="cexec-journal-"))
    copy = os.path.join(directory, "journal")
    for ending in ("", LOG):
        shutil.copyfile(real + ending, copy + ending)
    return _connect(copy, path, stack)


def _is_index(path: str, owner: int) -> bool:
    """True for a file that is there already, so that SQLite neither makes one nor follows a link."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_uid == owner


def _connect(real: str, path: str, stack: ExitStack, options: str = "") -> sqlite3.Connection:
    database = sqlite3.connect(f"file:{quote(os.fsencode(real))}?mode=ro{options}", uri=True)
    stack.callback(database.close)
    if not version_of(database, path):
        raise UsageError(f"{path} is no journal of cmap")
    return database
