"""Temporary files that get their names: which file is meant, and what to do when a run ended in between.

Contract: a `Rename` is a value that a journal keeps.  It says by inode and size which file is to get the name, so that
after a crash a file that is missing, or that lost its content, is not taken for a result.  `ResultDirectories` gives
names to the files of a run that goes on, `complete` to those that a crash has left.  `complete` raises nothing; what
else can fail raises `LocalError`.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from cexec.errors import LocalError
from cexec.system.reason import reason_of


class Rename(NamedTuple):
    """`size` of a directory is that of the files in it.  `inode` is None in a journal of 0.1.0, which kept neither."""

    temporary: str
    final: str
    inode: int | None
    size: int | None


def seen(temporary: str, final: str) -> Rename:
    """The rename of a file that is complete; `LocalError` if it is not where it was made."""
    try:
        inode, size = _identity(temporary)
    except FileNotFoundError:
        raise _moved(final) from None
    except OSError as error:
        raise _unwritten(final, error) from None
    return Rename(temporary, final, inode, size)


class ResultDirectories:
    """The directories of results, open: a file gets its name where it is, also if its directory is moved meanwhile.

    `hold` opens the directories of a task.  What is called done afterwards gets its names by `carry_out`.
    """

    def __init__(self) -> None:
        self._open: dict[str, int] = {}  # by path

    def hold(self, renames: Iterable[Rename]) -> None:
        """Opens the directories of a task; `LocalError` if its files are not in them any more."""
        for rename in renames:
            directory, name = os.path.split(rename.temporary)
            try:
                if directory not in self._open:
                    self._open[directory] = _open_directory(directory or ".")
                found = os.stat(name, dir_fd=self._open[directory], follow_symlinks=False).st_ino
            except FileNotFoundError:
                raise _moved(rename.final) from None
            except OSError as error:
                raise _unwritten(rename.final, error) from None
            if found != rename.inode:
                raise _moved(rename.final)

    def carry_out(self, renames: Iterable[Rename]) -> None:
        """The results of a task get their names, which are in the directory of the temporary ones."""
        for rename in renames:
            directory, name = os.path.split(rename.temporary)
            place = self._open[directory]
            try:
                os.rename(name, os.path.basename(rename.final), src_dir_fd=place, dst_dir_fd=place)
            except OSError as error:
                raise _unwritten(rename.final, error) from None

    def descriptors(self) -> list[tuple[int, str]]:
        """Returns each directory's descriptor, and the path that it was opened by."""
        return [(fd, path or ".") for path, fd in self._open.items()]

    def close(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1])


def _open_directory(path: str) -> int:
    """A directory that may not be listed cannot be brought to disk, but names can be given in it."""
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return os.open(path, os.O_DIRECTORY | os.O_CLOEXEC | getattr(os, "O_PATH", 0))


def complete(renames: Sequence[Rename]) -> bool:
    """After a crash: gives the files of one task their names; returns True if all of them have theirs.

    Where that cannot be done, none of them stays: the task is to be run again.
    """
    whole = True
    for rename in renames:
        if _is(rename.temporary, rename):
            try:
                os.rename(rename.temporary, rename.final)
            except OSError:
                whole = False
        else:
            whole = whole and _is(rename.final, rename)
    if not whole:
        for rename in renames:
            for path in (rename.temporary, rename.final):
                if rename.inode is not None and _is(path, rename, whole=False):
                    remove(path)
    return whole


def remove(path: str) -> None:
    """Removes a file or a directory; leaves it if that is not possible."""
    try:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.unlink(path)
    except OSError:
        pass


def _is(path: str, rename: Rename, *, whole: bool = True) -> bool:
    """True if the file is the one that is meant and, if `whole`, has all of its content."""
    if rename.inode is None:
        return os.path.lexists(path)
    try:
        inode, size = _identity(path)
    except (OSError, ValueError):  # no such name can be
        return False
    return inode == rename.inode and (not whole or size == rename.size)


def _identity(path: str) -> tuple[int, int]:
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode):
        return status.st_ino, status.st_size
    with os.scandir(path) as entries:
        return status.st_ino, sum(entry.stat(follow_symlinks=False).st_size for entry in entries)


def _moved(final: str) -> LocalError:
    return LocalError(f"cannot write {final}: its directory was removed or moved while the task ran")


def _unwritten(final: str, error: OSError) -> LocalError:
    return LocalError(f"cannot write {final}: {reason_of(error)}")
