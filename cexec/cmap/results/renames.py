"""Temporary files that get their names: which file is meant, and what to do when a run ended in between.

Contract: a `Rename` is a value that a journal keeps.  It says by inode and size which file is to get the name, so that
after a crash a file that is missing, or that lost its content, is not taken for a result.  `seen` and `carry_out` raise
`LocalError`; `complete` raises nothing.
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
        raise LocalError(f"cannot write {final}: its directory was removed or moved while the task ran") from None
    except OSError as error:
        raise LocalError(f"cannot write {final}: {reason_of(error)}") from None
    return Rename(temporary, final, inode, size)


def carry_out(renames: Iterable[Rename]) -> None:
    """Results get their names."""
    for temporary, final, _, _ in renames:
        try:
            os.rename(temporary, final)
        except OSError as error:
            raise LocalError(f"cannot write {final}: {reason_of(error)}") from None


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
