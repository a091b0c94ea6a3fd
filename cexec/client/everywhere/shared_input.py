"""`cexec --all`: inputs that are read once and given to every worker.

Contract: a `SharedInput` has any number of `source()`s, each of which returns the same bytes from the beginning.  A
regular file is read from its offset, and `move_offset` moves that at the end to where the farthest reader stopped.  Any
other input is read when the farthest reader wants more (`fill`, when `fd` is readable), and is kept in a temporary file
without a name.
"""

from __future__ import annotations

import os
import tempfile

from cexec.client.attempt.descriptors import name_of
from cexec.client.attempt.inputs import is_readable
from cexec.errors import LocalError
from cexec.system.io.fds import EmptySource, FileSource, Source
from cexec.system.io.opened_fds import open_source
from cexec.system.reason import reason_of
from cexec.system.storage.temporary import no_temporary

READ_SIZE = 256 * 1024  # bytes (ours) read at once, about as many as a record carries


class SharedInput:
    """One descriptor that all programs read."""

    def __init__(self, number: int, *, empty: bool) -> None:
        """It is empty, too, if it was not opened for reading, as with nohup."""
        self._number = number
        empty = empty or not is_readable(number)
        self._source = EmptySource() if empty else open_source(number)
        self._file = self._source if isinstance(self._source, FileSource) else None
        self._spool = -1
        self._kept = 0  # bytes in the spool
        self._ended = empty  # from the beginning: no descriptor will say that its end can be read
        self._farthest = 0
        self._buffer = memoryview(bytearray(READ_SIZE))

    @property
    def fd(self) -> int:
        """The descriptor that is readable when `fill` has bytes to read; -1 if there is nothing to wait for."""
        return -1 if self._ended or self._file is not None else self._source.fd

    def rests_until(self) -> float:
        """Returns when to look at `fd` again, of monotonic(), 0 for now."""
        return self._source.rests_until()

    def source(self) -> SharedSource:
        """Returns a reader for one more worker."""
        return SharedSource(self)

    def available(self, position: int) -> bool:
        """Returns True if a reader at this position can read on: there are bytes, or the input has ended."""
        return self._file is not None or position < self._kept or self._ended

    def fill(self) -> None:
        """Reads once and keeps the bytes."""
        try:
            size = self._source.read_into(self._buffer)
        except OSError as error:
            raise LocalError(f"cannot read from {name_of(self._number)}: {reason_of(error)}") from None
        if size == 0:
            self._ended = True
        elif size:
            self._keep(self._buffer[:size])

    def read_at(self, view: memoryview, position: int) -> int | None:
        """Returns the number of bytes read, as a source does: 0 is the end, None means that there are none now."""
        if self._file is not None:
            size = os.preadv(self._number, [view], self._file.start + position)
        elif position < self._kept:
            size = os.preadv(self._spool, [view[: self._kept - position]], position)
        else:
            return 0 if self._ended else None
        self._farthest = max(self._farthest, position + size)
        return size

    def move_offset(self) -> None:
        """Moves our input file's offset to where the farthest reader stopped; the next command goes on there."""
        if self._file is not None:
            self._file.move_offset(self._farthest)

    def _keep(self, data: memoryview) -> None:
        try:
            if self._spool < 0:
                with tempfile.TemporaryFile(prefix="cexec-input-") as file:
                    self._spool = os.dup(file.fileno())
            while len(data):
                size = os.pwrite(self._spool, data, self._kept)
                self._kept += size
                data = data[size:]
        except OSError as error:
            raise no_temporary(f"keep {name_of(self._number)}", error) from None


class SharedSource(Source):
    """One worker's reader.  It has no descriptor to wait for; its owner looks at `available`."""

    def __init__(self, shared: SharedInput) -> None:
        super().__init__(-1, shared=True)
        self.shared = shared
        self._position = 0

    @property
    def available(self) -> bool:
        return self.shared.available(self._position)

    def read_into(self, view: memoryview) -> int | None:
        size = self.shared.read_at(view, self._position)
        self._position += size or 0
        return size
