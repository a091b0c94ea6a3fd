"""Tables: the rows that tasks are made of, each made when it is asked for and not kept.

Contract: a `Table` has columns, a length, and `row(number)` for numbers from 1.  Text is UTF-8 in which bytes that are
none are surrogate escapes, so `encode` gives back what came.  A waiting row costs at most 8 bytes of memory, whether
it is a line of a file, a combination of words or a number.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from cexec.cmap.inputs.store import RecordStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


UNKNOWN_SLOT = "{%}"


def encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def decode(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


class Row:
    """`inputs`: what `{}` stands for, several texts when a task takes several.  `line`: the input without its end.

    `slot`: what `{%}` stands for, which is known when the task is given to a worker.
    """

    __slots__ = ("cells", "inputs", "line", "number", "slot")

    def __init__(self, number: int, cells: tuple[str, ...], line: str = "", inputs: tuple[str, ...] = ()) -> None:
        self.number = number
        self.cells = cells
        self.line = line
        self.inputs = inputs or cells
        self.slot = UNKNOWN_SLOT


class Table:
    """`columns` names the cells; the first can also be called 1, the second 2.  `terminator` ends an input."""

    columns: tuple[str, ...]
    terminator = "\n"

    @property
    def longest(self) -> int:
        """No row has more bytes."""
        raise NotImplementedError

    @property
    def has_nul(self) -> bool:
        """True if a row may contain a NUL, which no argument can."""
        return False

    def __len__(self) -> int:
        raise NotImplementedError

    def cells(self, number: int) -> tuple[str, ...]:
        raise NotImplementedError

    def row(self, number: int) -> Row:
        cells = self.cells(number)
        return Row(number, cells, " ".join(cells))


class Words(Table):
    """The words of the command line."""

    columns = ("1",)

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words

    @property
    def longest(self) -> int:
        return max((len(encode(word)) for word in self._words), default=0)

    def __len__(self) -> int:
        return len(self._words)

    def cells(self, number: int) -> tuple[str, ...]:
        return (self._words[number - 1],)


class Lines(Table):
    """Lines of a stream, or what ends with another byte."""

    columns = ("1",)

    def __init__(self, store: RecordStore, separator: bytes = b"\n") -> None:
        self._store = store
        self._separator = separator
        self.terminator = decode(separator)

    @property
    def longest(self) -> int:
        return self._store.longest

    @property
    def has_nul(self) -> bool:
        return self._store.has_nul

    def __len__(self) -> int:
        return len(self._store)

    def cells(self, number: int) -> tuple[str, ...]:
        return (decode(self._store[number - 1].removesuffix(self._separator)),)


class _Joined(Table):
    """Rows of several tables side by side."""

    def __init__(self, tables: Sequence[Table]) -> None:
        self._tables = tables
        names = [name for table in tables for name in table.columns]
        self.columns = tuple(str(place) if name.isdigit() else name for place, name in enumerate(names, 1))

    @property
    def longest(self) -> int:
        return sum(table.longest for table in self._tables)

    @property
    def has_nul(self) -> bool:
        return any(table.has_nul for table in self._tables)


class Product(_Joined):
    """Every combination; the last table's rows follow one another fastest."""

    def __len__(self) -> int:
        return math.prod(len(table) for table in self._tables)

    def cells(self, number: int) -> tuple[str, ...]:
        rest, parts = number - 1, []
        for table in reversed(self._tables):
            rest, position = divmod(rest, len(table))
            parts.append(table.cells(position + 1))
        return tuple(cell for part in reversed(parts) for cell in part)


class Linked(_Joined):
    """First rows with first rows, second with second, up to the end of the shortest table."""

    def __len__(self) -> int:
        return min(len(table) for table in self._tables)

    def cells(self, number: int) -> tuple[str, ...]:
        return tuple(cell for table in self._tables for cell in table.cells(number))


class Groups(Table):
    """Several inputs to a row; where the last row lacks some, its cells are empty."""

    def __init__(self, table: Table, size: int) -> None:
        self._table = table
        self._size = size
        self.columns = tuple(str(number + 1) for number in range(size))
        self.terminator = table.terminator

    @property
    def longest(self) -> int:
        return self._table.longest * self._size

    @property
    def has_nul(self) -> bool:
        return self._table.has_nul

    def __len__(self) -> int:
        return -(-len(self._table) // self._size)

    @property
    def complete(self) -> int:
        """Counts the rows that have all of their inputs."""
        return len(self._table) // self._size

    def cells(self, number: int) -> tuple[str, ...]:
        inputs = self._inputs(number)
        return inputs + ("",) * (self._size - len(inputs))

    def row(self, number: int) -> Row:
        inputs = self._inputs(number)
        return Row(number, inputs + ("",) * (self._size - len(inputs)), self.terminator.join(inputs), inputs)

    def _inputs(self, number: int) -> tuple[str, ...]:
        first = (number - 1) * self._size + 1
        last = min(first + self._size, len(self._table) + 1)
        return tuple(self._table.cells(row)[0] for row in range(first, last))


class Numbers(Table):
    """Members of ranges."""

    columns = ("1",)

    def __init__(self, ranges: Sequence[range]) -> None:
        self._ranges = ranges

    longest = 20

    def __len__(self) -> int:
        return sum(map(len, self._ranges))

    def cells(self, number: int) -> tuple[str, ...]:
        position = number - 1
        for members in self._ranges:
            if position < len(members):
                return (str(members[position]),)
            position -= len(members)
        raise IndexError(number)


class Slices(Table):
    """Rows of --slices: the number of the slice, from 1, and how many slices there are."""

    columns = ("slice", "slices")

    def __init__(self, count: int) -> None:
        self._count = count

    longest = 40

    def __len__(self) -> int:
        return self._count

    def cells(self, number: int) -> tuple[str, ...]:
        return (str(number), str(self._count))


class StoredRows(Table):
    """Rows of a file of parameters: kept as they came, taken apart by `parse` when they are asked for.

    `escapes`: a cell may contain a NUL that its record does not.
    """

    def __init__(
        self,
        columns: tuple[str, ...],
        store: RecordStore,
        parse: Callable[[str], tuple[str, ...]],
        *,
        escapes: bool = False,
    ) -> None:
        self.columns = columns
        self._store = store
        self._parse = parse
        self._escapes = escapes

    @property
    def longest(self) -> int:
        return self._store.longest

    @property
    def has_nul(self) -> bool:
        return self._store.has_nul or self._escapes

    def __len__(self) -> int:
        return len(self._store)

    def cells(self, number: int) -> tuple[str, ...]:
        return self.row(number).cells

    def row(self, number: int) -> Row:
        line = decode(self._store[number - 1]).rstrip("\r\n")
        return Row(number, self._parse(line), line, (line,))
