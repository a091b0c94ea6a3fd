"""Finds what is wrong with the tasks before the first of them starts.

Contract: `check_rows` raises `UsageError` for the first row (in the table's order) whose inputs cannot be read, whose
results have nowhere to go, or whose result another row has too, or is there already.  A result that is there is right
where `finished(task)` says so: a journal knows that the task is done.  What no row can change is looked at once.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from cexec.cmap.inputs.tables import Row
from cexec.cmap.inputs.tasks import BLOCK, FILE, STDERR, STDOUT
from cexec.errors import UsageError
from cexec.protocol.base.limits import MAXIMUM_GO
from cexec.system.reason import reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cexec.cmap.inputs.tables import Table
    from cexec.cmap.inputs.task_plan import Plan
    from cexec.cmap.inputs.tasks import Task

LOOKED_AT = 10  # inputs (ours) that must all be files before we think that files are meant
_NO_NAMES = frozenset({"", ".", ".."})
ROOM = 4096  # bytes (ours) of GO that are left for the streams and the rest


def check_rows(plan: Plan, numbers: Iterable[int], finished: Callable[[Task], bool] = lambda _: False) -> None:
    """Looks at every row.  `numbers` ascend."""
    table = plan.table
    assert table is not None
    if plan.lines_are_stdin:
        check_lines_are_no_files(table)
    checker = _Checker(plan, table, numbers, finished)
    if checker.idle:
        return
    for number in numbers:
        checker.check(number)


def check_lines_are_no_files(table: Table) -> None:
    """Refuses `::: *.wav` without --stdin: the content of the files, not their names, should be worked on."""
    names = [name for number in range(1, min(len(table), LOOKED_AT) + 1) for name in table.row(number).inputs]
    if names and all(_is_file(name) for name in names):
        raise UsageError(
            f"the inputs are names of files ({names[0]}), and each name, not the content, would be the standard input "
            "of a job; add --stdin '{}' for the content, or --stdin-text '{}' if you do mean the name"
        )


def check_blocks(plan: Plan) -> None:
    """Checks --pipe: it is not known how many tasks there will be, so each result needs the number in its name."""
    for template in plan.result_templates:
        if template.text == os.devnull:
            continue
        if "#" not in template.used:
            raise UsageError(f"{template.text!r} would be the result of every block; put {{#}}, its number, into it")
        directory = os.path.dirname(template.text)
        if "{" not in directory:
            _look_into(directory, f"result {template.text}")


def check_block_task(task: Task) -> None:
    """Just before a block is given to a worker."""
    assert task.stdin.kind == BLOCK
    for result in task.results:
        if os.path.lexists(result.path) and result.path != os.devnull:
            raise UsageError(f"block {task.number}: result {result.path} exists already; remove it")


class _Checker:
    """Remembers what has been seen of the rows so far."""

    def __init__(self, plan: Plan, table: Table, numbers: Iterable[int], finished: Callable[[Task], bool]) -> None:
        self._plan = plan
        self._numbers = numbers
        self._finished = finished
        self._readable: set[str] = set()  # of names that are the same for all rows
        self._present: dict[str, set[str]] = {}  # directories of results, and what is in them
        self._names: set[int] = set()  # hashes
        self._has_results = bool(plan.result_templates)
        self._has_files = bool(plan.sends or plan.names_on_worker)
        self._files_differ = any(template.used for template in (*plan.sends, *plan.names_on_worker))
        self._reads = [template for template in (plan.stdin, *plan.sends) if template is not None]
        longest = plan.longest_arguments(table.longest)
        self._has_arguments = longest > (0 if table.has_nul else MAXIMUM_GO - ROOM)
        shown = {column for template in (*self._reads, *plan.result_templates) for column in template.used}
        self._row = table.row if shown - {"#"} else _row_without_cells

    @property
    def idle(self) -> bool:
        """True if there is nothing to look at in any row."""
        return not (self._reads or self._has_results or self._has_files or self._has_arguments)

    def check(self, number: int) -> None:
        row = self._row(number)
        if self._has_arguments:
            self._check_arguments(row)
        for template in self._reads:
            for path in template.render_each(row):
                if template.used or path not in self._readable:
                    _check_readable(path, row.number)
                    self._readable.update(() if template.used else (path,))
        if self._has_results:
            self._check_results(row)
        if self._has_files:
            self._check_names_on_worker(row)
            self._has_files = self._files_differ

    def _check_arguments(self, row: Row) -> None:
        task = self._plan.task(row.number)
        parts = (*task.arguments, *task.environment.values())
        if any(b"\0" in part for part in parts):
            raise UsageError(f"row {row.number}: an argument cannot contain a NUL byte; give it as standard input")
        size = sum(4 + len(part) for part in parts)
        if size > MAXIMUM_GO - ROOM:
            raise UsageError(
                f"row {row.number}: its arguments are {size} bytes and at most {MAXIMUM_GO - ROOM} fit; "
                "use --stdin-text or --input instead"
            )

    def _check_results(self, row: Row) -> None:
        for template in self._plan.result_templates:
            name = template.render(row)
            if name == os.devnull:
                continue
            directory, slash, base = name.rpartition("/")
            if base in _NO_NAMES or "\0" in name:
                raise UsageError(f"row {row.number}: {name!r} is no name for a file")
            directory = directory or slash
            present = self._present.get(directory)
            if present is None:
                present = self._present[directory] = _look_into(directory, f"row {row.number}: result {name}")
            if base in present and not self._finished(self._plan.task(row.number)):
                raise UsageError(
                    f"row {row.number}: result {name} exists already; remove it, or go on with --state FILE --resume"
                )
            plain = os.path.normpath(name) if slash else name
            known = len(self._names)
            self._names.add(hash(plain))
            if len(self._names) == known:
                self._look_for_twin(plain, row)

    def _look_for_twin(self, name: str, row: Row) -> None:
        """Two names with one hash are hardly ever different, but may be."""
        for number in self._numbers:
            if number == row.number:
                break
            if name in map(os.path.normpath, self._plan.result_names(self._row(number))):
                raise UsageError(f"rows {number} and {row.number} have the same result {name}; names must differ")
        if [*map(os.path.normpath, self._plan.result_names(row))].count(name) > 1:
            raise UsageError(f"row {row.number} has the result {name} twice; names must differ")

    def _check_names_on_worker(self, row: Row) -> None:
        """Checks the files that the worker is sent, and those that it is asked for."""
        task = self._plan.task(row.number)
        given = [name for name, _ in (*task.sends, *task.texts)]
        wanted = [result.name for result in task.results if result.kind == FILE]
        if STDOUT in wanted or STDERR in wanted:
            raise UsageError(f"row {row.number}: a file to fetch cannot be called {STDOUT} or {STDERR}")
        for names in (given, wanted):
            for position, name in enumerate(names):
                if any(part in ("", ".", "..") for part in name.split("/")) or "\0" in name:
                    raise UsageError(f"row {row.number}: {name!r} cannot be a file of a job: no .., and not from /")
                if name in names[:position]:
                    raise UsageError(f"row {row.number}: two files of the job are called {name}")


def _row_without_cells(number: int) -> Row:
    """A row for names that show no cell: nothing has to be read and taken apart."""
    return Row(number, ())


def _check_readable(path: str, number: int) -> None:
    if not path:
        raise UsageError(f"row {number}: the name of an input file is empty")
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISREG(mode) and os.access(path, os.R_OK):
            return
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise UsageError(f"row {number}: cannot read {path}: it is no regular file, so it could not be read again")
        with open(path, "rb"):
            return
    except OSError as error:
        raise UsageError(f"row {number}: cannot read {path}: {reason_of(error)}") from None
    except ValueError:
        raise UsageError(f"row {number}: the name of an input file cannot contain a NUL byte") from None


def _look_into(directory: str, where: str) -> set[str]:
    """Returns the names in a directory; raises `UsageError` if it cannot be written."""
    path = directory or "."
    if not os.path.isdir(path):
        raise UsageError(f"{where}: there is no directory {path}; make it first")
    try:
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "")
        return set(os.listdir(path))
    except OSError as error:
        reason = reason_of(error)
        raise UsageError(f"{where}: directory {path} cannot be written: {reason}") from None


def _is_file(name: str) -> bool:
    try:
        return os.path.isfile(name)
    except ValueError:
        return False
