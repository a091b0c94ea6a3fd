"""--bar, --eta, --progress and --latest-line: how a run is going, at the bottom of the terminal.

Contract: an observer that draws with `system.terminal`, above whose picture the outputs of tasks pass.  It shows
nothing where standard error is no terminal, or a dumb one.  Each line comes in several lengths, of which the longest
that the window has room for is shown.  The last picture stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cexec.cmap.run.observer import Observer
from cexec.system.printable import printable
from cexec.system.terminal import BOLD, CYAN, DIM, GREEN, RED, Painter, Terminal, fitting, width
from cexec.system.units import show_duration, show_number

if TYPE_CHECKING:
    from cexec.cmap.inputs.tasks import Task
    from cexec.cmap.results.outcome import TaskOutcome
    from cexec.cmap.run.observer import Counts
    from cexec.cmap.watch.history import History

INTERVAL = 0.2  # seconds (ours) between two pictures
PAUSED = "paused"
LEAST_BAR = 10  # columns (ours) of a bar, with its brackets; where there are fewer, words alone are shown


class Display(Observer):
    """Comes after the `history` that it reads in the list of observers; `terminal` is standard error's."""

    def __init__(
        self, history: History, terminal: Terminal, *, bar: bool, eta: bool, progress: bool, latest: bool = False
    ) -> None:
        """`latest`: each task that runs has a line with the last one that its program has written."""
        self._history = history
        self._terminal = terminal
        self._bar, self._eta, self._progress = bar, eta, progress
        self._latest = latest
        self._painter: Painter | None = None
        self._due = 0.0

    def opened(self, total: int | None, now: float) -> None:
        if self._terminal.drawable:
            self._painter = Painter(self._terminal)

    def settled(self, task: Task, outcome: TaskOutcome, now: float) -> None:
        self._draw_if_due(now)

    def counted(self, counts: Counts, now: float) -> None:
        self._draw_if_due(now)

    def closed(self, status: int, now: float) -> None:
        if self._painter is not None:
            self._painter.draw(self.picture())
            self._painter.close(keep=True)
            self._painter = None

    def erase(self) -> None:
        """Takes the picture away for a while: the process is going to be stopped."""
        if self._painter is not None:
            self._painter.erase()

    def _draw_if_due(self, now: float) -> None:
        if self._painter is not None and now >= self._due:
            self._due = now + INTERVAL
            self._painter.draw(self.picture())

    def picture(self) -> list[str]:
        """Returns the lines to be shown now, for the window as it is."""
        columns, rows = self._terminal.size()
        room = columns - 1
        lines = [self._bar_line(room)] if self._bar else []
        if self._eta:
            lines.append(fitting(_eta_texts(self._history), room))
        if self._progress and (left := rows - 1 - len(lines)) > 0:
            from cexec.cmap.watch.worker_table import worker_lines  # which needs rich

            lines += worker_lines(self._history, room, left, coloured=self._terminal.coloured)
        if self._latest and (left := rows - 1 - len(lines)) > 0:
            lines = self._latest_lines()[-left:] + lines
        return [line for line in lines if line]

    def _latest_lines(self) -> list[str]:
        workers = self._history.workers.values()
        running = [slot.running for worker in workers for slot in worker.slots if slot.running is not None]
        found = [(one, one.latest()) for one in sorted(running, key=lambda one: one.task)]
        paint = self._terminal.paint
        return [f"{paint(printable(one.label), CYAN)}: {printable(text)}" for one, text in found if text]

    def _bar_line(self, room: int) -> str:
        history, paint = self._history, self._terminal.paint
        earlier = history.counts.done if history.counts else 0
        over = history.succeeded + history.failed + earlier
        failed = f" {show_number(history.failed)} failed" if history.failed else ""
        if history.total is None:
            done = f"{show_number(over)} done{failed}"
            return fitting([f"{done}, {PAUSED}" if history.paused else done, done, f"{show_number(over)}"], room)
        share = f"{100 * over // max(1, history.total)}%"
        done = f"{show_number(over)}/{show_number(history.total)} {share}"
        seconds = history.seconds_left
        rest = f", {show_duration(seconds)} left" if seconds and not self._eta else ""
        if history.paused:
            rest = f", {PAUSED}"
        texts = [f"{done}{failed}{rest}", f"{done}{failed}", done, share]
        words = fitting(texts, room - LEAST_BAR - 1) or fitting(texts, room)
        size = room - width(words) - 1
        told = words.replace(failed, paint(failed, RED, BOLD)) if failed else words
        if size < LEAST_BAR:
            return told
        filled = (size - 2) * over // max(1, history.total)
        return f"[{paint('#' * filled, GREEN)}{paint('-' * (size - 2 - filled), DIM)}] {told}"


def _eta_texts(history: History) -> list[str]:
    """Returns what is known of the end of the run, the longest text first."""
    texts = _texts_of_end(history)
    return [*(f"{PAUSED}; {text}" for text in texts), PAUSED] if history.paused else texts


def _texts_of_end(history: History) -> list[str]:
    left, seconds = history.left, history.seconds_left
    rate = f"{history.rate:.3g} tasks/s"
    if left is None:
        so_far = f"{rate}, {show_duration(history.now)} so far"
        return [f"the number of tasks that are left is not known yet; {so_far}", so_far, rate]
    if not left:
        return [f"none left; {rate}, {show_duration(history.now)} so far", "none left"]
    to_go = f"{'?' if seconds is None else show_duration(seconds)} to go"
    some = f"{to_go}; {show_number(left)} left"
    return [f"{some}, {rate}, {show_duration(history.now)} so far", some, to_go]
