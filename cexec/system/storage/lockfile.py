"""At most one process: a lock beside a file, which the kernel takes away however its holder ends.

Contract: `Lock(path)` raises `UsageError` that names the holder, and `OSError` for what the system refuses, or if
another user has put a file or a link in its place.  The file is removed by `close`, never while somebody holds it.  A
holder that was killed may have left a process that has not begun its program yet and has our descriptor still, so a
lock whose holder has gone is waited for.  `holder(path)` is the process that has the lock, in words; it does not try
the lock.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time

from cexec.errors import UsageError
from cexec.system.storage.own_files import open_own

PATIENCE = 5.0  # seconds (ours) for a lock whose holder has gone
GLANCE = 0.01  # seconds (ours) between two looks


class Lock:
    """`path` with `-lock` at its end is the file."""

    def __init__(self, path: str, patience: float = PATIENCE) -> None:
        self._path = f"{path}-lock"
        until = time.monotonic() + patience
        while True:
            self._fd = open_own(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            if self._try() and self._is_current():
                break
            if self._is_current():
                words = _words(self._fd)
                if _is_alive(words) or time.monotonic() > until:
                    os.close(self._fd)
                    raise UsageError(f"{path} is in use by {' '.join(words) or 'another process'}")
                time.sleep(GLANCE)
            os.close(self._fd)  # or its holder has removed it between our two calls
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)

    def close(self) -> None:
        os.unlink(self._path)
        os.close(self._fd)

    def _try(self) -> bool:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._fd), os.stat(self._path))
        except FileNotFoundError:
            return False


def holder(path: str) -> str:
    """Returns `process N on HOST`, or nothing if that process does not exist."""
    try:
        fd = os.open(f"{path}-lock", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        words = _words(fd)
    finally:
        os.close(fd)
    return " ".join(words) if _is_told(words) and _is_alive(words) else ""


def _words(fd: int) -> list[str]:
    return os.pread(fd, 200, 0).decode(errors="replace").split()


def _is_told(words: list[str]) -> bool:
    return len(words) == 4 and words[1].isascii() and words[1].isdigit()


def _is_alive(words: list[str]) -> bool:
    """True if the process exists, as far as that can be known here."""
    if not _is_told(words) or words[3] != socket.gethostname():
        return True
    try:
        os.kill(int(words[1]), 0)
    except (ProcessLookupError, OverflowError):  # no process can have a number that the system call does not take
        return False
    except OSError:
        pass  # another user's
    return True
