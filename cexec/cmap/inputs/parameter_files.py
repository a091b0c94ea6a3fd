"""A file of parameters: CSV, TSV, cells between `|`, or JSON lines, told apart by the first line.

Contract: every line is checked when the file is read, so a `UsageError` with file and line comes before anything runs.
The header names the columns; a tab in it makes the table a TSV, else a `|`, else it is a CSV.  A first line that begins
with `{` makes the file JSON lines: its keys are the columns, and every line has the same.  Blank lines do not count.
Quotes are those of CSV, also in a TSV, so a cell may contain line ends; between `|` they mean nothing, and neither do
spaces.
"""

from __future__ import annotations

import csv
import json
from itertools import chain
from typing import TYPE_CHECKING

from cexec.cmap.inputs.store import RecordStore
from cexec.cmap.inputs.tables import StoredRows, decode, encode
from cexec.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_BYTE_ORDER_MARK = "\ufeff".encode()
_QUOTE = b'"'
_BAR = "|"
_decode_json = json.JSONDecoder().raw_decode


def read_parameters(lines: Iterable[bytes], name: str) -> StoredRows:
    """Reads the table in the lines of a file, which errors call `name`."""
    numbered = enumerate(lines, 1)
    number, first = next((found for found in numbered if found[1].strip()), (0, b""))
    if not first:
        raise UsageError(f"{name} is empty; its first line must name the columns")
    first = first.removeprefix(_BYTE_ORDER_MARK)
    if first.lstrip().startswith(b"{"):
        return _read_json_lines(chain([(number, first)], numbered), name)
    return _read_delimited(decode(first), numbered, name)


# CSV and the like


def _read_delimited(header: str, lines: Iterator[tuple[int, bytes]], name: str) -> StoredRows:
    delimiter = next((character for character in "\t|," if character in header), ",")
    columns = _parse_checked(header, lines, delimiter, f"{name}, header line")[0]
    _check_columns(columns, name)
    width, separator = len(columns), delimiter.encode()
    store = RecordStore()
    for number, line in lines:
        if width > 1 and line.count(separator) == width - 1 and _QUOTE not in line:
            store.append(line)  # what most lines are, without taking them apart
        elif line.strip(b"\r\n "):
            where = f"{name}, line {number}"
            cells, record = _parse_checked(decode(line), lines, delimiter, where)
            if len(cells) != width:
                found = "1 cell" if len(cells) == 1 else f"{len(cells)} cells"
                raise UsageError(f"{where} has {found}, but the header has {width}")
            store.append(encode(record))
    return StoredRows(columns, store, lambda record: _parse(record, delimiter))


def _parse_checked(
    line: str, lines: Iterator[tuple[int, bytes]], delimiter: str, where: str
) -> tuple[tuple[str, ...], str]:
    """Returns the cells of a record and all of its lines, of which `line` is the first."""
    taken = [line]

    def more() -> Iterator[str]:
        yield line
        for _, other in lines:
            taken.append(decode(other))
            yield taken[-1]

    try:
        if delimiter != _BAR:
            next(_reader(more(), delimiter))
    except csv.Error as error:
        raise UsageError(f"{where}: {error}") from None
    record = "".join(taken)
    return _parse(record.rstrip("\r\n"), delimiter), record


def _parse(record: str, delimiter: str) -> tuple[str, ...]:
    """Returns the cells of a record that is known to be right, without its line end."""
    if delimiter == _BAR:
        return tuple([cell.strip(" ") for cell in record.split(_BAR)])
    return tuple(record.split(delimiter) if '"' not in record else next(_reader([record], delimiter)))


def _reader(lines: Iterable[str], delimiter: str) -> Iterator[list[str]]:
    return csv.reader(lines, delimiter=delimiter, strict=True)


def _check_columns(columns: tuple[str, ...], name: str) -> None:
    for number, column in enumerate(columns, 1):
        if not column.strip():
            raise UsageError(f"{name}, header line: column {number} has no name")
        if column.isdigit():
            raise UsageError(f"{name}: the first line must name the columns, but has the number {column}")
        if column in columns[: number - 1]:
            raise UsageError(f"{name}, header line: two columns are called {column}")


# JSON lines


def _read_json_lines(lines: Iterator[tuple[int, bytes]], name: str) -> StoredRows:
    columns: tuple[str, ...] = ()
    wanted: set[str] = set()
    store = RecordStore()
    nul = False  # in a cell, written as \u0000
    for number, data in lines:
        line = decode(data).lstrip()
        if not line:
            continue
        found = _parse_object(line, name, number)
        if not columns:
            columns, wanted = tuple(found), set(found)
            _check_columns(columns, name)
        if found.keys() != wanted:
            missing = [column for column in columns if column not in found]
            excess = [key for key in found if key not in wanted]
            difference = f"has no {missing[0]}" if missing else f"has {excess[0]}"
            raise UsageError(f"{name}, line {number} {difference}, other than the first line")
        if "\\u" in line:
            nul = _check_escapes(found, f"{name}, line {number}") or nul
        store.append(encode(line))

    def parse(record: str) -> tuple[str, ...]:
        found, _ = _decode_json(record)
        return tuple([_text(found[column]) for column in columns])

    return StoredRows(columns, store, parse, escapes=nul)


def _parse_object(line: str, name: str, number: int) -> dict[str, object]:
    try:
        found, end = _decode_json(line)
    except json.JSONDecodeError as error:
        raise UsageError(f"{name}, line {number}, column {error.colno}: {error.msg.lower()}") from None
    except (ValueError, RecursionError):  # digits without end, brackets without end
        raise UsageError(f"{name}, line {number} cannot be read as JSON") from None
    if line[end:].strip() or not isinstance(found, dict) or not found:
        raise UsageError(f"{name}, line {number} must be one JSON object with at least one key")
    return found


def _check_escapes(found: dict[str, object], where: str) -> bool:
    """Returns True if a NUL is among the cells; refuses half a character, which JSON can write."""
    cells = [_text(value) for value in found.values()]
    try:
        return any(b"\0" in encode(cell) for cell in cells)
    except UnicodeEncodeError:
        raise UsageError(f"{where} has an escape that is half a character") from None


def _text(value: object) -> str:
    """Returns a text as it is, anything else as JSON writes it."""
    if isinstance(value, str):
        return value
    return str(value) if type(value) is int else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
