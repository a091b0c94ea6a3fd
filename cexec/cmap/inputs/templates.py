"""Texts with placeholders, which each row fills in.

Contract: `Template(text, columns)` raises `UsageError` for a column that the table has not; `render(row)` is pure.

| placeholder | stands for |
|---|---|
| `{}` | the input; several inputs of one task are joined by a space |
| `{.}` | the input without the suffix of its last component |
| `{/}` | its last component |
| `{//}` | its directory, `.` if there is no other |
| `{/.}` | its last component without the suffix |
| `{..}`, `{...}`, `{/..}`, `{/...}` | likewise without two or three suffixes |
| `{+.}`, `{+..}`, `{+...}`, `{+/}` | what `{.}`, `{..}`, `{...}` and `{/}` leave out, without the dot or slash |
| `{#}` | the number of the row, from 1 |
| `{%}` | the number of the slot, from 1, that no other running task has; known only when a worker gets the task |
| `{1}`, `{name}` | a cell, by the column's number or name |
| `{1.}`, `{name/}`, ... | the same of a cell |
| `{{name}}` | the text `{name}`, not filled in |

`--rpl '{o} s/REGEX/TEXT/'` makes further ones (`replacements`): `{o}`, `{1o}` and `{nameo}`.  Braces around anything
that cannot be a column's name (`{print $1}`, `{"a": 1}`) are text like any other.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from cexec.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import TypeAlias

    from cexec.cmap.inputs.tables import Row

    Changes: TypeAlias = Mapping[str, Callable[[str], str]]

SLOT = "%"  # between braces, the number of the slot

_BRACES = re.compile(r"\{\{([^{}]*)\}\}|\{([^{}]*)\}")
_NAME_LIKE = re.compile(r"\w[\w.-]*/{0,2}\.?", re.ASCII)  # what is no column, but was meant to be one
_INPUTS, _NUMBER, _SLOT = -1, -2, -3  # instead of a cell's index
_SHOWN = {_INPUTS: "{}", _NUMBER: "#", _SLOT: SLOT}


def without_suffix(text: str, count: int = 1) -> str:
    """`a/b.tar.gz` gives `a/b.tar`, or `a/b` for two; nothing changes if there are fewer.

    A leading dot begins no suffix.
    """
    directory, slash, name = text.rpartition("/")
    stem = name
    for _ in range(count):
        stem, dot, _ = stem.rpartition(".")
        if not dot or not stem:
            return text
    return directory + slash + stem


def suffix(text: str, count: int = 1) -> str:
    """Returns what `without_suffix` leaves out: `a/b.tar.gz` gives `gz`, or `tar.gz` for two."""
    return text[len(without_suffix(text, count)) + 1 :]


def parent(text: str) -> str:
    """`a/b/c` gives `a/b`, `c` nothing."""
    return text.rpartition("/")[0]


def base_name(text: str) -> str:
    return text.rstrip("/").rpartition("/")[2]


def directory_name(text: str) -> str:
    directory, slash, _ = text.rstrip("/").rpartition("/")
    return directory.rstrip("/") or ("/" if slash else ".")


def _same(text: str) -> str:
    return text


def _base_without(count: int, text: str) -> str:
    return without_suffix(base_name(text), count)


_CHANGES: dict[str, Callable[[str], str]] = {  # longer endings first
    "+...": partial(suffix, count=3),
    "/...": partial(_base_without, 3),
    "+..": partial(suffix, count=2),
    "/..": partial(_base_without, 2),
    "...": partial(without_suffix, count=3),
    "+.": suffix,
    "+/": parent,
    "//": directory_name,
    "/.": partial(_base_without, 1),
    "..": partial(without_suffix, count=2),
    "/": base_name,
    ".": without_suffix,
    "": _same,
}


class Template:
    """One text.

    `used`: the columns that it shows, `{}` for the input, `#` for the number, `%` for the slot; empty in a fixed text.
    `changes` are those of --rpl, by what stands between the braces.
    """

    __slots__ = ("_changes", "_functions", "_inputs", "_texts", "text", "used")

    def __init__(self, text: str, columns: Sequence[str], changes: Changes | None = None) -> None:
        self.text = text
        self._changes: Changes = {**(changes or {}), **_CHANGES} if changes else _CHANGES
        self.used: set[str] = set()
        self._texts = [""]  # one more than functions, which stand between them
        self._functions: list[Callable[[Row], str]] = []
        self._inputs: Callable[[str], str] | None = None  # the whole text is one of `{}` `{.}` `{/}` `{//}` `{/.}`
        end = 0
        for match in _BRACES.finditer(text):
            escaped = match[1] is not None and self._is_placeholder(match[1], columns)
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
        found = _resolve(match[2], columns, self._changes)
        if found is not None:
            index, change = found
            self.used.add(_SHOWN.get(index) or columns[index])
            if index == _INPUTS and match[0] == self.text:
                self._inputs = change
            return _renderer(index, change)
        if _NAME_LIKE.fullmatch(match[2]):
            raise UsageError(
                f"{match[0]}: there is no such column; the columns are {', '.join(columns) or 'none'}; "
                f"{{{match[0]}}} stands for the text {match[0]}"
            )
        return None

    def _is_placeholder(self, inner: str, columns: Sequence[str]) -> bool:
        return _resolve(inner, columns, self._changes) is not None or _NAME_LIKE.fullmatch(inner) is not None

    def render_each(self, row: Row) -> list[str]:
        """As arguments: one, but a `{}` that stands alone becomes as many as the task has inputs."""
        return [self.render(row)] if self._inputs is None else [self._inputs(text) for text in row.inputs]


def _resolve(inner: str, columns: Sequence[str], changes: Changes) -> tuple[int, Callable[[str], str]] | None:
    """Returns the cell that the text between braces means and the part of it; None if it is no placeholder."""
    if inner == "#":
        return _NUMBER, _same
    if inner == SLOT:
        return _SLOT, _same
    if inner in columns:
        return columns.index(inner), _same
    for ending, change in changes.items():
        if inner.endswith(ending):
            name = inner.removesuffix(ending)
            if not name:
                return _INPUTS, change
            if name in columns:
                return columns.index(name), change
            if name.isascii() and name.isdigit() and 0 < int(name) <= len(columns):
                return int(name) - 1, change
    return None


def _renderer(index: int, change: Callable[[str], str]) -> Callable[[Row], str]:
    if index == _NUMBER:
        return lambda row: str(row.number)
    if index == _SLOT:
        return lambda row: row.slot
    if index == _INPUTS:
        return lambda row: " ".join([change(text) for text in row.inputs])
    if change is _same:
        return lambda row: row.cells[index]
    return lambda row: change(row.cells[index])
