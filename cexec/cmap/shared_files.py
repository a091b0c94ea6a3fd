"""The files to which all tasks of a run add: joblog, table of results, standard output and standard error.

Contract: `SharedFiles` opens those that the options ask for, or raises `UsageError` or `LocalError`.  `writers` say
what each task adds to which file once it is over, and `live` makes what hears a task's output as it comes; it is None
without --line-buffer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cexec.cmap.inputs.tasks import STDERR, STDOUT
from cexec.cmap.results import joblog
from cexec.cmap.results.appending import AppendFile
from cexec.cmap.results.collect import Collected, Concatenated, DelimitedResults, Joblog, JsonResults, Live, Printed
from cexec.cmap.run_files import TABLES, open_table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cexec.cmap.inputs.tasks import Task
    from cexec.cmap.results.commit import ResultWriter
    from cexec.cmap.run_options import Options

CONCAT, BLOCKS = "concat", "blocks"  # words of --collect


def names_a_command(collect: str) -> bool:
    """True if --collect is a command, which looks at each result."""
    return bool(collect) and collect not in (CONCAT, BLOCKS)


class SharedFiles:
    """Those of one run.  `columns` are those of the rows; `overwrite` and `resumed` are about files that are there."""

    def __init__(self, options: Options, columns: Sequence[str], *, overwrite: bool, resumed: bool) -> None:
        self.writers: list[ResultWriter] = []
        self.live: Callable[[Task], Live] | None = None
        self._opened: list[AppendFile] = []
        self._overwrite = overwrite
        self._resumed = resumed
        out, errors = AppendFile(1, "standard output"), AppendFile(2, "standard error")
        try:
            if options.joblog:
                self.writers.append(Joblog(self._open(options.joblog, "--joblog", joblog.HEADER)))
            if options.results.endswith(TABLES):
                self.writers.append(self._table(options.results, columns))
        except BaseException:
            self.close()
            raise
        tagged = options.tag or options.tagstring is not None
        if options.line_buffer:
            self.live = lambda task: Live({STDOUT: out, STDERR: errors}, task, tag=tagged)
        elif not options.results.endswith(TABLES):
            if not options.collect:
                self.writers.append(Printed(out, STDOUT, tag=tagged, red=options.color_failed))
            self.writers.append(Printed(errors, STDERR, tag=tagged, red=options.color_failed))
        if names_a_command(options.collect):
            self.writers.append(Collected(out))
        elif options.collect:
            self.writers.append(Concatenated(out, headed=options.collect == BLOCKS))

    def close(self) -> None:
        for file in self._opened:
            file.close()

    def _table(self, path: str, columns: Sequence[str]) -> ResultWriter:
        if path.endswith(".csv"):
            return DelimitedResults(self._open(path, "--results", DelimitedResults.header(columns)))
        return JsonResults(self._open(path, "--results", JsonResults.BEGIN))

    def _open(self, path: str, option: str, header: bytes) -> AppendFile:
        file = open_table(path, option, header, overwrite=self._overwrite, resumed=self._resumed)
        self._opened.append(file)
        return file
