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
from typing import TYPE_CHECKING

from cexec.cmap.inputs.parameter_files import read_parameters
from cexec.cmap.inputs.row_numbers import RowNumbers
from cexec.cmap.inputs.store import CHUNK, RecordStore
from cexec.cmap.inputs.tables import Groups, Lines, Linked, Numbers, Product, Slices, Words
from cexec.errors import UsageError
from cexec.system.reason import reason_of
from cexec.system.units import LARGEST

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from typing import BinaryIO

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


def table_from(
    *,
    inputs: Sequence[tuple[str, list[str]]] = (),
    files: Sequence[str] = (),
    params: str = "",
    array_members: Sequence[range] = (),
    slices: int | None = None,
    stdin: BinaryIO | None = None,
    null: bool = False,
    group: int | None = None,
) -> Table:
    """Makes the one table that the options describe, of lines of `stdin` if there is no other; `-` is `stdin` too."""
    given = {":::": inputs, "-a": files, "--params": params, "--array": array_members, "--slices": slices}
    sources = [option for option, value in given.items() if value]
    if len(sources) > 1:
        raise UsageError(f"{sources[0]} and {sources[1]} cannot be used together")
    if group and (len(files) > 1 or len(inputs) > 1 or sources not in ([], [":::"], ["-a"])):
        raise UsageError("-n needs one source of inputs: standard input, one -a, or one :::")
    if null and sources not in ([], ["-a"]):
        raise UsageError("-0 is about lines, but there are none: give them on standard input, or with -a")
    separator = b"\0" if null else b"\n"
    if params:
        with _reading(params, stdin) as stream:
            return read_parameters(stream, "standard input" if params == "-" else params)
    if array_members:
        return Numbers(array_members)
    if slices:
        return Slices(slices)
    table = _combined(inputs) if inputs else _product([_read_lines(name, stdin, separator) for name in files or "-"])
    return Groups(table, group) if group else table


def _combined(inputs: Sequence[tuple[str, list[str]]]) -> Table:
    """`:::+` binds closer than the product."""
    linked: list[list[Table]] = []
    for kind, words in inputs:
        if kind == LINKED:
            linked[-1].append(Words(words))
        else:
            linked.append([Words(words)])
    return _product([Linked(tables) if len(tables) > 1 else tables[0] for tables in linked])


def _product(tables: Sequence[Table]) -> Table:
    if math.prod(len(table) for table in tables) > LARGEST:
        raise UsageError("these sources have too many combinations")
    return Product(tables) if len(tables) > 1 else tables[0]


def _read_lines(name: str, stdin: BinaryIO | None, separator: bytes) -> Lines:
    store = RecordStore()
    with _reading(name, stdin) as stream:
        store.take_lines(stream, separator)
    return Lines(store, separator)


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
        raise UsageError(f"cannot read {name}: {reason_of(error)}") from None


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


def cut_blocks(stream: BinaryIO, size: int, end: bytes) -> Iterator[bytes]:
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


def _last_end(waiting: bytearray, size: int, end: bytes, searched: int) -> int:
    """Returns the last end of a record within `size`, or else the first one after it; 0 if no record has ended."""
    if not end:
        return size
    found = waiting.rfind(end, searched, size)
    if found < 0:
        found = waiting.find(end, max(searched, size - len(end) + 1))
    return 0 if found < 0 else found + len(end)
