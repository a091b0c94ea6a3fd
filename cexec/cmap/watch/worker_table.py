"""The table of --progress: a line for each worker, drawn by rich.

Contract: `worker_lines` returns at most `rows` lines of at most `columns` columns.  Where the window is too narrow for
all columns of the table, those at its end are left out; where it is too low, the last line counts the other workers.
Escape sequences are in them only if `coloured` is true, whatever the environment says.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cexec.system.printable import printable
from cexec.system.units import show_duration, show_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cexec.cmap.watch.history import History, WorkerHistory

HEADINGS = ("worker", "running", "done", "failed", "mean", "tasks/s")
LEAST_HEADINGS = 2  # (ours) worker and running are shown in any window
MOST_WORKERS = 20  # (ours) lines


def worker_lines(history: History, columns: int, rows: int, *, coloured: bool) -> list[str]:
    workers = history.ordered()
    most = min(MOST_WORKERS, rows - 1)  # below the headings
    if len(workers) > most:
        most = max(0, min(MOST_WORKERS, rows - 2))
    cells = [_cells(worker, history.now) for worker in workers[:most]]
    console = Console(
        file=io.StringIO(), width=max(1, columns), force_terminal=coloured, no_color=not coloured,
        color_system="standard" if coloured else None, legacy_windows=False, _environ={},
    )  # fmt: skip
    table = next(
        (found for count in range(len(HEADINGS), LEAST_HEADINGS, -1) if _fits(found := _table(cells, count), console)),
        _table(cells, LEAST_HEADINGS),
    )
    with console.capture() as capture:
        console.print(table)
    lines = [line.rstrip() for line in capture.get().splitlines()]
    if len(workers) > most:
        lines.append(f"and {show_number(len(workers) - most)} more")
    return lines[:rows]


def _fits(table: Table, console: Console) -> bool:
    wide = console.options.update(width=10_000, max_width=10_000)
    return console.measure(table, options=wide).maximum <= console.width


def _table(rows: Sequence[Sequence[Text]], count: int) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for place, name in enumerate(HEADINGS[:count]):
        table.add_column(name, justify="right" if place else "left", no_wrap=True, overflow="crop")
    for cells in rows:
        table.add_row(*cells[:count])
    return table


def _cells(worker: WorkerHistory, seconds: float) -> tuple[Text, ...]:
    return (
        Text(printable(worker.name)),
        Text(f"{worker.running}/{worker.limit}"),
        Text(show_number(worker.succeeded)),
        Text(show_number(worker.failed), style="bold red" if worker.failed else ""),
        Text("-" if worker.mean is None else show_duration(worker.mean)),
        Text(f"{worker.succeeded / seconds:.3g}" if seconds > 0 else "-"),
    )
