"""Which file a name means: two names are one file if they lead to one inode, or to one name in one directory.

Contract: `identify` never raises for a file that is not there or cannot be looked at.  Links are followed, those of
directories too; hard links have one inode.  `same_file` says whether writing to one changes the other: devices, FIFOs
and sockets are written to as they are, so two names of one of them are no conflict.  `descriptor_of` is the number of
the process's own descriptor that a name such as /dev/stdout means.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

_STANDARD = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}
_DIRECTORIES = ("/dev/fd/", "/proc/self/fd/")
_KINDS = (
    (stat.S_ISDIR, "a directory"), (stat.S_ISFIFO, "a FIFO"), (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"),
)  # fmt: skip


@dataclass(slots=True, frozen=True)
class FileIdentity:
    """`inode` is None if there is no file yet; `entry` (device and inode of the directory, name) if it has no place.

    `special` says in words what there is if it is no regular file: a directory, a device.
    """

    inode: tuple[int, int] | None
    entry: tuple[int, int, str] | None
    special: str = ""

    @property
    def replaceable(self) -> bool:
        """False for what is written to as it is."""
        return self.special in ("", "a directory")

    def same_file(self, other: FileIdentity) -> bool:
        if not self.replaceable:
            return False
        if self.inode is not None and self.inode == other.inode:
            return True
        return self.entry is not None and self.entry == other.entry


def identify(path: str) -> FileIdentity:
    """Returns the identity of the file that `path` leads to, or would be made as."""
    try:
        whole = os.path.realpath(path)
    except (OSError, ValueError):
        return FileIdentity(None, None)
    found = _stat(whole)
    directory = _stat(os.path.dirname(whole))
    entry = None if directory is None else (directory.st_dev, directory.st_ino, os.path.basename(whole))
    if found is None:
        return FileIdentity(None, entry)
    return FileIdentity((found.st_dev, found.st_ino), entry, special_kind(found.st_mode))


def identify_descriptor(fd: int) -> FileIdentity:
    """Returns the identity of an open file, which has no name here; of a closed descriptor, that of nothing."""
    try:
        status = os.fstat(fd)
    except OSError:
        return FileIdentity(None, None)
    return FileIdentity((status.st_dev, status.st_ino), None, special_kind(status.st_mode))


def special_kind(mode: int) -> str:
    """Returns in words what a file is that is no regular one; empty for a regular file."""
    return next((words for is_one, words in _KINDS if is_one(mode)), "")


def descriptor_of(path: str) -> int | None:
    whole = os.path.abspath(path)
    if whole in _STANDARD:
        return _STANDARD[whole]
    for directory in _DIRECTORIES:
        number = whole.removeprefix(directory)
        if number != whole and number.isascii() and number.isdigit():
            return int(number)
    return None


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (OSError, ValueError):
        return None
