"""Brings files and directories to disk, several at a time.

Contract: what `sync_file` and `sync_directory` were given is on disk when they return; `LocalError` names what is not.
A call that has failed is never repeated: the system may have thrown away what it could not write, and a second call
would say that all is well.  `Syncer(on=False)` is --no-sync: it does the same, but nothing is brought to disk.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from functools import partial

from cexec.errors import LocalError
from cexec.system.call_threads import Threads
from cexec.system.reason import reason_of

MOST_SEEN = 10_000  # directories (ours) that are remembered
THREADS = 8  # (ours) system calls that wait for the disk at one time
sync_content: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)  # macOS has only the second
_CANNOT_BE_SYNCED = (errno.EINVAL, errno.ENOTSUP)  # directories of some network file systems


def sync_file(fd: int, name: str) -> None:
    """`name` is what the user calls the file."""
    try:
        sync_content(fd)
    except OSError as error:
        raise LocalError(f"cannot bring {name} to disk: {reason_of(error)}") from None


def sync_directory(path: str) -> None:
    """Brings the names in a directory to disk."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise LocalError(f"cannot bring {path} to disk: {reason_of(error)}") from None
    try:
        sync_open_directory(fd, path)
    finally:
        os.close(fd)


def sync_open_directory(fd: int, path: str) -> None:
    """Brings the names in an open directory to disk; `path` is for the message."""
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _CANNOT_BE_SYNCED:
            raise LocalError(f"cannot bring {path} to disk: {reason_of(error)}") from None


def way_to(path: str, known: Container[str] = ()) -> Iterator[str]:
    """Yields the directories whose names lead to a directory, up to one whose own way is known to be on disk.

    A directory may have been made just before the run.  A mount point has been made by others.
    """
    path = os.path.realpath(path)
    while (parent := os.path.dirname(path)) != path and os.access(parent, os.R_OK):
        if os.stat(parent).st_dev != os.stat(path).st_dev:
            return
        yield parent
        if parent in known:
            return
        path = parent


class Syncer:
    """Does what takes long side by side.  One group of tasks at a time."""

    def __init__(self, *, on: bool = True) -> None:
        self.on = on
        self._threads: Threads | None = None
        self._seen: set[str] = set()  # directories whose way is on disk, as they were called
        self._known: set[str] = set()  # those and the ones on their ways, by their real names

    def run(self, calls: Sequence[Callable[[], None]]) -> list[LocalError | None]:
        """Makes all calls side by side; returns for each the error that it raised."""
        if len(calls) <= 1 or not self.on:
            return _errors_of(calls)
        if self._threads is None:
            self._threads = Threads(THREADS, "sync")
        shares = [calls[start::THREADS] for start in range(min(THREADS, len(calls)))]
        errors: list[LocalError | None] = [None] * len(calls)
        for start, found in enumerate(self._threads.map(_errors_of, shares)):
            errors[start::THREADS] = found
        return errors

    def sync_directories(self, paths: Iterable[str]) -> None:
        """Each of them, and the way to it when it is seen for the first time; raises the first error."""
        if not self.on:
            return
        wanted = dict.fromkeys(path or "." for path in paths)
        new = [path for path in wanted if path not in self._seen]
        ways = {parent for path in new for parent in way_to(path, self._known)}
        for error in self.run([partial(sync_directory, path) for path in (*wanted, *ways)]):
            if error is not None:
                raise error
        if len(self._seen) > MOST_SEEN:
            self._seen.clear()
            self._known.clear()
        self._seen.update(new)
        self._known.update(ways)

    def sync_open(self, directories: Iterable[tuple[int, str]]) -> None:
        """Each of these open directories, which has a descriptor and a path; raises the first error."""
        if not self.on:
            return
        for error in self.run([partial(sync_open_directory, fd, path) for fd, path in directories]):
            if error is not None:
                raise error

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown()


def _errors_of(calls: Sequence[Callable[[], None]]) -> list[LocalError | None]:
    return [_error_of(call) for call in calls]


def _error_of(call: Callable[[], None]) -> LocalError | None:
    try:
        call()
    except LocalError as error:
        return error
    except OSError as error:
        return LocalError(f"cannot bring {error.filename} to disk: {reason_of(error)}")
    return None
