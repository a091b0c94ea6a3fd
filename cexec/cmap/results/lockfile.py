"""At most one process: a lock beside a file, which the kernel takes away however its holder ends.

Contract: `Lock(path)` raises `UsageError` that names the holder, and `OSError` for what the system refuses.  The file
is removed by `close`, never while somebody holds it.
"""

from __future__ import annotations

import fcntl
import os
import socket

from cexec.errors import UsageError


class Lock:
    """`path` with `-lock` at its end is the file."""

    def __init__(self, path: str) -> None:
        self._path = f"{path}-lock"
        while True:
            try:
                self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(self._fd, 200, 0).decode(errors="replace").strip() or "another process"
                os.close(self._fd)
                raise UsageError(f"{path} is in use by {holder}") from None
            if self._is_current():
                break
            os.close(self._fd)  # its holder has removed it between our two calls
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)

    def close(self) -> None:
        os.unlink(self._path)
        os.close(self._fd)

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._fd), os.stat(self._path))
        except FileNotFoundError:
            return False
