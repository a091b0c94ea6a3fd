"""Tables that read another one otherwise: cut into columns (--colsep), named by its first row (--header), or not (-n0).

Contract: each is a `Table` over the rows of another one, of which nothing is copied.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cexec.cmap.inputs.columns import check_columns
from cexec.cmap.inputs.notation import parse_escapes
from cexec.cmap.inputs.tables import Row, Table, decode
from cexec.errors import UsageError

if TYPE_CHECKING:
    from re import Pattern


def parse_separator(text: str, option: str) -> Pattern[str]:
    """Returns the regular expression that separates columns; `UsageError` if it is none, or matches nothing."""
    try:
        found = re.compile(text)
    except re.error as error:
        raise UsageError(f"{option} is {text!r}, which is no regular expression: {error}") from None
    if found.match(""):
        raise UsageError(
            f"{option} is {text!r}, which also matches nothing at all; give the characters between columns"
        )
    return found


def one_character(separator: Pattern[str]) -> str:
    """Returns the character that a separator is; `UsageError` if it is a pattern."""
    text = decode(parse_escapes(separator.pattern))
    text = text.removeprefix("\\") if len(text) == 2 else text
    if len(text) != 1 or text in '"\r\n':
        raise UsageError(f"--colsep is {separator.pattern!r}, but with --params it must be one character")
    return text


class _Derived(Table):
    """A table that shows another one in its own way; the inputs are those of the other one."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self.terminator = table.terminator

    @property
    def longest(self) -> int:
        return self._table.longest

    @property
    def has_nul(self) -> bool:
        return self._table.has_nul


class Split(_Derived):
    """Rows whose one input is cut into columns.  Spaces around them do not count, and missing ones are empty.

    `growing`: further rows may come, which have no more columns than those that are there.
    """

    def __init__(self, table: Table, separator: Pattern[str], *, growing: bool = False) -> None:
        super().__init__(table)
        self._separator = separator
        self._growing = growing
        width = max((len(self._cut(number)[1]) for number in range(1, len(table) + 1)), default=1)
        self.columns = tuple(str(number + 1) for number in range(width))

    def __len__(self) -> int:
        return len(self._table)

    def cells(self, number: int) -> tuple[str, ...]:
        return self.row(number).cells

    def row(self, number: int) -> Row:
        line, cells = self._cut(number)
        width = len(self.columns)
        if len(cells) > width:
            raise UsageError(f"row {number} has {len(cells)} columns, but those before it had at most {width}")
        return Row(number, (*cells, *[""] * (width - len(cells))), line, cells)

    def _cut(self, number: int) -> tuple[str, tuple[str, ...]]:
        line = self._table.cells(number)[0]
        return line, tuple(cell.strip() for cell in self._separator.split(line))


class Headed(_Derived):
    """A table whose first row has the names of the columns."""

    def __init__(self, table: Table, name: str) -> None:
        if not len(table):
            raise UsageError(f"{name} is empty, but --header : takes the names of columns from its first row")
        super().__init__(table)
        self.columns = table.cells(1)
        check_columns(self.columns, name)

    def __len__(self) -> int:
        return len(self._table) - 1

    def cells(self, number: int) -> tuple[str, ...]:
        return self._table.cells(number + 1)

    def row(self, number: int) -> Row:
        row = self._table.row(number + 1)
        row.number = number
        return row


class Uncalled(Table):
    """Rows of which a task sees nothing: -n0 runs as many tasks as there are inputs."""

    columns = ()
    longest = 0

    def __init__(self, table: Table) -> None:
        self._table = table

    def __len__(self) -> int:
        return len(self._table)

    def cells(self, number: int) -> tuple[str, ...]:
        return ()
