"""The modules that a client has sent: a zip file which Python imports from, and which nothing has to remove.

Contract: `path` belongs into `sys.path` and PYTHONPATH, as long as the file is not closed.  `of` makes a file of bytes:
one without a name where the system has such files, so that it goes with its process also if that is killed.  `at` uses
a file that is there, which may be removed meanwhile; None on a system where that would take it away.
"""

from __future__ import annotations

import os
import tempfile


class ModuleFile:
    """One zip file."""

    def __init__(self, fd: int, path: str, *, named: bool) -> None:
        self.path = path
        self._fd = fd
        self._named = named

    @classmethod
    def of(cls, data: bytes | bytearray) -> ModuleFile:
        try:
            fd = os.memfd_create("cexec-pool-modules")
            file = cls(fd, _path_of(fd), named=False)
        except (AttributeError, OSError):  # another system, or one that allows us no such files
            fd, path = tempfile.mkstemp(prefix="cexec-pool-", suffix=".zip")
            file = cls(fd, path, named=True)
        try:
            with open(fd, "wb", closefd=False) as stream:
                stream.write(data)
        except OSError:  # the disk is full
            file.close()
            raise
        return file

    @classmethod
    def at(cls, fd: int) -> ModuleFile | None:
        """Takes the descriptor over if it returns a file."""
        return cls(fd, _path_of(fd), named=False) if os.path.exists(_path_of(fd)) else None

    def close(self) -> None:
        os.close(self._fd)
        if self._named:
            os.unlink(self.path)


def _path_of(fd: int) -> str:
    """Returns a path by which also the processes find the file that this one starts."""
    return f"/proc/{os.getpid()}/fd/{fd}"
