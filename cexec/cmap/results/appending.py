"""Files that tasks add to: the joblog, tables of results, standard output.  What was added can be taken back.

Contract: `AppendFile.append` adds everything or, after `LocalError`, nothing where the file allows it.  A `Place` says
where a regular file ended; `take_back(place)` cuts the file there, if it still is the same file, and no shorter.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from typing import TYPE_CHECKING

from cexec.cmap.results.syncing import sync_file
from cexec.errors import CexecError, LocalError, UsageError
from cexec.system.reason import reason_of
from cexec.system.storage.identity import descriptor_of
from cexec.system.storage.own_files import open_output
from cexec.system.terminal import Terminal, give_way, wrote

if TYPE_CHECKING:
    from collections.abc import Iterable

_WRONG_PLACE = (
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP
)  # fmt: skip
STANDARD = (1, 2)  # descriptors that may be files whose names we do not know


def cannot_write(path: str, error: OSError) -> CexecError:
    """Returns the error for a file that the user has named; a name where no file can be is wrong use."""
    kind = UsageError if error.errno in _WRONG_PLACE else LocalError
    return kind(f"cannot write {path}: {reason_of(error)}")


class Place:
    """The end of a file: `path` is empty for a descriptor that was given to us."""

    __slots__ = ("device", "inode", "offset", "path")

    def __init__(self, path: str, device: int, inode: int, offset: int) -> None:
        self.path = path
        self.device = device
        self.inode = inode
        self.offset = offset


class AppendFile:
    """One file, or a pipe or a terminal, from which nothing can be taken back."""

    def __init__(self, fd: int, name: str, path: str = "") -> None:
        status = os.fstat(fd)
        self.name = name
        self.terminal = Terminal(fd)
        self._fd = fd
        self._path = path
        self._identity = (status.st_dev, status.st_ino)
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        self._regular = stat.S_ISREG(status.st_mode) and flags & os.O_ACCMODE != os.O_RDONLY
        self._appends = bool(flags & os.O_APPEND)

    @classmethod
    def open(cls, path: str, header: bytes = b"", *, anew: bool = False) -> AppendFile:
        """Opens a file by its name and writes `header` into a new or empty one; raises `cannot_write`.

        What is there is written to, not replaced: a device, a FIFO, one of our own descriptors (/dev/stdout).
        """
        descriptor = descriptor_of(path)
        try:
            if descriptor is not None:
                file = cls(descriptor, path)
            else:
                file = cls(_open(path, os.O_TRUNC if anew else 0), path, os.path.abspath(path))
        except OSError as error:
            raise cannot_write(path, error) from None
        place = file.place()
        if place is None or not place.offset:
            file.append([header])
        return file

    def place(self) -> Place | None:
        """Returns where the file ends now; None if nothing can be taken back."""
        if not self._regular:
            return None
        offset = os.fstat(self._fd).st_size if self._appends else os.lseek(self._fd, 0, os.SEEK_CUR)
        return Place(self._path, *self._identity, offset)

    def append(self, pieces: Iterable[bytes]) -> None:
        place = self.place()
        last = b""
        give_way(self._fd)
        try:
            for piece in pieces:
                last = piece or last
                view = memoryview(piece)
                while view:
                    view = view[os.write(self._fd, view) :]
        except OSError as error:
            if place is not None:
                _cut(self._fd, place)
            target = self.name if self._path else f"to {self.name}"
            raise LocalError(f"cannot write {target}: {reason_of(error)}") from None
        wrote(self._fd, last)

    @property
    def regular(self) -> bool:
        """True for a file that we can write, which can be brought to disk, and from which things can be taken back."""
        return self._regular

    @property
    def directory(self) -> str:
        """The directory of a file that has a name; empty for a descriptor that was given to us."""
        return os.path.dirname(self._path)

    def take_back(self, place: Place) -> None:
        _cut(self._fd, place)

    def sync(self) -> None:
        """Brings to disk what was added."""
        sync_file(self._fd, self.name)

    def close(self) -> None:
        if self._path:
            os.close(self._fd)


def _open(path: str, flags: int) -> int:
    """Opens a file to add to.  A FIFO is not waited for: nobody may ever read it."""
    try:
        is_fifo = stat.S_ISFIFO(os.stat(path).st_mode)
    except OSError:
        is_fifo = False
    flags |= os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOCTTY
    if not is_fifo:
        return open_output(path, flags)
    try:
        fd = open_output(path, flags | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise UsageError(f"cannot write {path}: nobody reads this FIFO; start its reader first") from None
        raise
    os.set_blocking(fd, True)
    return fd


def take_back(place: Place) -> None:
    """After a crash, by another process than the one that has written.  A file that has gone stays so."""
    if not place.path:
        for fd in STANDARD:
            if _is_there(fd, place):
                _cut_for_good(fd, place)
        return
    try:
        if os.stat(place.path).st_ino != place.inode:
            return
    except (OSError, ValueError):  # it is not there, or no such name can be
        return
    fd = open_output(place.path, os.O_WRONLY | os.O_NONBLOCK)
    try:
        if _is_there(fd, place):
            _cut_for_good(fd, place)
    finally:
        os.close(fd)


def _is_there(fd: int, place: Place) -> bool:
    try:
        status = os.fstat(fd)
    except OSError:
        return False  # closed
    if place.path:
        return status.st_ino == place.inode  # the number of a device may be another one after the machine has started
    return (status.st_dev, status.st_ino) == (place.device, place.inode)


def _cut_for_good(fd: int, place: Place) -> None:
    _cut(fd, place)
    os.fsync(fd)


def _cut(fd: int, place: Place) -> None:
    if os.fstat(fd).st_size > place.offset:
        os.ftruncate(fd, place.offset)
        os.lseek(fd, place.offset, os.SEEK_SET)
