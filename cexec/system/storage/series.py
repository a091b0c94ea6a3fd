"""A worker's numbers: one series of them that goes on after a restart, so that a logger sees what was lost.

Contract: `Series(directory)` opens or begins a series; `take()` returns the next number, written down before it is
used, so that a number is never given twice.  `reserve(count)` says how many more may be used before the next call: if
this process is killed, they are not given again, and a logger that misses them reports a gap.  Where nothing can be
written the series is a new one at every start.
docs/protocol.md section 5.2.
"""

from __future__ import annotations

import os

from cexec.protocol.base.limits import IDENTITY_SIZE
from cexec.protocol.base.sodium import random_bytes
from cexec.system.storage.own_files import open_own

NUMBER_SIZE = 8  # bytes of the high-water mark after the series' id
AHEAD = 16  # (ours) numbers that are reserved at a time where many are needed, so that not each one has to be written
MOST_AHEAD = 64  # (ours) numbers that may stay reserved although fewer are needed
LARGEST_NUMBER = 1 << 63  # (ours) a file that says more is damaged, and begins a new series


def series_name(fingerprint: str, worker: str) -> str:
    """Returns the name of the file for a worker of an application; `worker` is the name in its certificate."""
    return f"series-{fingerprint}-{worker}"


class Series:
    """`id`: 16 bytes."""

    def __init__(self, directory: str | None, name: str) -> None:
        """The file is `name` in `directory`; two cservices that serve the same application need two names."""
        self.id = random_bytes(IDENTITY_SIZE)
        self._number = 0
        self._fd = -1 if directory is None else self._open(os.path.join(directory, name))
        self._mark = self._number  # as the file has it: none up to here is given after a restart

    def take(self) -> int:
        self._number += 1
        if self._mark < self._number:
            self._write(self._number)
        return self._number

    def reserve(self, count: int) -> None:
        """Makes sure that the next `count` numbers are not given again, and gives back those that are not needed."""
        needed = self._number + count
        if self._mark < needed:
            self._write(needed + AHEAD if count > 1 else needed)
        elif self._mark > needed + MOST_AHEAD or (not count and self._mark > needed):
            self._write(needed)

    def _write(self, mark: int) -> None:
        self._mark = mark
        if self._fd >= 0:
            try:
                os.pwrite(self._fd, mark.to_bytes(NUMBER_SIZE, "big"), IDENTITY_SIZE)
            except OSError:
                pass  # a full disk must not stop the jobs: after a restart a number may then seem to be a copy

    def _open(self, path: str) -> int:
        import fcntl

        try:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            fd = open_own(path, os.O_RDWR | os.O_CREAT)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            data = os.pread(fd, IDENTITY_SIZE + NUMBER_SIZE, 0)
            number = int.from_bytes(data[IDENTITY_SIZE:], "big")
            if len(data) == IDENTITY_SIZE + NUMBER_SIZE and number < LARGEST_NUMBER:
                self.id, self._number = data[:IDENTITY_SIZE], number
            else:
                os.pwrite(fd, self.id + bytes(NUMBER_SIZE), 0)
            return fd
        except OSError:
            return -1  # locked by another cservice, or nowhere to write
