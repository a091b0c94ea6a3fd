"""--bar, --eta and --progress: how a run is going, on the terminal.

Contract: an observer that draws with the package rich, which is imported only here; without it `UsageError` says how to
get it.  It shows nothing where standard error is no terminal.  The last picture stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cexec.cmap.run.observer import Observer
from cexec.errors import UsageError
from cexec.system.printable import printable
from cexec.system.units import show_duration, show_number

if TYPE_CHECKING:
    from cexec.cmap.inputs.tasks import Task
    from cexec.cmap.results.outcome import TaskOutcome
    from cexec.cmap.run.observer import Counts
    from cexec.cmap.watch.history import History

    try:
        from rich.console import Console, RenderableType
    except ImportError:
        pass

INTERVAL = 0.2  # seconds (ours) between two pictures
MOST_WORKERS = 20  # (ours) lines of --progress
INSTALL = "pip install 'cexec-cluster[rich]'"


class Display(Observer):
    """Comes after the `history` that it reads in the list of observers; `console` is for tests."""

    def __init__(
        self, history: History, *, bar: bool, eta: bool, progress: bool, console: Console | None = None
    ) -> None:
        try:
            from rich.console import Console
            from rich.live import Live
        except ImportError:
            option = "--bar" if bar else "--eta" if eta else "--progress"
            raise UsageError(f"{option} needs the Python package rich, which is not installed: {INSTALL}") from None
        self._history = history
        self._bar, self._eta, self._progress = bar, eta, progress
        console = console or Console(stderr=True)
        self._live = Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        self._shown = console.is_terminal
        self._due = 0.0

    def opened(self, total: int | None, now: float) -> None:
        if self._shown:
            self._live.start()

    def settled(self, task: Task, outcome: TaskOutcome, now: float) -> None:
        self._draw_if_due(now)

    def counted(self, counts: Counts, now: float) -> None:
        self._draw_if_due(now)

    def _draw_if_due(self, now: float) -> None:
        if self._shown and now >= self._due:
            self._due = now + INTERVAL
            self._draw()

    def closed(self, status: int, now: float) -> None:
        if self._shown:
            self._draw()
            self._live.stop()

    def _draw(self) -> None:
        try:
            self._live.update(self.picture(), refresh=True)
        except OSError:
            self._shown = False  # the terminal has gone

    def picture(self) -> RenderableType:
        """Returns what is to be shown now."""
        from rich.console import Group
        from rich.text import Text

        parts: list[RenderableType] = []
        if self._bar:
            parts.append(self._bar_line())
        if self._eta:
            parts.append(Text(_eta_line(self._history)))
        if self._progress:
            parts.append(self._worker_table())
        return Group(*parts)

    def _bar_line(self) -> RenderableType:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        history = self._history
        earlier = history.counts.done if history.counts else 0
        over = history.succeeded + history.failed + earlier
        line = Table.grid(padding=(0, 1), expand=True)
        line.add_column(ratio=1)
        line.add_column(justify="right", no_wrap=True)
        words = Text(f"{show_number(over)}/{'?' if history.total is None else show_number(history.total)}")
        if history.total:
            words.append(f" {100 * over // history.total}%")
        if history.failed:
            words.append(f" {show_number(history.failed)} failed", style="red")
        line.add_row(ProgressBar(total=history.total, completed=over, pulse=history.total is None), words)
        return line

    def _worker_table(self) -> RenderableType:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for place, name in enumerate(("worker", "running", "done", "failed", "mean", "tasks/s")):
            table.add_column(name, justify="right" if place else "left", no_wrap=True)
        workers = self._history.ordered()
        for worker in workers[:MOST_WORKERS]:
            mean = "-" if worker.mean is None else show_duration(worker.mean)
            rate = f"{worker.succeeded / self._history.now:.3g}" if self._history.now > 0 else "-"
            failed = Text(show_number(worker.failed), style="red" if worker.failed else "")
            running = f"{worker.running}/{worker.limit}"
            table.add_row(Text(printable(worker.name)), running, show_number(worker.succeeded), failed, mean, rate)
        if len(workers) > MOST_WORKERS:
            table.add_row(Text(f"and {len(workers) - MOST_WORKERS} more", style="dim"))
        return table


def _eta_line(history: History) -> str:
    left, seconds = history.left, history.seconds_left
    rate = f"{history.rate:.3g} tasks/s, {show_duration(history.now)} so far"
    if left is None:
        return f"the number of tasks that are left is not known yet; {rate}"
    if not left:
        return f"none left; {rate}"
    return f"{'?' if seconds is None else show_duration(seconds)} to go; {show_number(left)} left, {rate}"
