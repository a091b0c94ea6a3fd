"""Lines of standard input as they come: tasks begin before the last line is there (`tail -f queue | cmap`).

Contract: `wait` returns when the input is at its end, or when it pauses and there is a line.  Then `ended` says which
of the two it was, and `store` has the lines that have come.  `numbers(available)` yields the number of each row, and
None when the next one has not come yet; the function of `on_arrival` is then called, in a thread, when there is more.
`LocalError` when the input cannot be read.
"""

from __future__ import annotations

import fcntl
import os
import select
import stat
import threading
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, cast

from cexec.cmap.inputs.blocks import BlockReader
from cexec.cmap.inputs.store import CHUNK, RecordStore
from cexec.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO


class ArrivingLines:
    """`stream` has no buffer: a read returns what there is.  `separator` is one byte."""

    def __init__(self, stream: BinaryIO, separator: bytes) -> None:
        self.store = RecordStore()
        self.ended = False
        self.size = 0  # bytes that have come
        self._separator = separator
        self._reader = BlockReader(iter(lambda: _read(stream), b""))
        self._available: Callable[[], int] = lambda: 0
        self._rest = b""  # of a line whose end has not come

    def on_arrival(self, tell: Callable[[], None]) -> None:
        """`tell` is called, from another thread, when there is more."""
        self._reader.arrived = tell

    def wait(self, pause: float | None, longest: float = inf) -> None:
        """Waits for the end, but once there is a line only until nothing has come for the time of a `pause`.

        `longest` is the time after which that is the same if there was no pause.  None: the end is waited for.
        """
        woken = threading.Event()
        self._reader.arrived = woken.set
        begun = heard = monotonic()
        while not self.ended:
            woken.clear()
            before = self.size
            self.take()
            now = monotonic()
            heard = now if self.size > before else heard
            due = inf if pause is None else min(heard + pause, begun + longest)
            if self.ended or (now >= due and len(self.store)):
                return
            woken.wait(None if due == inf or now >= due else due - now)

    @property
    def come(self) -> int:
        """Counts the complete rows that have come so far."""
        return self._available()

    def take(self) -> None:
        """Takes what has come."""
        while not self.ended and (chunk := self._reader.take()) is not None:
            self.size += len(chunk)
            if not chunk:
                self.ended = True
                if self._rest:
                    self.store.append(self._rest)
                return
            *whole, self._rest = (self._rest + chunk).split(self._separator)
            for record in whole:
                self.store.append(record + self._separator)

    def numbers(self, available: Callable[[], int]) -> Iterator[int | None]:
        """`available` counts the rows that are complete."""
        self._available = available
        number = 0
        while True:
            while number < available():
                number += 1
                yield number
            if self.ended:
                return
            self.take()  # just before we say that there is nothing: what comes later wakes somebody
            if number >= available() and not self.ended:
                yield None


def _read(stream: BinaryIO) -> bytes:
    """Returns what there is, and nothing at the end; somebody may have made the descriptor non-blocking."""
    while (data := cast("bytes | None", stream.read(CHUNK))) is None:
        select.select([stream], [], [])
    return data


def comes_bit_by_bit(stream: BinaryIO) -> bool:
    """Returns True for a pipe, a terminal and the like, whose end may be far away."""
    try:
        return not stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError):
        return False  # it is in memory, or closed, which reading it will tell


def check_readable(stream: BinaryIO) -> None:
    """Refuses a standard input that was not opened for reading, before anything has run."""
    try:
        access = fcntl.fcntl(stream.fileno(), fcntl.F_GETFL) & os.O_ACCMODE
    except (OSError, ValueError):
        return  # as above
    if access == os.O_WRONLY:
        raise UsageError("cannot read standard input: it was not opened for reading, as under nohup at a terminal")
