"""--report FILE.html: one page that says how a run is going, and how it went.

Contract: `Report` is an observer that replaces its `ReportFile` every INTERVAL seconds and at the end.  `begin` writes
the first page; `UsageError` or `LocalError` says that it cannot be written.  The page needs nothing but itself and runs
no script.  `page(history, about)` is pure.

The page is the Jinja2 template report.html.  A template shows what the page looks like, and escapes everything that is
filled in: a worker's or a table's text that somebody forgets to escape cannot become a part of the page.  It is written
piece by piece, since a page may have 24,000 bars.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from cexec.cmap.results.appending import cannot_write
from cexec.cmap.run.ending import How
from cexec.cmap.run.observer import Observer
from cexec.cmap.watch.earlier_runs import EarlierRun, EarlierRuns, earlier_runs
from cexec.cmap.watch.report_file import BEGIN
from cexec.cmap.watch.report_style import STYLE
from cexec.cmap.watch.statistics import HEAD, idle_words, row
from cexec.cmap.watch.time_lines import WIDTH, TimeLine, ticks, time_lines
from cexec.errors import LocalError
from cexec.system.reason import reason_of
from cexec.system.units import show_count, show_duration, show_number

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cexec.cmap.inputs.tasks import Task
    from cexec.cmap.results.outcome import TaskOutcome
    from cexec.cmap.run.observer import Counts
    from cexec.cmap.watch.history import History, WorkerHistory
    from cexec.cmap.watch.report_file import ReportFile

INTERVAL = 5.0  # seconds (ours) between two pages
RESTRAINT = 20  # (ours) times as long as a page takes passes until the next one: it keeps workers waiting
LONGEST_COMMAND = 2000  # characters (ours) of the command line
MOST_COLUMNS = 8  # (ours) of a task's inputs that are columns of the table of failed tasks
INPUTS = "inputs"  # the column that has all of them, if there are more, or one without a name
CHUNK = 64  # (ours) pieces of a template that are written at once
LEGEND = (
    ("succeeded", "succeeded"), ("failed", "failed"), ("lost", "worker lost"), ("cancelled", "cancelled"),
    ("running", "running"),
)  # fmt: skip


@dataclass(slots=True)
class About:
    """The command line that the page shows.  `started` is a time of the wall clock; `columns` are the tasks'."""

    title: str
    command: str = ""
    started: float = 0.0
    host: str = ""
    version: str = ""
    columns: Sequence[str] = ()


@dataclass(slots=True)
class Figure:
    name: str
    value: str
    note: str = ""
    bad: bool = False


class Report(Observer):
    """Comes after the `history` that it reads in the list of observers."""

    def __init__(self, file: ReportFile, history: History, about: About) -> None:
        self.problem = ""  # why the last page could not be written
        self._file = file
        self._history = history
        self._about = about
        self.earlier = EarlierRuns()  # the runs before this one, with the failures that nobody has tried again
        self._due = 0.0

    def begin(self, journal: str = "") -> None:
        """Writes the first page.  `journal` is the path of the one that the run goes on with, or empty."""
        if journal:
            self.earlier = earlier_runs(journal)
        if not self._file.final:
            try:
                self._write()
            except OSError as error:
                raise cannot_write(self._file.path, error) from None

    def settled(self, task: Task, outcome: TaskOutcome, now: float) -> None:
        earlier = self.earlier
        left = [failure for failure in earlier.failures if failure.number != task.number]
        if len(left) < len(earlier.failures):  # it has been tried again
            earlier.failures = left
            earlier.failed -= 1

    def counted(self, counts: Counts, now: float) -> None:
        if now >= self._due and not self._file.final:
            begun = time.monotonic()
            self._try()
            self._due = now + max(INTERVAL, RESTRAINT * (time.monotonic() - begun))

    def closed(self, status: int, now: float) -> None:
        if not self._file.final:
            self._try()

    def conclude(self) -> None:
        """Writes the last page to what gets only that; it may wait for its reader, as long as Ctrl-C lets it."""
        if self._file.final:
            self._try()

    def _try(self) -> None:
        """Writes the page, and keeps the reason if that fails: a disk that is full now need not be full at the end."""
        try:
            self._write()
            self.problem = ""
        except LocalError as error:
            self.problem = str(error)
        except OSError as error:
            self.problem = f"cannot write {self._file.path}: {reason_of(error)}"

    def _write(self) -> None:
        self._file.write(page(self._history, self._about, self.earlier))


