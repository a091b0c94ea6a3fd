"""A copy of a journal, for those who want to know what a run would do and must not change anything: --dry-run.

Contract: `copied(path)` gives the path of a copy that is there as long as the context lasts; if there is no journal,
there is no copy either.  In it nothing waits to be completed, so that no file is touched when it is opened.  It raises
`UsageError` for a file that is no journal, and `LocalError` for one that cannot be read.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from urllib.parse import quote

from cexec.errors import LocalError, UsageError
from cexec.system.reason import reason_of

# Tables, in any version of a journal, of what is to be completed or taken back when it is opened.
UNFINISHED = ("adding", "old_pending", "pending")


@contextmanager
def copied(path: str) -> Iterator[str]:
    try:
        with tempfile.TemporaryDirectory(prefix="cexec-journal-") as directory:
            copy = os.path.join(directory, os.path.basename(path))
            if os.path.exists(path):
                _copy(path, copy)
            yield copy
    except OSError as error:
        raise LocalError(f"cannot copy the journal {path}: {reason_of(error)}") from None


def _copy(path: str, copy: str) -> None:
    whole = os.path.realpath(path)
    # SQLite would make a log beside a journal that has none.
    still = "" if os.path.exists(f"{whole}-wal") else "&immutable=1"
    uri = f"file:{quote(os.fsencode(whole))}?mode=ro{still}"
    try:
        with closing(sqlite3.connect(uri, uri=True)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
            tables = {name for (name,) in target.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            for name in tables.intersection(UNFINISHED):
                target.execute(f"DELETE FROM {name}")
            target.commit()
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR):
            raise UsageError(f"{path} is no journal of cmap; give another --state") from None
        raise LocalError(f"cannot read the journal {path}: {str(error).lower()}") from None
