"""cps --watch on a terminal: totals, the workers, the jobs that run, and the keys that sort and end it.

Contract: `picture` is pure: the lines for a window of this size; `narrowed` leaves columns out for it.  `WatchScreen`
is a context: it takes the window for itself (the alternate screen), and gives it back however it ends, with the last
picture on the usual screen.  `show` draws, after it has obeyed the keys and signals that came; it raises
`WatchEndedError` for q.  While another command is in the foreground of the terminal it draws nothing.  Cells are
printable already.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from cexec.errors import CexecError
from cexec.protocol.datagrams.client_jobs import ClientJob
from cexec.system.io.keyboard import Keyboard
from cexec.system.io.wakeup import Wakeup
from cexec.system.printable import printable
from cexec.system.terminal import (
    BOLD,
    CLEAR_BELOW,
    CLEAR_LINE,
    DIM,
    RED,
    YELLOW,
    Terminal,
    clip,
    fitting,
    in_foreground,
    width,
)
from cexec.system.units import show_count, show_number, show_short_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cexec.protocol.datagrams.hello import Hello

HEALTHY = ("ok", "-", "")
OWN_WINDOW, USUAL_WINDOW = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"  # (xterm) alternate screen, no cursor
HOME = "\x1b[H"  # (ECMA-48)
ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
JOBS_SHARE = 3  # (ours) of the window's rows: one of so many is kept for jobs, where there are some
LEAST_JOBS = 4  # rows (ours) of the table of jobs with one job in it, if that leaves as many for the workers
# What can be sorted by, and the value of each that comes first when it is the smallest.
SORTS: dict[str, Callable[[WatchedWorker], object]] = {
    "name": lambda worker: (),
    "running": lambda worker: -worker.hello.running,
    "free": lambda worker: worker.hello.running - worker.hello.slots,
    "waiting": lambda worker: -worker.hello.waiting,
    "load": lambda worker: -worker.hello.load,
    "speed": lambda worker: -worker.hello.speed,
    "uptime": lambda worker: -worker.hello.uptime,
    "health": lambda worker: worker.healthy,
}
LEFT_OUT = ("VERSION", "INSTANCE", "CLOCK", "SPEED", "UPTIME", "LABELS", "WAITING")  # where a window is too narrow
GAP = 2  # columns between two cells
KEYS = "q quits, s sorts, r reverses"


class WatchEndedError(CexecError):
    """Somebody pressed q."""


@dataclass(slots=True)
class WatchedWorker:
    """One line of the table, and what it is made of."""

    name: str
    cells: list[str]
    hello: Hello
    healthy: bool
    jobs: list[ClientJob] = field(default_factory=list)


@dataclass(slots=True)
class RowOrder:
    """Says by which column the rows are sorted."""

    column: str = "name"
    backwards: bool = False

    def sorted(self, workers: Sequence[WatchedWorker]) -> list[WatchedWorker]:
        """Returns them in this order; those that are equal stay in theirs."""
        found = sorted(workers, key=SORTS[self.column])  # type: ignore[arg-type]
        return found[::-1] if self.backwards else found

    def next_column(self) -> None:
        names = list(SORTS)
        self.column = names[(names.index(self.column) + 1) % len(names)]


def narrowed(headings: Sequence[str], rows: Sequence[list[str]], columns: int) -> tuple[list[str], list[list[str]]]:
    """Returns headings and cells without those of LEFT_OUT, the first ones first, until the table is narrow enough."""
    widths = {head: max(map(width, [head, *cells])) for head, *cells in zip(headings, *rows, strict=True)}
    for name in LEFT_OUT:
        if sum(widths.values()) + GAP * (len(widths) - 1) <= columns:
            break
        widths.pop(name, None)
    kept = [index for index, head in enumerate(headings) if head in widths]
    return [headings[index] for index in kept], [[row[index] for index in kept] for row in rows]


def picture(
    workers: Sequence[WatchedWorker],
    headings: Sequence[str],
    table: Callable[[list[str], list[list[str]]], list[str]],
    terminal: Terminal,
    order: RowOrder,
    clock: str,
    keys: str,
) -> list[str]:
    """Returns the lines for the window as it is; `table` makes lines of headings and rows."""
    columns, rows = terminal.size()
    paint = terminal.paint
    lines = [paint(fitting(_totals(workers, clock), columns), BOLD)]
    jobs = _job_lines(workers, table)
    left = rows - len(lines) - 1  # the keys
    share = max(left // JOBS_SHARE, min(LEAST_JOBS, left // 2), left - len(workers) - 1)
    for_jobs = min(len(jobs) and len(jobs) + 1, share)
    ordered = order.sorted(workers)
    made = table(*narrowed(headings, [worker.cells for worker in ordered], columns))
    shown = [paint(line, *styles_of(worker)) for line, worker in zip(made[1:], ordered, strict=True)]
    lines += _most([paint(made[0], BOLD), *shown], left - for_jobs)
    if for_jobs > 1:
        lines += ["", *_most([paint(jobs[0], BOLD), *jobs[1:]], for_jobs - 1)]
    sort = f"{order.column}{' backwards' if order.backwards else ''}"
    lines = [clip(line, columns) for line in lines[: max(1, rows - 1)]]
    if rows > len(lines):
        lines.append(paint(fitting([f"{keys}; sorted by {sort}", keys, "q quits"], columns), DIM))
    return lines


def _totals(workers: Sequence[WatchedWorker], clock: str) -> list[str]:
    slots = sum(worker.hello.slots for worker in workers)
    running = sum(worker.hello.running for worker in workers)
    free = sum(max(0, worker.hello.slots - worker.hello.running) for worker in workers)
    waiting = sum(worker.hello.waiting for worker in workers)
    count = show_count(len(workers), "worker")
    used = f"{show_number(running)}/{show_number(slots)}"
    return [
        f"{clock}  {count}, {show_count(slots, 'slot')}: {show_number(running)} running, {show_number(free)} free; "
        f"{show_number(waiting)} waiting",
        f"{clock}  {count}, {used} running, {show_number(waiting)} waiting", f"{clock} {used}", used,
    ]  # fmt: skip


def _job_lines(workers: Sequence[WatchedWorker], table: Callable[[list[str], list[list[str]]], list[str]]) -> list[str]:
    """Returns a table of the jobs that run, the oldest first; empty if there are none."""
    jobs = sorted(((job, worker) for worker in workers for job in worker.jobs), key=lambda pair: -pair[0].seconds)
    if not jobs:
        return []
    cells = [
        [printable(f"{job.client}@{job.host}"), worker.name, show_short_duration(job.seconds)] for job, worker in jobs
    ]
    untold = sum(worker.hello.running for worker in workers) - len(jobs)
    lines = table(["CLIENT", "WORKER", "AGE"], cells)
    return [*lines, f"and {show_count(untold, 'job')} more"] if untold > 0 else lines


def styles_of(worker: WatchedWorker) -> tuple[str, ...]:
    """Returns how the worker's line is painted: red if it has trouble, yellow if all of its slots are busy."""
    if not worker.healthy:
        return (RED,)
    return (YELLOW,) if worker.hello.running >= worker.hello.slots else ()


