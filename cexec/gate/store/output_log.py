"""The output of a job: it grows while the program writes, and many may read it, each from where he wants.

Contract: at most MEMORY bytes of an output are in memory, the rest is in files.  `append` takes bytes at once, or
raises the `OSError` of the disk.  `read(offset, size)` returns what there is, nothing at the end, and `Problem` 410 for
bytes that are not kept any more; `wait(offset)` returns as soon as there is more behind `offset`, or the output has
ended.  `finish` brings all to the disk, in a thread.  An output that has ended is read as a `KeptOutput`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cexec.gate.problem import Problem
from cexec.gate.store.bell import Bell
from cexec.gate.store.output_files import SEGMENT

if TYPE_CHECKING:
    from cexec.gate.store.output_files import OutputFiles

MEMORY = 32 * 1024  # bytes (ours) of an output before it goes to a file


@dataclass(frozen=True, slots=True)
class KeptOutput:
    """An output that has ended.  `began`: its first byte that is kept; `size`: all of its bytes; `data`: if short."""

    files: OutputFiles
    job: str
    stream: int
    began: int
    size: int
    data: bytes | None

    @property
    def end(self) -> int:
        return self.size

    @property
    def ended(self) -> bool:
        return True

    def read(self, offset: int, size: int) -> bytes:
        """Returns up to `size` bytes from `offset` on; b"" behind the end."""
        check_kept(offset, self.began)
        if offset >= self.size:
            return b""
        if self.data is not None:
            return self.data[offset : offset + size]
        number, start = divmod(offset, SEGMENT)
        try:
            fd = os.open(self.files.segment(self.job, self.stream, number), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise Problem(410, "this output was removed a moment ago") from None
        try:
            return os.pread(fd, min(size, SEGMENT - start, self.size - offset), start)
        finally:
            os.close(fd)

    async def wait(self, offset: int, seconds: float | None = None) -> bool:
        return True


class OutputLog:
    """The output of a job that runs.  `seen`: somebody was told some of it, or its end."""

    def __init__(self, files: OutputFiles, job: str, stream: int) -> None:
        self.began = 0
        self.end = 0
        self.ended = False
        self.seen = False
        self._files = files
        self._job = job
        self._stream = stream
        self._tail = bytearray()  # the last bytes, which are in no file yet
        self._fd = -1  # of the segment that grows
        self._number = -1  # of that segment
        self._reading = -1, -1  # number and descriptor of an earlier segment that is read
        self._bell = Bell()

    def append(self, view: memoryview) -> None:
        """Adds bytes."""
        if len(self._tail) + len(view) <= MEMORY:
            self._tail += view
        else:
            self._spill(view)
        self.end += len(view)
        self._bell.ring()

    def close(self) -> None:
        """No more will come."""
        if not self.ended:
            self.ended = True
            self._bell.ring()

    def clear(self) -> None:
        """Forgets what an attempt has written, of which nobody has seen anything."""
        if self._number >= 0:
            self._files.remove_segments(self._job, self._stream, self.began // SEGMENT, self._number)
        self._close_files()
        self._tail.clear()
        self.began = self.end = 0
        self.ended = False

    def read(self, offset: int, size: int) -> bytes:
        """Returns up to `size` bytes from `offset` on; b"" at the end of what has come."""
        check_kept(offset, self.began)
        if offset < self.end or self.ended:
            self.seen = True
        if offset >= self.end:
            return b""
        in_file = self.end - len(self._tail)
        if offset >= in_file:
            return bytes(self._tail[offset - in_file : offset - in_file + size])
        number, start = divmod(offset, SEGMENT)
        size = min(size, SEGMENT - start, in_file - offset)
        return os.pread(self._fd if number == self._number else self._open_earlier(number), size, start)

    async def wait(self, offset: int, seconds: float | None = None) -> bool:
        """Returns True as soon as there is more behind `offset`, or the output has ended; False after `seconds`."""
        while self.end <= offset and not self.ended:
            if not await self._bell.wait(seconds):
                return False
        return True

    def drop_before(self, offset: int) -> None:
        """Removes the segments that end before `offset`."""
        first, last = self.began // SEGMENT, min(offset // SEGMENT, max(0, self._number)) - 1
        if last >= first:
            if first <= self._reading[0] <= last:
                os.close(self._reading[1])
                self._reading = -1, -1
            self._files.remove_segments(self._job, self._stream, first, last)
            self.began = (last + 1) * SEGMENT

    def finish(self) -> KeptOutput:
        """Brings everything to the disk; the output must have ended.  May be called in a thread."""
        if self._number < 0:
            return KeptOutput(self._files, self._job, self._stream, self.began, self.end, bytes(self._tail))
        self._spill(memoryview(b""))
        for number in range(self.began // SEGMENT, self._number + 1):
            sync(self._files.segment(self._job, self._stream, number))
        sync(self._files.directory)
        return KeptOutput(self._files, self._job, self._stream, self.began, self.end, None)

    def give_up(self) -> KeptOutput:
        """Removes everything: there is no room for the rest, and others need it."""
        end = self.end
        self.clear()
        return KeptOutput(self._files, self._job, self._stream, end, end, b"")

    @property
    def in_memory(self) -> bool:
        """True if nothing of it is in a file, so that `finish` takes no time."""
        return self._number < 0

    def release(self) -> None:
        """Closes the files, when all is kept elsewhere."""
        self._close_files()

    def _spill(self, view: memoryview) -> None:
        """Writes what is in memory, and these bytes behind it, to files."""
        parts = [memoryview(bytes(self._tail)), view]
        offset = self.end - len(self._tail)
        for part in parts:
            while len(part):
                number, start = divmod(offset, SEGMENT)
                if number != self._number:
                    self._open_next(number)
                written = os.pwrite(self._fd, part[: SEGMENT - start], start)
                part = part[written:]
                offset += written
        self._tail.clear()

    def _open_next(self, number: int) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(self._files.segment(self._job, self._stream, number), flags, 0o600)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._number = fd, number

    def _open_earlier(self, number: int) -> int:
        if self._reading[0] != number:
            fd = os.open(self._files.segment(self._job, self._stream, number), os.O_RDONLY | os.O_CLOEXEC)
            if self._reading[1] >= 0:
                os.close(self._reading[1])
            self._reading = number, fd
        return self._reading[1]

    def _close_files(self) -> None:
        for fd in (self._fd, self._reading[1]):
            if fd >= 0:
                os.close(fd)
        self._fd, self._number, self._reading = -1, -1, (-1, -1)


def sync(path: str) -> None:
    """Brings a file or a directory to the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def check_kept(offset: int, began: int) -> None:
    """Raises `Problem` 410 for a byte that was removed."""
    if offset < began:
        raise Problem(410, f"this output is kept from byte {began} on; ask from offset {began} on",
                      offset=began)  # fmt: skip


def behind_the_end(size: int) -> str:
    """Returns what is said of a range or an offset behind the last byte."""
    return f"that is behind the end, which is at byte {size}"
