"""A run as clients are told it.

Contract: values that JSON can have; texts are what a journal contains, which a stranger may have written, and no more
than it allows.  docs/api.md, "Runs".
"""

from __future__ import annotations

import os
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from cexec.gate.store.job_records import show_time

if TYPE_CHECKING:
    from cexec.cmap.watch.failed_rows import FailedRow
    from cexec.cmap.watch.work_sums import WorkSum
    from cexec.gate.runs.run_shelf import RunBook

LATEST_TIME = 1 << 37  # seconds since 1970: after that, a time has no year of four digits


class RunStanding(StrEnum):
    """How a run stands."""

    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"  # every task is over, also those that have failed
    LEFT = "left"  # no cmap runs, and tasks are left: cmap --resume goes on with it
    UNREAD = "unread"  # it has not been read yet; the next answer may tell more
    UNREADABLE = "unreadable"  # `problem` says why


def state_of(book: RunBook) -> RunStanding:
    figures = book.account.figures
    if book.problem:
        return RunStanding.UNREADABLE
    if not book.known:
        return RunStanding.UNREAD
    if figures.process:
        return RunStanding.PAUSED if figures.paused else RunStanding.RUNNING
    return RunStanding.LEFT if figures.left else RunStanding.DONE


def run_document(book: RunBook, now: float) -> dict[str, Any]:
    """Returns the figures; they are null for a run that is unread or unreadable."""
    file, figures, state = book.file, book.account.figures, state_of(book)
    known = state not in (RunStanding.UNREAD, RunStanding.UNREADABLE)
    told: dict[str, Any] = {
        "id": file.id, "name": file.name, "directory": file.directory, "owner": file.owner or None,
        "state": state.value, "problem": book.problem or None, "changed": _time(file.changed),
        "control": bool(known and figures.process and (not file.owner or os.geteuid() == 0)),
    }  # fmt: skip
    if not known:
        names = ("command", "host", "process", "started", "runs", "total", "counts", "weight", "elapsed", "real",
                 "cpu", "rate", "eta")  # fmt: skip
        return told | dict.fromkeys(names)
    rate = book.account.rate(now)
    end = now if figures.process else max(figures.noted, figures.ended)
    return told | {
        "command": figures.command or None,
        "host": figures.host or None,
        "process": figures.process or None,
        "started": _time(figures.started),
        "runs": figures.runs,
        "total": figures.total,
        "counts": dict(figures.counts),
        "weight": figures.weight,
        "elapsed": round(max(0.0, end - figures.started), 3) if figures.started else None,
        "real": round(figures.real, 3),
        "cpu": None if figures.cpu is None else round(figures.cpu, 3),
        "rate": round(rate, 6),
        "eta": _seconds_left(book, rate),
    }


def worker_document(work: WorkSum) -> dict[str, Any]:
    return {
        "name": work.name,
        "running": work.running,
        "attempts": work.attempts,
        "succeeded": work.succeeded,
        "failed": work.attempts - work.succeeded,
        "real": round(work.real, 3),
        "cpu": None if work.cpu is None else round(work.cpu, 3),
        "last": _time(work.last),
    }


def failed_document(row: FailedRow) -> dict[str, Any]:
    return {
        "task": row.task,
        "command": row.command,
        "worker": row.worker or None,
        "reason": row.reason,
        "last_line": row.last_line,
        "exit_status": row.exitval,
        "signal": row.signal or None,
        "started": _time(row.started),
        "seconds": round(row.seconds, 3),
    }


def _seconds_left(book: RunBook, rate: float) -> float | None:
    figures = book.account.figures
    if not figures.process or figures.paused or figures.total is None or not rate:
        return None
    return round(figures.left / rate, 3)


def _time(at: float) -> str | None:
    return show_time(at) if 0 < at < LATEST_TIME else None
