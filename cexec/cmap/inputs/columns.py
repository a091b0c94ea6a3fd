"""The names of a table's columns, and the variables that programs here find the cells in.

Contract: pure.  `check_columns` raises `UsageError` that names the file for a header that no table can have.
`variable_name` is the same on every machine and in every locale.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cexec.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

PREFIX = "PARAM_"


def variable_name(column: str) -> str:
    """Returns PARAM_ and the column's name, in which `_` stands for each character that no variable can have."""
    return PREFIX + "".join(c if c.isascii() and c.isalnum() else "_" for c in column)


def check_columns(columns: Sequence[str], name: str) -> None:
    """`name` is what errors call the file."""
    variables: dict[str, str] = {}
    for number, column in enumerate(columns, 1):
        if not column.strip():
            raise UsageError(f"{name}, header line: column {number} has no name")
        if column.isdigit():
            raise UsageError(f"{name}: the first line must name the columns, but has the number {column}")
        variable = variable_name(column)
        other = variables.setdefault(variable, column)
        if number == len(variables):
            continue
        if other == column:
            raise UsageError(f"{name}, header line: two columns are called {column}")
        raise UsageError(
            f"{name}, header line: columns {other} and {column} would both be the variable {variable}; rename one"
        )
