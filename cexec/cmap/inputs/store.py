"""Bytes that wait on disk and not in memory: unnamed temporary files, and records in them.

Contract: a `Spool` is appended to and read at any place, also while it grows; a `RecordStore` costs 8 bytes of memory
a record, however long the record is.  `LocalError` when the disk is full.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from array import array
from itertools import accumulate, islice
from typing import TYPE_CHECKING

from cexec.errors import UsageError
from cexec.system.reason import reason_of
from cexec.system.storage.temporary import no_temporary

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

CHUNK = 1 << 20  # bytes (ours) read or copied at once
HASH_SIZE = 16  # bytes (ours)
KEEP = "keep data"  # messages of failures say by it what a temporary file is for
WINDOW = 1 << 16  # bytes (ours) of records read at once


class Spool:
    """One unnamed file under $TMPDIR or /tmp, which the system removes when it is closed."""

    def __init__(self) -> None:
        self.size = 0
        try:
            self._file = tempfile.TemporaryFile(prefix="cexec-", buffering=0)  # noqa: SIM115 - lives as long as we do
        except OSError as error:
            raise no_temporary(KEEP, error) from None

    def append(self, data: bytes | bytearray | memoryview) -> int:
        """Adds data; returns where it begins."""
        start, view = self.size, memoryview(data)
        try:
            while view:
                view = view[os.pwrite(self._file.fileno(), view, self.size + len(data) - len(view)) :]
        except OSError as error:
            raise no_temporary(KEEP, error) from None
        self.size += len(data)
        return start

    def read(self, start: int, size: int) -> bytes:
        """Fewer bytes at the end only."""
        return os.pread(self._file.fileno(), size, start)

    def pieces(self, start: int, size: int) -> Iterator[bytes]:
        """That part of the file in pieces that fit into memory."""
        for position in range(start, start + size, CHUNK):
            yield self.read(position, min(CHUNK, start + size - position))

    def clear(self) -> None:
        """Forgets everything and gives the disk back."""
        self._file.truncate(0)
        self.size = 0

    def close(self) -> None:
        self._file.close()


def spool_stream(stream: BinaryIO) -> tuple[Spool, bytes]:
    """Keeps all of standard input for many readers; returns it and its hash."""
    spool = Spool()
    digest = hashlib.blake2b(digest_size=HASH_SIZE)

    def read() -> bytes:
        try:
            return stream.read(CHUNK)
        except OSError as error:
            raise UsageError(f"cannot read standard input: {reason_of(error)}") from None

    while data := read():
        spool.append(data)
        digest.update(data)
    return spool, digest.digest()


class RecordStore:
    """Records by their number, from 0.  A record has its separator at its end, if it came with one.

    `longest` is the length of the longest one; `has_nul` says whether a NUL is in any, separators apart.
    """

    def __init__(self) -> None:
        self.longest = 0
        self._has_nul = False
        self._spool = Spool()
        self._waiting = bytearray()  # not yet on disk, so that a small record costs no system call
        self._ends = array("Q", [0])
        self._window = b""  # what was read last, and beyond: mostly records are asked for one after another
        self._window_start = 0
        self._next = 0  # the record after the last one that was asked for

    def __len__(self) -> int:
        return len(self._ends) - 1

    @property
    def has_nul(self) -> bool:
        self._flush()
        return self._has_nul

    def __getitem__(self, number: int) -> bytes:
        start, end = self._ends[number], self._ends[number + 1]
        if start < self._window_start or end > self._window_start + len(self._window):
            if self._waiting:
                self._flush()
            if number != self._next:
                self._next = number + 1
                return self._spool.read(start, end - start)
            self._window = self._spool.read(start, max(WINDOW, end - start))
            self._window_start = start
        self._next = number + 1
        return self._window[start - self._window_start : end - self._window_start]

    def append(self, record: bytes) -> None:
        size = len(record)
        if size > self.longest:
            self.longest = size
        self._waiting += record
        self._ends.append(self._ends[-1] + size)
        if len(self._waiting) >= CHUNK:
            self._flush()

    def take_lines(self, stream: BinaryIO, separator: bytes) -> None:
        """Every record of a stream; the last one may lack its separator.  The separator is one byte."""
        begun = 0  # bytes of a record whose end has not come
        while data := stream.read(CHUNK):
            self._spool.append(data)
            self._has_nul = self._has_nul or (separator != b"\0" and b"\0" in data)
            *whole, rest = data.split(separator)
            if whole:
                lengths = [len(record) + 1 for record in whole]
                lengths[0] += begun
                begun = 0
                self.longest = max(self.longest, *lengths)
                self._ends.extend(islice(accumulate(lengths, initial=self._ends[-1]), 1, None))
            begun += len(rest)
        if begun:
            self.longest = max(self.longest, begun)
            self._ends.append(self._spool.size)

    def _flush(self) -> None:
        self._has_nul = self._has_nul or b"\0" in self._waiting
        self._spool.append(self._waiting)
        self._waiting.clear()
