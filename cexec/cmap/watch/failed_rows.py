"""The tasks of a journal that have failed, as rows.

Contract: `failed_rows(database, numbers, told=...)` gives those of these numbers, in order; texts are cut at LONGEST
characters.  `told`: the journal keeps the last line of standard error; in an older one it is None, and a part of the
reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cexec.cmap.results.journal_format import FAILED
from cexec.cmap.watch.foreign_values import LONGEST, number_of, text_of, whole_of

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence


@dataclass(slots=True)
class FailedRow:
    """`task` is the row's number.  `seconds`: how long it took.  `exitval` and `signal` are those of a joblog."""

    task: int
    command: str
    worker: str
    reason: str
    last_line: str | None
    exitval: int
    signal: int
    started: float
    seconds: float


def failed_rows(database: sqlite3.Connection, numbers: Sequence[int], *, told: bool) -> list[FailedRow]:
    marks = ", ".join("?" * len(numbers))
    texts = ", ".join(f"substr({name}, 1, {LONGEST})" for name in ("command", "worker", "reason"))
    said = f"substr(said, 1, {LONGEST})" if told else "NULL"
    rows = database.execute(
        f"SELECT number, {texts}, {said}, exitval, signal, started, runtime FROM task "
        f"WHERE number IN ({marks}) AND state = ? ORDER BY number, run DESC", (*numbers, FAILED)
    )  # fmt: skip
    found: dict[int, FailedRow] = {}
    for number, command, worker, reason, line, exitval, signal, started, runtime in rows:
        if number in found:
            continue  # another task had this row in an earlier run
        found[number] = FailedRow(
            number, text_of(command), text_of(worker), text_of(reason), None if line is None else text_of(line),
            whole_of(exitval), whole_of(signal), number_of(started), number_of(runtime),
        )  # fmt: skip
    return list(found.values())
