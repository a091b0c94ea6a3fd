"""Takes back, or completes, what a run left in the middle when it was killed or lost power.

Contract: `recover(store)` is called before anything else is done with a journal.  Afterwards files that tasks add to
end where the last committed task ends, and a task that the journal calls done has its results under their names, on
disk.  A task whose results are not there waits to be run again; no single task can keep a journal from being opened.
`LocalError` names a file that cannot be cut.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from cexec.cmap.results.appending import Place, take_back
from cexec.cmap.results.journal_format import OLD_PENDING, WAITING, shown
from cexec.cmap.results.journal_store import Change
from cexec.cmap.results.renames import Rename, complete
from cexec.cmap.results.syncing import Syncer
from cexec.errors import LocalError
from cexec.system.reason import reason_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cexec.cmap.results.journal_store import JournalStore


def recover(store: JournalStore, syncer: Syncer) -> None:
    places = [
        Place(shown(path), *rest) for path, *rest in store.read("SELECT path, device, inode, size FROM adding")
    ]  # fmt: skip
    pending = [
        (key, occurrence, _renames(told, 4))
        for key, occurrence, told in store.read("SELECT key, occurrence, renames FROM pending")
    ]
    changes = [Change("DELETE FROM adding"), Change("DELETE FROM pending")]
    if store.read("SELECT 1 FROM sqlite_master WHERE name = ?", OLD_PENDING):
        for key, occurrence, told, renames in store.read(f"SELECT * FROM {OLD_PENDING}"):
            places += [Place(*values) for values in json.loads(told)]
            pending.append((key, occurrence, _renames(renames or "[]", 2)))
        changes.append(Change(f"DROP TABLE {OLD_PENDING}"))
    _take_back(store.path, places)
    query = "UPDATE task SET state = ? WHERE key = ? AND occurrence = ?"
    changes += [
        Change(query, (WAITING, key, number))
        for key, number, renames in pending
        if renames is None or not complete(renames)
    ]
    finals = (rename.final for _, _, renames in pending for rename in renames or ())
    syncer.sync_directories(filter(os.path.isdir, {os.path.dirname(final) for final in finals}))
    store.write(changes, durable=True)


def _renames(told: object, width: int) -> list[Rename] | None:
    """The renames of one task, each of `width` values, of which 0.1.0 had two; None if they cannot be understood."""
    try:
        rows = json.loads(told) if isinstance(told, str) else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == width for row in rows):
        return None
    for old, new, *identity in rows:
        names = isinstance(old, str) and isinstance(new, str) and "\0" not in old + new
        if not names or not all(type(value) is int for value in identity):
            return None
    return [Rename(*row, *[None] * (4 - width)) for row in rows]


def _take_back(journal: str, places: Iterable[Place]) -> None:
    for place in places:
        try:
            take_back(place)
        except OSError as error:
            name = place.path or "standard output"
            raise LocalError(f"cannot complete what {journal} began: cannot cut {name}: {reason_of(error)}") from None