def _most(lines: list[str], rows: int) -> list[str]:
    """Returns the first of these lines; the last one says how many more there are."""
    if len(lines) <= rows:
        return lines
    return [*lines[: rows - 1], f"and {show_number(len(lines) - rows + 1)} more"] if rows > 1 else lines[: max(0, rows)]


class WatchScreen:
    """The window of a terminal, for as long as somebody watches."""

    def __init__(self, terminal: Terminal, order: RowOrder) -> None:
        self.order = order
        self._terminal = terminal
        self._keyboard = Keyboard()
        self._wakeup = Wakeup()
        self._last: list[str] = []
        self._taken = False  # the window is ours

    def __enter__(self) -> Self:
        numbers = (signal.SIGWINCH, signal.SIGTSTP, *ENDING)
        self._wakeup.start(number for number in numbers if signal.getsignal(number) != signal.SIG_IGN)
        return self

    def __exit__(self, *_: object) -> None:
        if self._taken:
            self._leave_window()
            self._terminal.write("".join(f"{line}\r\n" for line in self._last))
        self._wakeup.close()

    def filenos(self) -> list[int]:
        """The descriptors whose news end a wait."""
        return [self._wakeup.fileno(), *self._keyboard.filenos()]

    def show(
        self,
        workers: Sequence[WatchedWorker],
        headings: Sequence[str],
        table: Callable[[list[str], list[list[str]]], list[str]],
    ) -> None:
        self._obey_signals()
        if not in_foreground(self._terminal.fd):
            return
        if not self._taken:
            self._take_window()
        self._obey_keys()
        keys = KEYS if self._keyboard.filenos() else "Ctrl-C ends this"
        clock = time.strftime("%H:%M:%S")
        lines = picture(workers, headings, table, self._terminal, self.order, clock, keys)
        self._last = lines[:-1]
        self._terminal.write(HOME + f"{CLEAR_LINE}\r\n".join(lines) + CLEAR_LINE + CLEAR_BELOW)

    def _take_window(self) -> None:
        self._taken = True
        self._keyboard.start()
        self._terminal.write(OWN_WINDOW)

    def _leave_window(self) -> None:
        if self._taken:
            self._taken = False
            self._terminal.write(USUAL_WINDOW)
            self._keyboard.stop()

    def _obey_keys(self) -> None:
        for key in self._keyboard.take().lower():
            if key == "q":
                raise WatchEndedError("q")
            if key == "s":
                self.order.next_column()
            elif key == "r":
                self.order.backwards = not self.order.backwards

    def _obey_signals(self) -> None:
        for number in self._wakeup.take():
            if number == signal.SIGTSTP:
                self._leave_window()  # the next picture takes it again
                _act_by_default(number)
            elif number in ENDING:
                self._leave_window()
                _act_by_default(number)


def _act_by_default(number: int) -> None:
    """Does what the signal would have done to a process that does not catch it."""
    handler = signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    signal.signal(number, handler)
