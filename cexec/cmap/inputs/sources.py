"""Makes one table of all sources of tasks, chooses among its rows, and orders them.

Contract: `table_from` makes the table that the options ask for, `Selection` says which of its rows become tasks and in
which order; a row of a file costs 8 bytes, a number nothing, and a random order 8 bytes more.  `cut_blocks` makes the
tasks of --pipe as they come.  Every mistake is a `UsageError` before anything runs.
"""

from __future__ import annotations

import math
import random
from array import array
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cexec.cmap.inputs.columns_of_lines import Headed, Split, Uncalled
from cexec.cmap.inputs.parameter_files import read_parameters
from cexec.cmap.inputs.row_numbers import RowNumbers
from cexec.cmap.inputs.store import CHUNK, RecordStore
from cexec.cmap.inputs.tables import Groups, Lines, Linked, Numbers, Product, Slices, Words
from cexec.errors import UsageError
from cexec.system.reason import reason_of
from cexec.system.units import LARGEST

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from re import Pattern
    from typing import BinaryIO

    from cexec.cmap.inputs.arriving import ArrivingLines
    from cexec.cmap.inputs.tables import Table

INPUTS, LINKED = ":::", ":::+"
LINEAR, RANDOM = "linear", "random"


def split_words(words: Sequence[str]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Returns the words before the first `:::`, and for each `:::` or `:::+` the words after it."""
    before: list[str] = []
    inputs: list[tuple[str, list[str]]] = []
    for word in words:
        if word in (INPUTS, LINKED):
            if word == LINKED and not inputs:
                raise UsageError(":::+ links its words to those of a ::: before it, but there is none")
            inputs.append((word, []))
        else:
            (inputs[-1][1] if inputs else before).append(word)
    return before, inputs


@dataclass(slots=True, kw_only=True)
class Reading:
    """Says how inputs are read.  `null`: each ends with a NUL byte.  `group`: a task has so many; with 0 it sees none.

    `separator` cuts each into columns (--colsep); `headed`: the first one of each source names them (--header :).
    """

    null: bool = False
    group: int | None = None
    separator: Pattern[str] | None = None
    headed: bool = False

    @property
    def end(self) -> bytes:
        """Returns the byte that ends an input."""
        return b"\0" if self.null else b"\n"

    def taken_apart(self, table: Table, name: str, *, growing: bool = False) -> Table:
        """Returns one source with its columns; `growing`: more of its rows may come."""
        if self.separator is not None:
            table = Split(table, self.separator, growing=growing)
        return Headed(table, name) if self.headed else table

    def grouped(self, table: Table) -> Table:
        """Returns the table of all sources with as many inputs in a row as a task takes."""
        if self.group is None:
            return table
        return Groups(table, self.group) if self.group else Uncalled(table)


def table_from(
    *,
    inputs: Sequence[tuple[str, list[str]]] = (),
    files: Sequence[str] = (),
    params: str = "",
    array_members: Sequence[range] = (),
    slices: int | None = None,
    stdin: BinaryIO | None = None,
    reading: Reading | None = None,
) -> Table:
    """Makes the one table that the options describe, of lines of `stdin` if there is no other; `-` is `stdin` too."""
    how = reading or Reading()
    given = {":::": inputs, "-a": files, "--params": params, "--array": array_members, "--slices": slices}
    sources = [option for option, value in given.items() if value]
    if len(sources) > 1:
        raise UsageError(f"{sources[0]} and {sources[1]} cannot be used together")
    check_reading(how, sources, several=len(files) > 1 or len(inputs) > 1)
    if params:
        with _reading(params, stdin) as stream:
            return read_parameters(stream, "standard input" if params == "-" else params, how.separator)
    if array_members:
        return Numbers(array_members)
    if slices:
        return Slices(slices)
    if inputs:
        return how.grouped(_combined(inputs, how))
    return how.grouped(_product([_read_lines(name, stdin, how) for name in files or "-"]))


def arriving_table(lines: ArrivingLines, how: Reading) -> tuple[Table, Callable[[], int]]:
    """Makes the table of lines of standard input that come one after the other, and counts its complete rows."""
    check_reading(how, [], several=False)
    table = how.grouped(how.taken_apart(Lines(lines.store, how.end), "standard input", growing=True))
    groups = table if isinstance(table, Groups) else None
    return table, lambda: len(table) if groups is None or lines.ended else groups.complete


def check_reading(how: Reading, sources: Sequence[str], *, several: bool) -> None:
    """Refuses ways to read that these sources have not.  `several`: there is more than one file, or `:::`."""
    if how.group and (several or sources not in ([], [":::"], ["-a"])):
        raise UsageError("-n needs one source of inputs: standard input, one -a, or one :::")
    if how.null and sources not in ([], ["-a"]):
        raise UsageError("-0 is about lines, but there are none: give them on standard input, or with -a")
    if how.group and (how.separator is not None or how.headed):
        raise UsageError("-n cannot be used with --colsep or --header: a task has the columns of one input")
    if how.separator is not None and sources not in ([], [":::"], ["-a"], ["--params"]):
        raise UsageError("--colsep is about lines and words, but there are none")
    if how.headed and sources not in ([], [":::"], ["-a"]):
        raise UsageError("--header : needs lines or words; the first line of --params names the columns anyhow")


def _combined(inputs: Sequence[tuple[str, list[str]]], how: Reading) -> Table:
    """`:::+` binds closer than the product."""
    linked: list[list[Table]] = []
    for kind, words in inputs:
        table = how.taken_apart(Words(words), kind)
        if kind == LINKED:
            linked[-1].append(table)
        else:
            linked.append([table])
    return _product([Linked(tables) if len(tables) > 1 else tables[0] for tables in linked])


def _product(tables: Sequence[Table]) -> Table:
    if math.prod(len(table) for table in tables) > LARGEST:
        raise UsageError("these sources have too many combinations")
    return Product(tables) if len(tables) > 1 else tables[0]


def _read_lines(name: str, stdin: BinaryIO | None, how: Reading) -> Table:
    store = RecordStore()
    with _reading(name, stdin) as stream:
        store.take_lines(stream, how.end)
    return how.taken_apart(Lines(store, how.end), "standard input" if name == "-" else name)


@contextmanager
def _reading(name: str, stdin: BinaryIO | None) -> Iterator[BinaryIO]:
    """Opens the file, or takes standard input, which stays open."""
    if name == "-" and stdin is None:
        raise UsageError("standard input is needed for something else; give the inputs with -a or after :::")
    try:
        if name == "-" and stdin is not None:
            yield stdin
        else:
            with open(name, "rb") as stream:
                yield stream
    except OSError as error:
        shown = "standard input" if name == "-" else name
        raise UsageError(f"cannot read {shown}: {reason_of(error)}") from None


def parse_order(text: str, option: str) -> str:
    """Returns LINEAR or RANDOM."""
    if text not in (LINEAR, RANDOM):
        raise UsageError(f"{option} is {text!r}, but must be {LINEAR} or {RANDOM}")
    return text


class Selection:
    """The numbers of the rows that become tasks, in the order in which they are started."""

    def __init__(self, rows: int, *, chosen: Sequence[range] = (), order: str = LINEAR, seed: int = 0) -> None:
        """`rows` is the table's length; `seed` makes a random order the same again."""
        self._numbers: Collection[int] = range(1, rows + 1)
        if chosen:
            for wrong in (number for members in chosen for number in (members[0], members[-1])):
                if not 1 <= wrong <= rows:
                    raise UsageError(f"--rows: there is no row {wrong}; the last one is {rows}")
            self._numbers = RowNumbers(chosen)
        self._shuffled: array[int] | None = None
        if order == RANDOM:
            self._shuffled = array("Q", self._numbers)
            random.Random(seed).shuffle(self._shuffled)

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[int]:
        return iter(self._numbers if self._shuffled is None else self._shuffled)

    def ascending(self) -> Collection[int]:
        """Returns the same numbers in the table's order."""
        return self._numbers


def cut_blocks(stream: BinaryIO | _Continued, size: int, end: bytes) -> Iterator[bytes]:
    """Blocks of whole records of about `size` bytes; a longer record is a block of its own.  Without `end`: any byte.

    At most one block and a chunk are in memory, and nothing is read before it is asked for.
    """
    waiting = bytearray()
    searched = 0  # bytes in which no record ends
    while data := stream.read(max(1, min(size, CHUNK))):
        waiting += data
        while len(waiting) >= size:
            cut = _last_end(waiting, size, end, searched)
            if cut == 0:
                searched = max(0, len(waiting) - len(end) + 1)
                break
            yield bytes(waiting[:cut])
            del waiting[:cut]
            searched = 0
    if waiting:
        yield bytes(waiting)


def with_header(stream: BinaryIO, lines: int, size: int, end: bytes) -> Iterator[bytes]:
    """Blocks as of `cut_blocks`, each of which begins with the first lines of the stream."""
    header, rest = b"", b""
    while header.count(b"\n") < lines and (data := stream.read(CHUNK)):
        header += data
    place = 0
    for _ in range(lines):
        place = header.find(b"\n", place) + 1 or len(header)
    header, rest = header[:place], header[place:]
    for block in cut_blocks(_Continued(rest, stream), size, end):
        yield header + block


class _Continued:
    """Reads again the bytes that a test has taken from a stream, and then the rest of the stream."""

    def __init__(self, begun: bytes, stream: BinaryIO) -> None:
        self._begun = begun
        self._stream = stream

    def read(self, size: int) -> bytes:
        if not self._begun:
            return self._stream.read(size)
        data, self._begun = self._begun[:size], self._begun[size:]
        return data


def _last_end(waiting: bytearray, size: int, end: bytes, searched: int) -> int:
    """Returns the last end of a record within `size`, or else the first one after it; 0 if no record has ended."""
    if not end:
        return size
    found = waiting.rfind(end, searched, size)
    if found < 0:
        found = waiting.find(end, max(searched, size - len(end) + 1))
    return 0 if found < 0 else found + len(end)
