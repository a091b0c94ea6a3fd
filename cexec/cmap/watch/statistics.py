"""The statistics at the end of a run: a line for each worker, and the tasks that failed with their reasons.

Contract: `statistics(history)`, or `failures` alone, gives lines of plain text; control characters are replaced
where they are printed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cexec.system.units import show_count, show_duration, show_number, show_size

if TYPE_CHECKING:
    from cexec.cmap.watch.history import Failures, History, WorkerHistory

MOST_LINES = 20  # (ours) failed tasks that are named
LEAST_IDLE = 1.0  # seconds (ours) of pauses that are worth a word
HEAD = ("worker", "done", "failed", "lost", "refused", "mean", "tasks/s", "busy", "output")


def statistics(history: History) -> list[str]:
    """Returns all lines."""
    done = 0 if history.counts is None else history.counts.succeeded_before
    failed = 0 if history.counts is None else history.counts.failed_before
    left, idle = history.left, idle_words(history)
    undone = f", {show_number(left)} not done" if left else ""
    lines = [
        f"{show_count(history.succeeded, 'task')} succeeded{_before(done)}, "
        f"{show_number(history.failed)} failed{_before(failed)}{undone}; "
        f"{show_duration(history.now)}{f' ({idle})' if idle else ''}, {history.rate:.3g} tasks/s"
    ]
    if history.workers:
        lines += _table([HEAD, *(row(worker, history.now) for worker in history.ordered())])
    return lines + failures(history)


def _before(count: int) -> str:
    """Returns what a count of this run leaves out."""
    return f", {show_number(count)} in earlier runs" if count else ""


def idle_words(history: History) -> str:
    """Says what pauses have cost, which the rate leaves out; empty if that is nothing."""
    return f"{show_duration(history.idle)} of it lost to pauses" if history.idle >= LEAST_IDLE else ""


def failures(found: Failures) -> list[str]:
    """Returns a line for each of the first tasks that failed, with the reason."""
    lines = []
    for failure in found.failures[:MOST_LINES]:
        where = f" on {failure.worker}" if failure.worker else ""
        lines.append(f"task {failure.number} ({failure.label}) failed{where}: {failure.reason}")
    if found.failed > MOST_LINES:
        lines.append(f"and {show_number(found.failed - MOST_LINES)} more failed; --joblog and --report have them")
    return lines


def row(worker: WorkerHistory, seconds: float) -> tuple[str, ...]:
    """Returns one worker's cells for the columns of HEAD."""
    capacity = seconds * max(len(worker.slots), 1)
    return (
        worker.name,
        show_number(worker.succeeded),
        show_number(worker.failed),
        show_number(worker.lost),
        show_number(worker.turned_away),
        "-" if worker.mean is None else show_duration(worker.mean),
        f"{worker.succeeded / seconds:.3g}" if seconds > 0 else "-",
        f"{min(1.0, worker.busy / capacity):.0%}" if capacity > 0 else "-",
        show_size(worker.bytes_out),
    )


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    """Columns side by side: the first to the left, the others to the right."""
    widths = [max(len(cells[column]) for cells in rows) for column in range(len(HEAD))]
    lines = []
    for first, *others in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        lines.append("  ".join(cells))
    return lines
