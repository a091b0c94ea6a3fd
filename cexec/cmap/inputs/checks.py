"""Finds what is wrong with the tasks before the first of them starts.

Contract: `check_rows` raises `UsageError` for the first row (in the table's order) whose inputs cannot be read, whose
arguments no program can be given, or whose results would replace something (`result_checks`).  What no row can change
is looked at once.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from cexec.cmap.inputs.result_checks import ResultChecker, ResultDirectory, ResultRules
from cexec.cmap.inputs.tables import Row, encode
from cexec.cmap.inputs.tasks import BLOCK, FILE, STDERR, STDOUT
from cexec.errors import UsageError
from cexec.protocol.base.limits import MAXIMUM_GO, MAXIMUM_STREAMS
from cexec.protocol.connection.frames import FIRST_FILE
from cexec.system.process.argument_limits import LONGEST_STRING, too_long, too_much
from cexec.system.reason import reason_of
from cexec.system.storage.identity import identify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cexec.cmap.inputs.tables import Table
    from cexec.cmap.inputs.task_plan import Plan
    from cexec.cmap.inputs.tasks import Task

LOOKED_AT = 10  # inputs (ours) that must all be files before we think that files are meant
ROOM = 4096  # bytes (ours) of GO that are left for the streams and the rest
SURELY_FITS = LONGEST_STRING - 128  # bytes (ours) of arguments and variables, of which no single one can be too long
STREAM_SIZE = 8  # bytes of a file in a GO frame, its name apart (docs/protocol.md section 4.2)
MOST_FILES = MAXIMUM_STREAMS - FIRST_FILE - 1  # one is left for a program
LONGEST_NAME = 255  # bytes (Linux, NAME_MAX)
PEER = "PEER_"  # begins the names of --peer's variables on the worker


def check_rows(
    plan: Plan, numbers: Iterable[int], rules: ResultRules | None = None, *, has_variables: bool = False
) -> None:
    """Looks at every row.  `numbers` ascend; `has_variables`: a program here gets each row as variables."""
    table = plan.table
    assert table is not None
    if plan.lines_are_stdin:
        check_lines_are_no_files(table)
    checker = _Checker(plan, table, numbers, rules or ResultRules(), has_variables)
    if checker.idle:
        return
    for number in numbers:
        checker.check(number)
    checker.conclude()


def arrival_check(plan: Plan, rules: ResultRules, *, has_variables: bool) -> Callable[[int], None]:
    """Returns a check of each row that comes while the tasks before it run; `has_variables` as in `check_rows`."""
    table = plan.table
    assert table is not None
    known = _Known()
    checker = _Checker(plan, table, known, rules, has_variables, arriving=True)

    def check(number: int) -> None:
        known.last = number
        checker.check(number)

    return check


class _Known:
    """The numbers of the rows that have come so far."""

    def __init__(self) -> None:
        self.last = 0

    def __iter__(self) -> Iterator[int]:
        return iter(range(1, self.last + 1))


def check_templates_differ(plan: Plan) -> None:
    """Refuses a result that all rows would have, before the first of them has come."""
    for template in plan.result_templates:
        if template.text != os.devnull and not template.used:
            raise UsageError(
                f"{template.text!r} would be the result of every row; put {{}} or {{#}}, its number, into it"
            )


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
            name = template.render(Row(1, ()))
            found = ResultDirectory(directory, f"result {template.text}", may_write=True)
            if problem := found.name_check.problem(os.path.basename(name)):
                raise UsageError(f"block 1: cannot write {name}: {problem}")


def check_block_task(task: Task, rules: ResultRules) -> None:
    """Just before a block is given to a worker."""
    assert task.stdin.kind == BLOCK
    where, places = f"block {task.number}", set()
    for result in task.results:
        if result.path == os.devnull:
            continue
        if os.path.lexists(result.path):
            rules.check_existing(result.path, where)
        entry = identify(result.path).entry
        if entry is not None and (role := rules.files.place_used_as(entry)):
            raise UsageError(f"{where}: result {result.path} is the same file as {role}")
        if entry in places:
            raise UsageError(f"{where} has the result {result.path} twice; names must differ")
        places.add(entry)


class _Checker:
    """Remembers what has been seen of the rows so far."""

    def __init__(
        self,
        plan: Plan,
        table: Table,
        numbers: Iterable[int],
        rules: ResultRules,
        has_variables: bool,
        *,
        arriving: bool = False,
    ) -> None:
        """`arriving`: it is not known yet how long rows are."""
        self._plan = plan
        self._rules = rules
        self._readable: set[str] = set()  # of names that are the same for all rows
        self._has_results = bool(plan.result_templates)
        self._has_files = bool(plan.sends or plan.names_on_worker)
        self._files_differ = any(template.used for template in (*plan.sends, *plan.names_on_worker))
        self._reads = plan.read_templates
        self._names_size = 0  # bytes of GO
        self._longest = plan.longest_arguments(table.longest)
        self._has_arguments = arriving or self._longest > (0 if table.has_nul else SURELY_FITS)
        longest = SURELY_FITS if arriving else table.longest
        self._has_variables = has_variables and longest > SURELY_FITS - max(map(len, table.columns), default=0)
        shown = {column for template in (*self._reads, *plan.result_templates) for column in template.used}
        self._row = table.row if shown - {"#"} else _row_without_cells
        self._results = ResultChecker(plan, numbers, self._row, rules)

    @property
    def idle(self) -> bool:
        """True if there is nothing to look at in any row."""
        return not (self._reads or self._has_results or self._has_files or self._has_arguments or self._has_variables)

    def check(self, number: int) -> None:
        row = self._row(number)
        if self._has_arguments or self._has_variables:
            self._check_arguments(self._plan.task(number))
        for template in self._reads:
            for path in template.render_each(row):
                if template.used or path not in self._readable:
                    self._check_input(path, row.number)
                    self._readable.update(() if template.used else (path,))
        if self._has_results:
            self._results.check(row)
        if self._has_files:
            self._check_names_on_worker(row)
            self._has_files = self._files_differ

    def conclude(self) -> None:
        self._results.conclude()

    def _check_arguments(self, task: Task) -> None:
        parts = (*task.arguments, *task.environment.values())
        if any(b"\0" in part for part in parts):
            raise UsageError(f"row {task.number}: an argument cannot contain a NUL byte; give it as standard input")
        size = _size(task) + self._names_size
        if size > MAXIMUM_GO - ROOM:
            raise UsageError(
                f"row {task.number}: its arguments are {size} bytes and at most {MAXIMUM_GO - ROOM} fit; "
                "use --stdin-text or --input instead"
            )
        if problem := too_long(task.arguments, {f"{PEER}{name}": value for name, value in task.environment.items()}):
            raise UsageError(f"row {task.number}: {problem}; use --stdin-text or --input instead")
        if self._has_variables:
            variables = {name: encode(value) for name, value in task.variables().items()}
            if problem := too_long((), variables) or too_much(variables):
                raise UsageError(f"row {task.number}: {problem}, so neither --validate nor --collect can have the row")

    def _check_input(self, path: str, number: int) -> None:
        status = _check_readable(path, number)
        if role := self._rules.files.written_as((status.st_dev, status.st_ino)):
            raise UsageError(f"row {number}: input {path} is the same file as {role}")
        if self._results.removes(path):
            raise UsageError(f"row {number}: input {path} is among the results that --overwrite removes")

    def _check_names_on_worker(self, row: Row) -> None:
        """Checks the files that the worker is sent, and those that it is asked for."""
        task = self._plan.task(row.number)
        given = [name for name, _ in (*task.sends, *task.texts)]
        wanted = [result.name for result in task.results if result.kind == FILE]
        if STDOUT in wanted or STDERR in wanted:
            raise UsageError(f"row {row.number}: a file to fetch cannot be called {STDOUT} or {STDERR}")
        for names in (given, wanted):
            for position, name in enumerate(names):
                if problem := _problem_of_name(name):
                    raise UsageError(f"row {row.number}: {name!r} cannot be a file of a job: {problem}")
                if name in names[:position]:
                    raise UsageError(f"row {row.number}: two files of the job are called {name}")
        if len(given) + len(wanted) > MOST_FILES:
            raise UsageError(f"row {row.number}: at most {MOST_FILES} files can go with a job; pack them with tar")
        self._names_size = sum(STREAM_SIZE + len(name.encode()) for name in (*given, *wanted))
        if self._names_size + _size(task) > MAXIMUM_GO - ROOM:
            raise UsageError(f"row {row.number}: its arguments and the names of its files are too long; use tar")
        if self._names_size + self._longest > SURELY_FITS:
            self._has_arguments = True  # of other rows, together with these names


def _size(task: Task) -> int:
    """Returns how many bytes of GO its arguments and variables take, names apart."""
    return sum(4 + len(part) for part in (*task.arguments, *task.environment.values()))


def _problem_of_name(name: str) -> str:
    """Returns why the worker would not make such a file in the job's directory; empty if it would."""
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\0" in name:
        return "no .., and not from /"
    try:
        longest = max(len(part.encode()) for part in parts)
    except UnicodeEncodeError:
        return "it is not UTF-8"
    return f"at most {LONGEST_NAME} bytes" if longest > LONGEST_NAME else ""


def _row_without_cells(number: int) -> Row:
    """A row for names that show no cell: nothing has to be read and taken apart."""
    return Row(number, ())


def _check_readable(path: str, number: int) -> os.stat_result:
    if not path:
        raise UsageError(f"row {number}: the name of an input file is empty")
    try:
        status = os.stat(path)
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise UsageError(f"row {number}: cannot read {path}: it is no regular file, so it could not be read again")
        if stat.S_ISDIR(status.st_mode) or not os.access(path, os.R_OK):
            with open(path, "rb"):
                pass
        return status
    except OSError as error:
        raise UsageError(f"row {number}: cannot read {path}: {reason_of(error)}") from None
    except ValueError:
        raise UsageError(f"row {number}: the name of an input file cannot contain a NUL byte") from None


def _is_file(name: str) -> bool:
    try:
        return os.path.isfile(name)
    except ValueError:
        return False
