"""Texts with placeholders, which each row fills in.

Contract: `Template(text, columns)` raises `UsageError` for a column that the table has not; `render(row)` is pure.

| placeholder | stands for |
|---|---|
| `{}` | the input; several inputs of one task are joined by a space |
| `{.}` | the input without the suffix of its last component |
| `{/}` | its last component |
| `{//}` | its directory, `.` if there is no other |
| `{/.}` | its last component without the suffix |
| `{#}` | the number of the row, from 1 |
| `{1}`, `{name}` | a cell, by the column's number or name |
| `{1.}`, `{name/}`, ... | the same of a cell |
| `{{name}}` | the text `{name}`, not filled in |

Braces around anything that cannot be a column's name (`{print $1}`, `{"a": 1}`) are text like any other.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cexec.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cexec.cmap.inputs.tables import Row

_BRACES = re.compile(r"\{\{([^{}]*)\}\}|\{([^{}]*)\}")
_NAME_LIKE = re.compile(r"\w[\w.-]*/{0,2}\.?", re.ASCII)  # what is no column, but was meant to be one
_INPUTS, _NUMBER = -1, -2  # instead of a cell's index


def without_suffix(text: str) -> str:
    """`a/b.tar.gz` gives `a/b.tar`; a leading dot begins no suffix."""
    directory, slash, name = text.rpartition("/")
    stem, dot, _ = name.rpartition(".")
    return directory + slash + stem if dot and stem else text


def base_name(text: str) -> str:
    return text.rstrip("/").rpartition("/")[2]


def directory_name(text: str) -> str:
    directory, slash, _ = text.rstrip("/").rpartition("/")
    return directory.rstrip("/") or ("/" if slash else ".")


def _same(text: str) -> str:
    return text


_CHANGES: dict[str, Callable[[str], str]] = {
    "//": directory_name,
    "/.": lambda text: without_suffix(base_name(text)),
    "/": base_name,
    ".": without_suffix,
    "": _same,
}


class Template:
    """One text.  `used`: the columns that it shows, `{}` for the input, `#` for the number; empty in a fixed text."""

    __slots__ = ("_functions", "_inputs", "_texts", "text", "used")

    def __init__(self, text: str, columns: Sequence[str]) -> None:
        self.text = text
        self.used: set[str] = set()
        self._texts = [""]  # one more than functions, which stand between them
        self._functions: list[Callable[[Row], str]] = []
        self._inputs: Callable[[str], str] | None = None  # the whole text is one of `{}` `{.}` `{/}` `{//}` `{/.}`
        end = 0
        for match in _BRACES.finditer(text):
            escaped = match[1] is not None and _is_placeholder(match[1], columns)
            function = self._placeholder(match, columns) if match[1] is None else None
            if escaped or function is not None:
                self._texts[-1] += text[end : match.start()] + (match[0][1:-1] if escaped else "")
                end = match.end()
            if function is not None:
                self._functions.append(function)
                self._texts.append("")
        self._texts[-1] += text[end:]

    def render(self, row: Row) -> str:
        texts, functions = self._texts, self._functions
        if len(functions) == 1:  # what most have, for the sake of a million rows
            return f"{texts[0]}{functions[0](row)}{texts[1]}"
        return "".join([text + function(row) for text, function in zip(texts, functions, strict=False)]) + texts[-1]

    def _placeholder(self, match: re.Match[str], columns: Sequence[str]) -> Callable[[Row], str] | None:
        found = _resolve(match[2], columns)
        if found is not None:
            index, change = found
            self.used.add({_INPUTS: "{}", _NUMBER: "#"}.get(index) or columns[index])
            if index == _INPUTS and match[0] == self.text:
                self._inputs = change
            return _renderer(index, change)
        if _NAME_LIKE.fullmatch(match[2]):
            raise UsageError(
                f"{match[0]}: there is no such column; the columns are {', '.join(columns) or 'none'}; "
                f"{{{match[0]}}} stands for the text {match[0]}"
            )
        return None

    def render_each(self, row: Row) -> list[str]:
        """As arguments: one, but a `{}` that stands alone becomes as many as the task has inputs."""
        return [self.render(row)] if self._inputs is None else [self._inputs(text) for text in row.inputs]


def _resolve(inner: str, columns: Sequence[str]) -> tuple[int, Callable[[str], str]] | None:
    """Returns the cell that the text between braces means and the part of it; None if it is no placeholder."""
    if inner == "#":
        return _NUMBER, _same
    if inner in columns:
        return columns.index(inner), _same
    for ending, change in _CHANGES.items():
        if inner.endswith(ending):
            name = inner.removesuffix(ending)
            if not name:
                return _INPUTS, change
            if name in columns:
                return columns.index(name), change
            if name.isascii() and name.isdigit() and 0 < int(name) <= len(columns):
                return int(name) - 1, change
    return None


def _is_placeholder(inner: str, columns: Sequence[str]) -> bool:
    return _resolve(inner, columns) is not None or _NAME_LIKE.fullmatch(inner) is not None


def _renderer(index: int, change: Callable[[str], str]) -> Callable[[Row], str]:
    if index == _NUMBER:
        return lambda row: str(row.number)
    if index == _INPUTS:
        return lambda row: " ".join([change(text) for text in row.inputs])
    if change is _same:
        return lambda row: row.cells[index]
    return lambda row: change(row.cells[index])
