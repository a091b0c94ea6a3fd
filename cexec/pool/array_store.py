"""Where the slots of a worker keep arrays, so that each comes to the machine once: a directory of files.

Contract: all slots of one user on one machine that are told the same name share one store, and so one `identity`.  The
directory is private (0700, its owner is checked), below the directory for temporary files; an array is one file in it
(0600), which is there as a whole or not at all.  `take` writes pieces of a message ARRAY as they come.  `close` removes
the directory if no other slot uses it; those that were left behind because their slots were killed are removed by the
next one who opens a store.  A directory with anything else in it is not touched.  `OSError` if there can be no store.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
import tempfile
from hashlib import sha256
from typing import TYPE_CHECKING

from cexec.pool.call_messages import HEADER_SIZE, LENGTH_SIZE

if TYPE_CHECKING:
    from cexec.pool.call_messages import MessagePiece

ARRAY_HEAD = HEADER_SIZE + 2 * LENGTH_SIZE  # bytes before those of the array
DIGEST_SIZE = 32  # bytes, of SHA-256
CHANGED = "it was changed while it was sent"
_IDENTITY = "identity"
_OURS = re.compile(rf"{_IDENTITY}|\.?[0-9]+|[0-9a-f]{{32}}")  # names of files in a store
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class ArrayStore:
    """One slot's part in the store."""

    def __init__(self, name: str) -> None:
        """`name`: letters and digits that nobody guesses."""
        if not name.isalnum():
            raise OSError(f"{name!r} is no name of a store")
        start = os.path.join(tempfile.gettempdir(), f"cexec-pool-{os.geteuid()}-")
        self.path = start + name
        self.fd = _enter(self.path)
        self.identity = self._agree_on_identity()
        self._part = f".{os.getpid()}"  # the file that is being written
        self._writing: _ArrayWriter | None = None
        _remove_those_left(start)

    def take(self, piece: MessagePiece) -> str | None:
        """Returns None while there is more to come; then nothing if the array is kept, or why it is not."""
        data = memoryview(piece.data)
        if piece.first:
            data = data[ARRAY_HEAD:]
            self._writing = _ArrayWriter(self.fd, self._part)
        writing = self._writing
        assert writing is not None
        writing.write(data, len(data) + piece.missing - DIGEST_SIZE)
        if piece.missing:
            return None
        self._writing = None
        return writing.finish(str(piece.id))

    def drop(self, number: int) -> None:
        """Removes an array.  Calls that have mapped it keep it."""
        try:
            os.unlink(str(number), dir_fd=self.fd)
        except OSError:
            pass

    def close(self) -> None:
        if self._writing is not None:
            self._writing.abandon()
        _remove_if_last(self.path, self.fd)
        os.close(self.fd)

    def _agree_on_identity(self) -> bytes:
        """Returns the same for all that use the directory."""
        ours = os.urandom(16).hex()
        fd = os.open(ours, _NEW, 0o600, dir_fd=self.fd)
        try:
            os.write(fd, ours.encode())
            os.link(ours, _IDENTITY, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        except FileExistsError:
            pass
        finally:
            os.close(fd)
            os.unlink(ours, dir_fd=self.fd)
        fd = os.open(_IDENTITY, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=self.fd)
        try:
            return os.read(fd, 64)
        finally:
            os.close(fd)


class _ArrayWriter:
    """An array that is coming."""

    def __init__(self, directory: int, name: str) -> None:
        self._directory = directory
        self._name = name
        self._hash = sha256()
        self._digest = b""  # as the sender says it, behind the array
        self._problem = ""
        try:
            self._fd = os.open(name, _NEW, 0o600, dir_fd=directory)
        except OSError as error:
            self._fd = -1
            self._problem = os.strerror(error.errno or 0)

    def write(self, data: memoryview, left: int) -> None:
        """`left`: how many bytes of the array are still to come, with these."""
        left = max(0, left)
        self._digest += data[left:]
        data = data[:left]
        self._hash.update(data)
        try:
            while len(data) and not self._problem:
                data = data[os.write(self._fd, data) :]
        except OSError as error:
            self._problem = os.strerror(error.errno or 0)

    def finish(self, name: str) -> str:
        """Gives it its name if it is whole; returns the problem if there is one."""
        if not self._problem and self._digest != self._hash.digest():
            self._problem = CHANGED
        if not self._problem:
            try:
                os.rename(self._name, name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
            except OSError as error:  # somebody has removed it
                self._problem = os.strerror(error.errno or 0)
        self.abandon()
        return self._problem

    def abandon(self) -> None:
        """Leaves nothing of it behind but what has got its name."""
        if self._fd < 0:
            return
        os.close(self._fd)
        self._fd = -1
        try:
            os.unlink(self._name, dir_fd=self._directory)
        except FileNotFoundError:
            pass


def open_private(path: str) -> int:
    """Opens a directory; `PermissionError` if others own it or may enter it."""
    fd = os.open(path, _DIRECTORY)
    status = os.fstat(fd)
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        os.close(fd)
        raise PermissionError(f"{path} is not private")
    return fd


def _enter(path: str) -> int:
    """Makes the directory, unless it is there; returns a descriptor, whose lock says that it is used."""
    while True:
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            pass
        try:
            fd = open_private(path)
        except FileNotFoundError:
            continue  # it was removed just now
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
            if _is_there(path, fd):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _is_there(path: str, fd: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(fd))
    except FileNotFoundError:
        return False


def _remove_if_last(path: str, fd: int) -> None:
    """Removes a directory that nobody else uses; what cannot be removed stays, and so does what is not a store's."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        names = os.listdir(fd)
        if not all(map(_OURS.fullmatch, names)):
            return  # where everybody may rename, somebody may have given another directory of this user our name
        for name in names:
            os.unlink(name, dir_fd=fd)
        os.rmdir(path)
    except OSError:
        pass


def _remove_those_left(start: str) -> None:
    """`start`: of the paths of this user's stores."""
    above, prefix = os.path.split(start)
    try:
        names = [name for name in os.listdir(above) if name.startswith(prefix)]
    except OSError:
        return
    for name in names:
        path = os.path.join(above, name)
        try:
            fd = os.open(path, _DIRECTORY)
        except OSError:
            continue
        if os.fstat(fd).st_uid == os.geteuid():
            _remove_if_last(path, fd)
        os.close(fd)
