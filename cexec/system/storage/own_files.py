"""Files that no other user has put in place: in a directory such as /tmp everybody can make files and links.

Contract: `open_own` opens or makes a file that only this user writes to, wherever it is, and never follows a link.
`check_own` asks the same of a file that somebody else is to open; a file that does not exist is this user's.
`open_output` opens a file that the user has named: in a *shared* directory, in which others can make files, no link is
followed and a file of another user is refused; elsewhere it is opened as it is.  `check_output` asks the same without
opening.  They raise `NotOursError`, whose text says what is wrong, and other `OSError` as the system calls raise it.

A file is this user's if he or root owns it and no other user can write to it; the last is not asked of an output.
Where others can make files its group may not write to it either, and it must have one name only: another user's hard
link there may be any file of this user.
"""

from __future__ import annotations

import errno
import os
import stat

from cexec.system.storage.directories import NotOursError

_ROOT = 0


def open_own(path: str, flags: int, mode: int = 0o600) -> int:
    fd = _open_itself(path, flags, mode)
    try:
        _check_private(os.fstat(fd), path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def check_own(path: str) -> None:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    _check_private(status, path)


def in_shared_directory(path: str) -> bool:
    """Returns True if every user can make files beside this one."""
    return _is_shared(path)


def open_output(path: str, flags: int, mode: int = 0o666) -> int:
    if not _is_shared(path):
        return os.open(path, flags | os.O_CLOEXEC, mode)
    check_output(path)  # before it is opened: a FIFO of another user would be waited for
    fd = _open_itself(path, flags, mode)
    try:
        _check(os.fstat(fd), path, shared=True)
    except BaseException:
        os.close(fd)
        raise
    return fd


def check_output(path: str) -> None:
    if not _is_shared(path):
        return
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    _check(status, path, shared=True)


def _open_itself(path: str, flags: int, mode: int) -> int:
    try:
        return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _not_ours("it is a symbolic link", path) from None
        raise


def _is_shared(path: str) -> bool:
    """Returns True if every user can make files beside this one."""
    try:
        return bool(os.stat(os.path.dirname(path) or ".").st_mode & stat.S_IWOTH)
    except OSError:
        return False


def _is_strange(path: str) -> bool:
    """Returns True if somebody else can make files beside this one, perhaps only the owner of the directory."""
    try:
        return _is_shared(path) or os.stat(os.path.dirname(path) or ".").st_uid not in (os.geteuid(), _ROOT)
    except OSError:
        return False


def _check(status: os.stat_result, path: str, *, shared: bool) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise _not_ours("it is a symbolic link", path)
    if status.st_uid not in (os.geteuid(), _ROOT):
        raise _not_ours("it belongs to another user", path)
    if shared and stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
        raise _not_ours("it is another file too, by a hard link", path)


def _check_private(status: os.stat_result, path: str) -> None:
    strange = _is_strange(path)
    _check(status, path, shared=strange)
    if not stat.S_ISREG(status.st_mode):
        raise _not_ours("it is no regular file", path)
    # With a umask of 002, the usual one where every user has a group of his own, the group can write to every file.
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH if strange else stat.S_IWOTH):
        raise _not_ours("other users can write to it (chmod go-w)", path)


def _not_ours(reason: str, path: str) -> NotOursError:
    return NotOursError(errno.EPERM, reason, path)
