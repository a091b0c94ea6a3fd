"""The end of a task: everything that it leaves behind, all of it or nothing.

Contract: `commit` adds to files, tells the journal and renames, in the order that `journal` asks for.  After a
`LocalError` the task is not saved and the coordinator has to stop: it may be the disk that is full.  What the journal
knew before that, which can be a rename that failed, is completed when it is opened again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cexec.cmap.inputs.notation import format_ranges
from cexec.cmap.results.attempt_files import rename_all
from cexec.errors import LocalError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cexec.cmap.results.appending import AppendFile, Place
    from cexec.cmap.results.journal import Journal, TaskClaim
    from cexec.cmap.results.outcome import TaskOutcome


def commit(
    journal: Journal | None,
    claim: TaskClaim | None,
    outcome: TaskOutcome,
    *,
    appends: Sequence[tuple[AppendFile, Iterable[bytes]]] = (),
    renames: Sequence[tuple[str, str]] = (),
) -> None:
    """`claim` is the journal's, where there is one.  One task at a time."""
    places = [(file, place) for file in {id(file): file for file, _ in appends}.values() if (place := file.place())]
    if journal is not None and claim is not None and places:
        journal.intend(claim, [place for _, place in places])
    try:
        for file, pieces in appends:
            file.append(pieces)
        if journal is not None and claim is not None:
            journal.commit(claim, outcome, renames)
    except LocalError:
        _take_back(journal, claim, places)
        raise
    rename_all(renames)
    if journal is not None and claim is not None and renames:
        journal.settle(claim)


def _take_back(journal: Journal | None, claim: TaskClaim | None, places: Sequence[tuple[AppendFile, Place]]) -> None:
    """As if the task had not ended."""
    for file, place in places:
        file.take_back(place)
    if journal is not None and claim is not None:
        try:
            journal.withdraw(claim)
        except LocalError:
            pass  # the next run will take back what has been taken back, which is nothing


def unsaved(numbers: Iterable[int]) -> str:
    """Returns the words for tasks that a coordinator could not save before it had to stop."""
    ascending = sorted(numbers)
    noun = "task" if len(ascending) == 1 else "tasks"
    return f"{noun} {format_ranges(ascending)} {'is' if len(ascending) == 1 else 'are'} not saved"
