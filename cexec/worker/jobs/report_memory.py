"""Memory that a worker shares with one of its job processes: the process notes its reports there without a system call.

Contract: `ReportMemory.create()` is called by the worker before the process is forked; `fd` is passed to the process,
which calls `ReportMemory.attach(fd)`.  `Notes` writes there, `NoteReader.read()` returns the next report, or nothing
if there is none that is complete.  What has been written before a process was killed can still be read.  The reader
trusts nothing: a note that does not verify is one that has not been written yet, and it reads no byte outside the
memory, whatever stands in it.

    0   watched    4   1 while the worker looks by itself, again and again; else the process has to wake it
    4   words      4   how many words (`reports.Word`) the worker has sent over the socket
    64  notes      ring of RING bytes, from its beginning on

    a note:  0  number   4   1 for the first one, then one more each time
             4  size     2   of the report
             6  check    4   crc32 of all the rest
             10 report

A writer does not wait for its reader.  RING has room for all that a process may say before it needs an answer: the
reports of the jobs that it may offer ahead, and a few others.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import tempfile
from zlib import crc32

from cexec.system.io.memory_file import open_memory
from cexec.worker.jobs.reports import JOBS_AHEAD, MAXIMUM_REPORT

RING = 1 << 17  # bytes (ours)
MOST_NOTES = 8 * JOBS_AHEAD  # (ours) that one look may find; a process that works as it should has far fewer
_FRONT = 64  # bytes before the ring
_SIZE = _FRONT + RING
_NOTE = struct.Struct("<IHI")
_WATCHED, _WORDS = 0, 1  # as numbers of 4 bytes
_NAME = "cexec-reports"

# A word for each job, and three reports, one of which may be long: twice as many jobs as one AHEAD allows, because the
# process may have used half of the last AHEAD when the worker, which has read no more than that, sends another.
assert 2 * JOBS_AHEAD * (MAXIMUM_REPORT + 256) < RING


class ReportMemory:
    """One such memory.  `fd` is open until `close_fd`; the memory itself lives as long as the object."""

    __slots__ = ("_words", "fd", "ring")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        whole = memoryview(mmap.mmap(fd, _SIZE))
        self._words = whole[:_FRONT].cast("I")  # one store of the processor for each
        self.ring = whole[_FRONT:]

    @classmethod
    def create(cls) -> ReportMemory:
        """Raises `OSError` when there is no room."""
        fd = _open()
        try:
            return cls(fd)
        except OSError:
            os.close(fd)
            raise

    @classmethod
    def attach(cls, fd: int) -> ReportMemory:
        """Maps a memory that another process has created, and closes the descriptor."""
        memory = cls(fd)
        memory.close_fd()
        return memory

    def close_fd(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    @property
    def watched(self) -> bool:
        return bool(self._words[_WATCHED])

    @watched.setter
    def watched(self, value: bool) -> None:
        self._words[_WATCHED] = value

    @property
    def words(self) -> int:
        return self._words[_WORDS]

    @words.setter
    def words(self, value: int) -> None:
        self._words[_WORDS] = value


def _open() -> int:
    """Opens memory that nobody can make smaller, where the system can do that: who reads it then would be killed."""
    try:
        fd = open_memory(_NAME, sealable=True)
    except OSError:
        with tempfile.TemporaryFile() as file:
            file.write(bytes(_SIZE))  # a hole would find no room on a full disk, which kills who writes there
            file.flush()
            return os.dup(file.fileno())
    try:
        os.ftruncate(fd, _SIZE)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except OSError:
        os.close(fd)
        raise
    return fd


class _Place:
    """Where the next note stands, and its number."""

    __slots__ = ("_at", "_ring", "number")

    def __init__(self, memory: ReportMemory) -> None:
        self.number = 1
        self._at = 0
        self._ring = memory.ring

    def move(self, size: int) -> None:
        self._at = (self._at + size) % RING
        self.number = (self.number + 1) & 0xFFFFFFFF


class Notes(_Place):
    """The process's side."""

    __slots__ = ()

    def write(self, report: bytes) -> None:
        number, size = self.number, len(report)
        check = crc32(report, crc32(_NOTE.pack(number, size, 0)))
        data = _NOTE.pack(number, size, check) + report
        end = self._at + len(data)
        if end <= RING:
            self._ring[self._at : end] = data
        else:
            here = RING - self._at
            self._ring[self._at :] = data[:here]
            self._ring[: end - RING] = data[here:]
        self.move(len(data))


class NoteReader(_Place):
    """The worker's side."""

    __slots__ = ()

    def read(self) -> bytes:
        """Returns the next report, copied; empty if it has not been written, or not completely."""
        if self._at <= RING - _NOTE.size:  # the front is in one piece, and need not be copied
            number, size, check = _NOTE.unpack_from(self._ring, self._at)
        else:
            number, size, check = _NOTE.unpack(self._bytes(0, _NOTE.size))
        if number != self.number or not 0 < size <= MAXIMUM_REPORT:
            return b""
        report = self._bytes(_NOTE.size, size)
        if crc32(report, crc32(_NOTE.pack(number, size, 0))) != check:
            return b""
        self.move(_NOTE.size + size)
        return report

    def _bytes(self, offset: int, size: int) -> bytes:
        start = (self._at + offset) % RING
        end = start + size
        if end <= RING:
            return bytes(self._ring[start:end])
        return bytes(self._ring[start:]) + bytes(self._ring[: end - RING])
