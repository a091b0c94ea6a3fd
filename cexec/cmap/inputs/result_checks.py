"""Finds results that would replace something: another row's result, a file that is there, another file of the run.

Contract: `ResultChecker.check` raises `UsageError` for the first result of a row that has nowhere to go, that another
row has too, that is there already, or that is also an input or another output.  Names are one if they lead to one place
(`system.storage.identity`).  `conclude` comes after the last row.  A result that is there is right where
`finished(task)` says so, because a journal knows that the task is done, and with --overwrite, which replaces it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cexec.cmap.inputs.file_names import NameCheck
from cexec.cmap.inputs.named_files import NamedFiles
from cexec.errors import UsageError
from cexec.system.reason import reason_of, why_not_writable
from cexec.system.storage.identity import descriptor_of, identify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cexec.cmap.inputs.tables import Row
    from cexec.cmap.inputs.task_plan import Plan
    from cexec.cmap.inputs.tasks import Task
    from cexec.system.storage.identity import FileIdentity

    Entry = tuple[int, int, str]

_NO_NAMES = frozenset({"", ".", ".."})


@dataclass(slots=True, kw_only=True)
class ResultRules:
    """`files`: those of the run as a whole; `kept_in`: the directory of --results DIR; `resumed`: a journal is used.

    `may_write`: names may be tried out.
    """

    files: NamedFiles = field(default_factory=NamedFiles)
    kept_in: str = ""
    overwrite: bool = False
    resumed: bool = False
    may_write: bool = False
    finished: Callable[[Task], bool] = lambda _: False

    def check_existing(self, name: str, where: str) -> FileIdentity:
        """Checks a result that is there and whose task is to run; returns its identity.  `where` begins the error."""
        identity = identify(name)
        _check_is_no_descriptor(name, where)
        if role := self.files.used_as(identity):
            raise UsageError(f"{where}: result {name} is the same file as {role}")
        if identity.special:
            kind = identity.special
            raise UsageError(f"{where}: result {name} is {kind}; a result is a file that appears when it is complete")
        if not self.overwrite:
            raise UsageError(f"{where}: result {name} exists already; {self.advice}")
        if identity.entry is None:
            raise UsageError(f"{where}: result {name} is a link that leads nowhere")
        return identity

    @property
    def advice(self) -> str:
        """Tells the user what to do about a result that is there."""
        if self.resumed:
            return (
                "the journal knows no such task that is done, so its input or command may have changed; remove the "
                "result, or add --overwrite"
            )
        return "remove it, or add --overwrite; --resume goes on with a run that had --state"


def _check_is_no_descriptor(name: str, where: str) -> None:
    if descriptor_of(name) is not None:
        raise UsageError(f"{where}: result {name} is our own descriptor; outputs without a name are printed there")


class ResultDirectory:
    """A directory of results: its identity, and the names in it."""

    __slots__ = ("inode", "name_check", "names")

    def __init__(self, directory: str, where: str, *, may_write: bool = False) -> None:
        """Raises `UsageError` if it cannot be written."""
        path = directory or "."
        if not os.path.isdir(path):
            raise UsageError(f"{where}: there is no directory {path}; make it first")
        try:
            if not os.access(path, os.W_OK | os.X_OK):
                raise OSError(why_not_writable(path))
            status = os.stat(path)
            self.inode = (status.st_dev, status.st_ino)
            self.names = set(os.listdir(path))
            self.name_check = NameCheck(path, may_write=may_write)
        except OSError as error:
            raise UsageError(f"{where}: directory {path} cannot be written: {reason_of(error)}") from None


class ResultChecker:
    """Remembers the results of the rows so far.  `row_of` makes a row with all cells that names of results show."""

    def __init__(self, plan: Plan, numbers: Iterable[int], row_of: Callable[[int], Row], rules: ResultRules) -> None:
        self._plan = plan
        self._numbers = numbers
        self._row = row_of
        self._rules = rules
        self._directories: dict[str, ResultDirectory] = {}
        self._kept_in = identify(rules.kept_in).inode if rules.kept_in else None
        self._places: set[int] = set()  # hashes
        self._replaced: dict[tuple[int, int], int] = {}  # the row, by the inode of a file that its result replaces

    def check(self, row: Row) -> None:
        for name in self._plan.result_names(row):
            if name == os.devnull:
                continue
            entry = self._check_place(name, row)
            known = len(self._places)
            self._places.add(hash(entry))
            if len(self._places) == known:
                self._look_for_twin(name, entry, row)

    def removes(self, path: str) -> bool:
        """Returns True for a file in a directory of a row below --results DIR, which --overwrite removes."""
        if self._kept_in is None or not self._rules.overwrite:
            return False
        directory, number = os.path.split(os.path.dirname(os.path.realpath(path)))
        return number.isdecimal() and identify(directory).inode == self._kept_in

    def conclude(self) -> None:
        """Looks for inputs among the files that are replaced."""
        if not self._replaced:
            return
        for number in self._numbers:
            row = self._plan_row(number)
            for path in self._plan.read_files(row):
                inode = identify(path).inode
                if inode in self._replaced:
                    raise UsageError(f"row {number}: input {path} is also the result of row {self._replaced[inode]}")

    def _plan_row(self, number: int) -> Row:
        assert self._plan.table is not None
        return self._plan.table.row(number)

    def _check_place(self, name: str, row: Row) -> Entry:
        """Checks one name; returns the place that it leads to."""
        where = f"row {row.number}"
        base = name.rpartition("/")[2]
        if base in _NO_NAMES or "\0" in name:
            raise UsageError(f"{where}: {name!r} is no name for a file")
        if name.startswith("/"):
            _check_is_no_descriptor(name, where)
        directory = self._directory(name, where)
        entry = (*directory.inode, base)
        if directory.inode == self._kept_in and base.isdecimal():
            raise UsageError(f"{where}: result {name} would be among those of --results; give it another directory")
        if base not in directory.names:
            if problem := directory.name_check.problem(base):
                raise UsageError(f"{where}: cannot write {name}: {problem}")
            if role := self._rules.files.place_used_as(entry):
                raise UsageError(f"{where}: result {name} is the same file as {role}")
            return entry
        if not self._rules.finished(self._plan.task(row.number)):
            identity = self._rules.check_existing(name, where)
            if identity.inode is not None:
                self._replaced[identity.inode] = row.number
        return self._entry(name)

    def _entry(self, name: str) -> Entry:
        """Returns the place of a name that has been checked."""
        directory = self._directory(name, "")
        base = os.path.basename(name)
        entry = identify(name).entry if base in directory.names else None
        return entry or (*directory.inode, base)

    def _directory(self, name: str, where: str) -> ResultDirectory:
        path, slash, _ = name.rpartition("/")
        path = path or slash
        found = self._directories.get(path)
        if found is None:
            where = f"{where}: result {name}"
            found = self._directories[path] = ResultDirectory(path, where, may_write=self._rules.may_write)
        return found

    def _look_for_twin(self, name: str, entry: Entry, row: Row) -> None:
        """Two places with one hash are hardly ever different, but may be."""
        for number in self._numbers:
            if number == row.number:
                break
            for other in self._plan.result_names(self._row(number)):
                if other != os.devnull and self._entry(other) == entry:
                    shown = name if other == name else f"{name} (also called {other})"
                    raise UsageError(f"rows {number} and {row.number} have the same result {shown}; names must differ")
        names = [other for other in self._plan.result_names(row) if other != os.devnull]
        if [self._entry(other) for other in names].count(entry) > 1:
            raise UsageError(f"row {row.number} has the result {name} twice; names must differ")
