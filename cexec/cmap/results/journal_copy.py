"""A copy of a journal, for those who want to know what a run would do and must not change anything: --dry-run.

Contract: `copied(path)` gives the path of a copy that is there as long as the context lasts; if there is no journal,
there is no copy either.  In it nothing waits to be completed or taken back, so that no file is touched when it is
opened.  Errors are those of `journal_reader`; `LocalError` also if there is no room for the copy.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager

from cexec.cmap.results.journal_format import OLD_PENDING
from cexec.cmap.results.journal_reader import reading
from cexec.errors import LocalError
from cexec.system.reason import reason_of

UNFINISHED = ("adding", "pending", OLD_PENDING)  # tables, in any version, of what an opened journal would see to


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
    with reading(path) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
        tables = {name for (name,) in target.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        for name in tables.intersection(UNFINISHED):
            target.execute(f"DELETE FROM {name}")
        target.commit()
