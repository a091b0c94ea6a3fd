"""A file of parameters: CSV, TSV, cells between `|`, or JSON lines, told apart by the first line.

Contract: every line is checked when the file is read, so a `UsageError` with file and line comes before anything runs.
The header names the columns; a tab in it makes the table a TSV, else a `|`, else it is a CSV.  A first line that begins
with `{` makes the file JSON lines (`json_lines`): its keys are the columns, and every line has the same.  Blank lines
do not count.  A cell may have any length.
Quotes are those of CSV, also in a TSV, so a cell may contain line ends; between `|` they mean nothing, and neither do
spaces.
"""

from __future__ import annotations

import csv
import sys
from itertools import chain
from typing import TYPE_CHECKING

from cexec.cmap.inputs.columns import check_columns
from cexec.cmap.inputs.columns_of_lines import one_character
from cexec.cmap.inputs.json_lines import read_json_lines
from cexec.cmap.inputs.store import RecordStore
from cexec.cmap.inputs.tables import StoredRows, decode, encode
from cexec.errors import UsageError
from cexec.system.units import show_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from re import Pattern

LONGEST_RECORD = 1 << 28  # bytes (ours) in which a quoted cell must end, lest one quote too many fill the memory
_BYTE_ORDER_MARK = "\ufeff".encode()
_QUOTE = b'"'
_BAR = "|"
csv.field_size_limit(sys.maxsize)  # a cell may be as long as a line may be without quotes


def read_parameters(lines: Iterable[bytes], name: str, separator: Pattern[str] | None = None) -> StoredRows:
    """Reads the table in the lines of a file, which errors call `name`; `separator` is what --colsep says."""
    numbered = enumerate(lines, 1)
    number, first = next((found for found in numbered if found[1].strip()), (0, b""))
    if not first:
        raise UsageError(f"{name} is empty; its first line must name the columns")
    first = first.removeprefix(_BYTE_ORDER_MARK)
    if first.lstrip().startswith(b"{") and separator is None:
        return read_json_lines(chain([(number, first)], numbered), name)
    return _read_delimited(decode(first), numbered, name, "" if separator is None else one_character(separator))


# CSV and the like


def _read_delimited(header: str, lines: Iterator[tuple[int, bytes]], name: str, given: str) -> StoredRows:
    """`given` is the character between cells; empty if the header shows it."""
    delimiter = given or next((character for character in "\t|," if character in header), ",")
    columns = _parse_checked(header, lines, delimiter, f"{name}, header line")[0]
    if not given and len(columns) == 1 and ";" in columns[0] and '"' not in header:
        raise UsageError(
            f"{name}, header line: there are semicolons in the name of the one column; cells are separated by commas, "
            "tabs or |, or by what --colsep says: --colsep ';'"
        )
    check_columns(columns, name)
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
        size = 0
        for _, other in lines:
            size += len(other)
            if size > LONGEST_RECORD:
                raise UsageError(f"{where}: a quote that begins here does not end within {show_size(LONGEST_RECORD)}")
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
