"""The statistics at the end of a run: which worker did what, how fast, and which tasks failed and why.

Contract: `statistics(history)`, or `failures` alone, gives lines of plain text; whoever prints them replaces control
characters.  The words for numbers, `duration`, `size`, `number` and `count`, are those of displays and reports too.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cexec.cmap.history import Failures, History, WorkerHistory

MOST_LINES = 20  # (ours) failed tasks that are named
HEAD = ("worker", "done", "failed", "lost", "refused", "mean", "tasks/s", "busy", "output")


def statistics(history: History) -> list[str]:
    """Everything."""
    done = 0 if history.counts is None else history.counts.done
    earlier = f", {number(done)} in earlier runs" if done else ""
    left = history.left
    undone = f", {number(left)} not done" if left else ""
    lines = [
        f"{count(history.succeeded, 'task')} succeeded{earlier}, {number(history.failed)} failed{undone}; "
        f"{duration(history.now)}, {history.rate:.3g} tasks/s"
    ]
    if history.workers:
        lines += _table([HEAD, *(row(worker, history.now) for worker in history.ordered())])
    return lines + failures(history)


def failures(found: Failures) -> list[str]:
    """Which tasks failed and why, a line for each of the first."""
    lines = []
    for failure in found.failures[:MOST_LINES]:
        where = f" on {failure.worker}" if failure.worker else ""
        lines.append(f"task {failure.number} ({failure.label}) failed{where}: {failure.reason}")
    if found.failed > MOST_LINES:
        lines.append(f"and {number(found.failed - MOST_LINES)} more failed; --joblog and --report have them")
    return lines


def row(worker: WorkerHistory, seconds: float) -> tuple[str, ...]:
    """What HEAD says, of one worker."""
    capacity = seconds * max(len(worker.slots), 1)
    return (
        worker.name,
        number(worker.succeeded),
        number(worker.failed),
        number(worker.lost),
        number(worker.turned_away),
        "-" if worker.mean is None else duration(worker.mean),
        f"{worker.succeeded / seconds:.3g}" if seconds > 0 else "-",
        f"{min(1.0, worker.busy / capacity):.0%}" if capacity > 0 else "-",
        size(worker.bytes_out),
    )


def duration(seconds: float) -> str:
    """`0.04 s`, `12.5 s`, `3 min 05 s`, `2 h 07 min`, `3 d 04 h`."""
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, small, name, smaller in ((60, 1, "min", "s"), (3600, 60, "h", "min")):
        if whole < unit * (60 if unit == 60 else 24):
            return f"{whole // unit} {name} {whole % unit // small:02} {smaller}"
    return f"{whole // 86400} d {whole % 86400 // 3600:02} h"


def size(number: int) -> str:
    """`999 B`, `1.5 kB`, `20 MB`."""
    value = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 99.5 else f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def number(value: int) -> str:
    """`10,000`."""
    return f"{value:,}"


def count(value: int, thing: str) -> str:
    """`1 task`, `10,000 tasks`."""
    return f"{number(value)} {thing}{'' if value == 1 else 's'}"


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    """Columns side by side: the first to the left, the others to the right."""
    widths = [max(len(cells[column]) for cells in rows) for column in range(len(HEAD))]
    lines = []
    for first, *others in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        lines.append("  ".join(cells))
    return lines
