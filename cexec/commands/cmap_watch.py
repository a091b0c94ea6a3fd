"""Watching cmap: --bar, --eta, --progress, --stats, --report, and `cmap explain`.

Contract: `watch_options` is a click decorator; `Watch` makes the observers that the options ask for and says at the end
what is to be said.  `explain_main(argv)` is the subcommand and returns its exit status.
"""

from __future__ import annotations

import os
import shlex
import stat
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from cexec import __version__
from cexec.cmap.run_files import TABLES
from cexec.cmap.watch.history import Failures, History
from cexec.cmap.watch.statistics import failures, statistics
from cexec.commands.common import print_line, run_click
from cexec.commands.help_page import HelpfulCommand, section
from cexec.system.printable import printable
from cexec.system.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cexec.cmap.results.journal import Journal
    from cexec.cmap.run.observer import Observer
    from cexec.cmap.watch.display import Display
    from cexec.cmap.watch.report import Report

OPTIONS = section(
    "Watching",
    click.option("--bar/--no-bar", default=None, help="Show a bar on the terminal; by default if outputs go to files."),
    click.option("--eta", is_flag=True, help="Show how long it will take."),
    click.option("--progress", is_flag=True, help="Show what each worker does."),
    click.option(
        "--latest-line",
        "--ll",
        is_flag=True,
        help="Show the latest line of each running task at the bottom of the screen.",
    ),
    click.option("--stats", is_flag=True, help="Tell at the end which worker did what, and what failed."),
    click.option("--report", metavar="FILE.html", default="", help="Write a page with a time line of each worker."),
)


def watch_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds all options to a command."""
    for option in reversed(OPTIONS):
        function = option(function)
    return function


class Watch:
    """The observers that the options ask for; `values` are click's, `application` is what the user calls the key.

    `columns` are those of the tasks, for the report.
    """

    def __init__(self, values: Mapping[str, Any], application: str, columns: Sequence[str] = ()) -> None:
        self.observers: list[Observer] = []
        self.failed = False  # at the end: something that was asked for could not be written
        self.display: Display | None = None
        self._report: Report | None = None
        bar, eta, progress = values["bar"], values["eta"], values["progress"]
        drawn = bar or eta or progress
        self._stats = drawn or values["stats"]
        terminal = Terminal(2)
        by_default = bar is None and not drawn and terminal.drawable and _outputs_are_files(values)
        self._failures = Failures()
        latest = values["latest_line"]
        if self._stats or values["report"] or by_default or latest:
            self._failures = self._history = History()
        self.observers.append(self._failures)
        if drawn or by_default or latest:
            from cexec.cmap.watch.display import Display

            bar = bool(bar or by_default)
            self.display = Display(self._history, terminal, bar=bar, eta=eta, progress=progress, latest=latest)
            self.observers.append(self.display)
        if values["report"]:
            from cexec.cmap.watch.report import About, Report
            from cexec.cmap.watch.report_file import ReportFile

            file = ReportFile(values["report"], overwrite=values["overwrite"])
            command, host = _command_line(), os.uname().nodename
            about = About(f"cmap {application}", command, time.time(), host, __version__, columns)
            self._report = Report(file, self._history, about)
            self.observers.append(self._report)

    def begin(self, journal: Journal | None, weight: Callable[[], int] = lambda: 1) -> None:
        """Says that the run begins: nothing is wrong with its options.  `weight` is its share of the turns."""
        if self._report is not None:
            self._report.begin(journal.store.path if journal is not None else "")
        if journal is not None:
            from cexec.cmap.watch.explain import StatusNote

            journal.describe(_command_line(), os.uname().nodename)
            self.observers.append(StatusNote(journal, weight=weight))

    def conclude(self) -> None:
        """Says what there is to say, after the observers have heard that the run is over."""
        for line in statistics(self._history) if self._stats else failures(self._failures):
            print_line(line if self._stats else f"cmap: {line}")
        if self._report is not None:
            self._report.conclude()
            if self._report.problem:
                print_line(f"cmap: {self._report.problem}")
                self.failed = True


def _command_line() -> str:
    """Returns this command as a shell takes it."""
    return shlex.join([os.path.basename(sys.argv[0]), *sys.argv[1:]])


def _outputs_are_files(values: Mapping[str, Any]) -> bool:
    """Returns True if what tasks have to say goes to files, so that the terminal would show nothing."""
    if (values["stdout"] or values["results"].endswith(TABLES)) and not values["collect"]:
        return True
    try:
        mode = os.fstat(1).st_mode
        return stat.S_ISREG(mode) or (stat.S_ISCHR(mode) and os.path.samestat(os.fstat(1), os.stat(os.devnull)))
    except OSError:
        return False


EXPLAIN_EXAMPLES = (
    ("cmap explain --state run.journal", "how all tasks stand: of a run that goes on, or is over"),
    ("cmap explain --state run.journal 17", "where task 17 ran, how it failed, or why it waits"),
    ("watch cmap explain --state run.journal", "again and again while the run goes on"),
)


@click.command("cmap explain", cls=HelpfulCommand, examples=EXPLAIN_EXAMPLES)
@click.option("--state", required=True, metavar="FILE", help="The journal of the run.")
@click.argument("task", type=int, required=False)
def _command(state: str, task: int | None) -> int:
    """Say why TASK, the number of a row, waits, where it ran and how it failed; or how all tasks stand."""
    from cexec.cmap.watch.explain import explain

    for line in explain(state, task, time.time()):
        click.echo(printable(line))
    return 0


def explain_main(argv: list[str]) -> int:
    return run_click(_command, argv)