def page(history: History, about: About, earlier: EarlierRuns | None = None) -> Iterator[str]:
    """Yields the parts of the page."""
    earlier = earlier or EarlierRuns()
    workers = history.ordered()
    length = max(history.now, 1e-6)
    failures = sorted([*history.failures, *earlier.failures], key=lambda failure: failure.number)
    stream = _template().stream(
        about=about,
        facts=_facts(about),
        refresh=f"{INTERVAL:.0f}" if history.status is None else "",
        state=_state(history, history.failed + earlier.failed),
        figures=_figures(history, earlier),
        shares=_shares(history),
        lines=time_lines(workers, length, 1 + len(earlier.runs)),
        length=length,
        legend=LEGEND,
        head=HEAD,
        workers=[row(worker, history.now) for worker in workers],
        columns=_columns(about),
        failures=failures,
        more_failures=history.failed + earlier.failed - len(failures),
        earlier=EarlierRuns([_DrawnRun(run, 1 + len(earlier.runs)) for run in earlier.runs]),
    )
    stream.enable_buffering(CHUNK)
    yield from stream


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(os.path.dirname(__file__)),
        autoescape=True,
        finalize=_on_one_line,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        begin=Markup(BEGIN), style=Markup(STYLE), newline=Markup("\n"), width=WIDTH, ticks=ticks, number=show_number,
        duration=show_duration, date=_date,
    )  # fmt: skip
    return environment.get_template("report.html")


def _on_one_line(value: Any) -> Any:
    """Makes a foreign text harmless before it is escaped: it has no control characters."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in value)


def _date(when: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(when))


def _facts(about: About) -> list[tuple[str, str]]:
    command = about.command
    if len(command) > LONGEST_COMMAND:
        command = f"{command[:LONGEST_COMMAND]} ..."
    facts = (
        ("command", command), ("started", _date(about.started) if about.started else ""),
        ("host", about.host), ("version", about.version), ("columns", ", ".join(about.columns)),
    )  # fmt: skip
    return [(name, value) for name, value in facts if value]


def _columns(about: About) -> Sequence[str]:
    named = [name for name in about.columns if not name.isdigit()]
    return about.columns if named and len(about.columns) <= MOST_COLUMNS else (INPUTS,)


def _state(history: History, failed: int) -> tuple[str, str]:
    """Returns the class and the words; `failed`: tasks of all runs."""
    if history.status is None:
        return "running", "paused" if history.paused else "running"
    if history.status == 0:
        return ("failed", f"{show_count(failed, 'task')} failed") if failed else ("succeeded", "all done")
    return "failed", f"ended with status {history.status}"


def _figures(history: History, earlier: EarlierRuns) -> list[Figure]:
    counts, left = history.counts, history.seconds_left
    before, running = (0, 0) if counts is None else (counts.succeeded_before, counts.running)
    failed = history.failed + earlier.failed
    attempts, told = _attempts(history.workers.values())
    figures = [
        Figure("tasks done", show_number(history.succeeded + before), _before(before)),
        Figure("tasks failed", show_number(failed), _before(earlier.failed), bool(failed)),
        Figure("running", show_number(running), show_count(len(history.workers), "worker")),
        Figure("tasks left", "?" if history.left is None else show_number(history.left)),
        Figure("attempts", show_number(attempts), told),
        Figure("tasks a second", f"{history.rate:.3g}"),
        Figure("so far" if history.status is None else "took", show_duration(history.now), idle_words(history)),
    ]
    if history.status is None and left is not None:
        figures.append(Figure("to go", show_duration(left), "once it goes on" if history.paused else ""))
    return figures


def _before(count: int) -> str:
    return f"{show_number(count)} in earlier runs" if count else ""


def _attempts(workers: Iterable[WorkerHistory]) -> tuple[int, str]:
    """Returns how many attempts have ended, and how many of them in which way."""
    counts = dict.fromkeys(How, 0)
    for worker in workers:
        for how, count in worker.counts.items():
            counts[how] += count
    told = (f"{show_number(count)} {how.value}" for how, count in counts.items() if count)
    return sum(counts.values()), ", ".join(told)


def _shares(history: History) -> list[tuple[str, float]]:
    """Returns the parts of the bar: class and per cent."""
    if not history.total:
        return []
    counts = history.counts
    done, failed, running = (0, 0, 0) if counts is None else (
        counts.succeeded_before, counts.failed_before, counts.running,
    )  # fmt: skip
    parts = (("succeeded", history.succeeded + done), ("failed", history.failed + failed), ("running", running))
    return [(kind, 100 * part / history.total) for kind, part in parts]


class _DrawnRun(EarlierRun):
    """An earlier run with its drawing."""

    def __init__(self, run: EarlierRun, share: int) -> None:
        super().__init__(run.number, run.started, run.seconds, run.workers)
        self._share = share

    @property
    def lines(self) -> Iterable[TimeLine]:
        return time_lines(self.ordered(), max(self.seconds, 1e-6), self._share)

    @property
    def words(self) -> str:
        count, told = _attempts(self.workers.values())
        return f"{show_count(count, 'attempt')}{': ' if told else ''}{told}; {show_duration(self.seconds)}"
