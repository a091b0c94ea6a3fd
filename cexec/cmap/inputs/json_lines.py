"""A file of parameters as JSON lines: one object a line, whose values become cells as they were written.

Contract: `read_json_lines` checks every line when the file is read, so a `UsageError` with file and line comes before
anything runs.  A text becomes what it stands for.  A number stays as its digits are: `1e6`, `3.10` and `1e400` are no
floats here.  Arrays and objects are written without spaces.  A key that comes twice in one object is refused on every
level, and so are NaN and Infinity, which JSON does not have.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NoReturn

from cexec.cmap.inputs.columns import check_columns
from cexec.cmap.inputs.store import RecordStore
from cexec.cmap.inputs.tables import StoredRows, decode, encode
from cexec.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Number(str):
    """The digits of a number."""

    __slots__ = ()


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise UsageError(f"has the key {next(key for key in keys if keys.count(key) > 1)} twice in one object")
    return found


def _constant(name: str) -> NoReturn:
    raise UsageError(f"has {name}, which is no JSON; write it as a text or as null")


_decode = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_Number, parse_float=_Number, parse_constant=_constant
).raw_decode


def read_json_lines(lines: Iterator[tuple[int, bytes]], name: str) -> StoredRows:
    """`lines` are numbered from 1, the first is not blank; errors call the file `name`."""
    columns: tuple[str, ...] = ()
    wanted: set[str] = set()
    store = RecordStore()
    nul = False  # in a cell, written as \u0000
    for number, data in lines:
        line = decode(data).lstrip()
        if not line:
            continue
        where = f"{name}, line {number}"
        found = _parse_object(line, where)
        if not columns:
            columns, wanted = tuple(found), set(found)
            check_columns(columns, name)
        if found.keys() != wanted:
            missing = [column for column in columns if column not in found]
            excess = [key for key in found if key not in wanted]
            difference = f"has no {missing[0]}" if missing else f"has {excess[0]}"
            raise UsageError(f"{where} {difference}, other than the first line")
        nul = _check_cells(found, line, where) or nul
        store.append(encode(line))

    def parse(record: str) -> tuple[str, ...]:
        found, _ = _decode(record)
        return tuple([_text(found[column]) for column in columns])

    return StoredRows(columns, store, parse, escapes=nul)


def _parse_object(line: str, where: str) -> dict[str, object]:
    try:
        found, end = _decode(line)
    except json.JSONDecodeError as error:
        raise UsageError(f"{where}, column {error.colno}: {error.msg.lower()}") from None
    except UsageError as error:
        raise UsageError(f"{where} {error}") from None
    except RecursionError:  # brackets without end
        raise UsageError(f"{where} cannot be read as JSON") from None
    if line[end:].strip() or not isinstance(found, dict) or not found:
        raise UsageError(f"{where} must be one JSON object with at least one key")
    return found


def _check_cells(found: dict[str, object], line: str, where: str) -> bool:
    """Returns True if a NUL is among the cells; refuses half a character, which JSON can write."""
    escapes = "\\u" in line
    if not escapes and not any(isinstance(value, dict | list) for value in found.values()):
        return False
    try:
        cells = [_text(value) for value in found.values()]
    except RecursionError:
        raise UsageError(f"{where} cannot be read as JSON") from None
    halves = {letter for text in (*found, *cells) for letter in text if "\ud800" <= letter <= "\udfff"}
    if halves.difference(line):  # bytes that are no UTF-8 are in the line as such
        raise UsageError(f"{where} has an escape that is half a character")
    return any("\0" in cell for cell in cells)


def _text(value: object) -> str:
    """Returns a text as it is, anything else as JSON writes it."""
    return str(value) if isinstance(value, str) else _json(value)


def _json(value: object) -> str:
    if isinstance(value, _Number):
        return str(value)
    if isinstance(value, list):
        return f"[{','.join([_json(item) for item in value])}]"
    if isinstance(value, dict):
        return f"{{{','.join([f'{_quoted(key)}:{_json(item)}' for key, item in value.items()])}}}"
    return _quoted(value)


def _quoted(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
