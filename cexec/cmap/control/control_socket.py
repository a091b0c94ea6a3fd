"""The socket beside a journal: made by the cmap that has the journal's lock, removed when it ends.

Contract: `ControlSocket(journal)` listens at `control_path(journal)` with mode 0600; `LocalError` if it cannot.  Who
has the journal's lock is the only one who may make it: a socket of this user that is there is of a run that was killed,
and is replaced.  Anything else that is there stays, whoever has made it.  `close` removes the socket's name, unless
that names something else by now.

The name may be longer than an address (108 bytes), so the socket is made under a short name in the same directory,
which stands for a descriptor, and renamed.  Nobody can connect before it has its mode, because it does not listen yet.
"""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress
from hashlib import blake2b

from cexec.cmap.control.control_place import control_path
from cexec.errors import LocalError
from cexec.system.reason import reason_of

BACKLOG = 8  # (ours) connections that wait until they are accepted
MODE = 0o600


class ControlSocket:
    """`listener` does not block."""

    def __init__(self, journal: str) -> None:
        self._path = control_path(journal)
        directory, self._name = os.path.split(self._path)
        try:
            self._directory = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise self._cannot(error) from None
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._inode = (0, 0)
        try:
            self._make()
        except OSError as error:
            self.close()
            raise self._cannot(error) from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        with suppress(OSError):
            status = self._look(self._name)
            if status is not None and (status.st_dev, status.st_ino) == self._inode:
                os.unlink(self._name, dir_fd=self._directory)
        self.listener.close()
        os.close(self._directory)

    def _make(self) -> None:
        short = f".cmap-{blake2b(os.fsencode(self._name), digest_size=8).hexdigest()}"
        for name in (short, self._name):
            self._make_room(name)
        self.listener.bind(f"/proc/self/fd/{self._directory}/{short}")
        try:
            held = os.open(short, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._directory)
            try:
                status = os.fstat(held)
                if not _is_ours(status):
                    raise LocalError(f"cannot listen at {self._path}: somebody has exchanged it")
                os.chmod(f"/proc/self/fd/{held}", MODE)
            finally:
                os.close(held)
            self.listener.listen(BACKLOG)
            os.rename(short, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        except BaseException:
            with suppress(OSError):
                os.unlink(short, dir_fd=self._directory)
            raise
        self._inode = status.st_dev, status.st_ino

    def _make_room(self, name: str) -> None:
        """Removes the socket that a killed run of this user has left."""
        status = self._look(name)
        if status is None:
            return
        if not _is_ours(status):
            path = os.path.join(os.path.dirname(self._path), name)
            raise LocalError(f"cannot listen at {self._path}: {path} is there and is no socket of this user")
        os.unlink(name, dir_fd=self._directory)

    def _look(self, name: str) -> os.stat_result | None:
        try:
            return os.stat(name, dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def _cannot(self, error: OSError) -> LocalError:
        return LocalError(f"cannot listen at {self._path}: {reason_of(error)}")


def _is_ours(status: os.stat_result) -> bool:
    return stat.S_ISSOCK(status.st_mode) and status.st_uid == os.geteuid()
