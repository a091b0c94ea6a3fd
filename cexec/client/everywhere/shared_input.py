"""`cexec --all`: inputs that are read once and given to every worker.

Contract: a `SharedInput` has any number of `source()`s, each of which gives the same bytes from the beginning.  A
regular file is read at its offset, which `move_offset` moves at the end by what the farthest reader took; anything else
is read when the farthest reader wants more (`fill`, when `fd` is readable) and kept in an unnamed temporary file.
"""

from __future__ import annotations

import os
import tempfile

from cexec.client.attempt.descriptors import name_of
from cexec.errors import LocalError
from cexec.system.io.fds import EmptySource, FileSource, Source, open_source
from cexec.system.reason import reason_of

READ_SIZE = 256 * 1024  # bytes (ours) of one look at an input


class SharedInput:
    """One descriptor that all programs read."""

    def __init__(self, number: int, *, empty: bool) -> None:
        self._number = number
        self._source = EmptySource() if empty else open_source(number)
        self._file = self._source if isinstance(self._source, FileSource) else None
        self._spool = -1
        self._kept = 0  # bytes in the spool
        self._ended = False
        self._farthest = 0
        self._buffer = memoryview(bytearray(READ_SIZE))

    @property
    def fd(self) -> int:
        """What is readable when there is more to `fill` with; -1: nothing to wait for."""
        return -1 if self._ended or self._file is not None else self._source.fd

    def source(self) -> SharedSource:
        """For one more worker."""
        return SharedSource(self)

    def available(self, position: int) -> bool:
        """Whether there is anything to say to a reader that has got so far: bytes, or that this is the end."""
        return self._file is not None or position < self._kept or self._ended

    def fill(self) -> None:
        """Reads on."""
        try:
            size = self._source.read_into(self._buffer)
        except OSError as error:
            raise LocalError(f"cannot read from {name_of(self._number)}: {reason_of(error)}") from None
        if size == 0:
            self._ended = True
        elif size:
            self._keep(self._buffer[:size])

    def read_at(self, view: memoryview, position: int) -> int | None:
        """As of a source: 0 is the end, None is nothing now."""
        if self._file is not None:
            size = os.preadv(self._number, [view], self._file.start + position)
        elif position < self._kept:
            size = os.preadv(self._spool, [view[: self._kept - position]], position)
        else:
            return 0 if self._ended else None
        self._farthest = max(self._farthest, position + size)
        return size

    def move_offset(self) -> None:
        """What shares our input file goes on where the farthest reader has stopped."""
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
            where = tempfile.gettempdir()
            raise LocalError(f"cannot keep {name_of(self._number)} in {where}: {reason_of(error)}") from None


class SharedSource(Source):
    """One worker's reader.  It has no descriptor: whoever drives it looks at `available`."""

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
