"""Directories that no other user can have put in place or can exchange, and the removal of whole trees.

Contract: `open_trusted` walks an absolute path from the root and holds each component's descriptor while it opens the
next.  Every directory and symbolic link of the path belongs to root, to this user or to the owner of `/`; no other user
may write to a directory of it, unless it is sticky, as /tmp is, since nobody can rename there what is another user's.
`open_own` and `make_own` open a directory at the end of such a path that is this user's alone and not a link.
`NotOursError` for what fails that, other `OSError` as the system calls raise it; the caller closes the descriptors.
`remove_tree` follows no link, and raises nothing: a mount, or what another user owns, stays.
"""

from __future__ import annotations

import errno
import os
import stat

_PASS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAXIMUM_LINKS = 40  # of one path, as in Linux


class NotOursError(PermissionError):
    """Another user owns it, or can write to it or exchange it."""


def open_trusted(path: str) -> int:
    """The directory, to be used as `dir_fd`."""
    if not path.startswith("/") or "\0" in path:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    fd = os.open("/", _PASS)
    try:
        # In a user namespace root may be a stranger, but whoever owns `/` can exchange everything below.
        trusted = {0, os.getuid(), os.fstat(fd).st_uid}
        _check(fd, trusted, "/")
        parts, links = _parts(path), 0
        while parts:
            name = parts.pop()
            target = _link_target(name, fd, trusted)
            if target is None:
                above, fd = fd, os.open(name, _PASS, dir_fd=fd)
                os.close(above)
                _check(fd, trusted, name)
                continue
            links += 1
            if links > _MAXIMUM_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            if target.startswith("/"):
                above, fd = fd, os.open("/", _PASS)
                os.close(above)
            parts += _parts(target)
    except BaseException:
        os.close(fd)
        raise
    return fd


def open_own(path: str) -> int:
    """The directory, to be listed and used as `dir_fd`."""
    return _own(path, make=False)


def make_own(path: str) -> int:
    """The same; it is made if need be."""
    return _own(path, make=True)


def remove_tree(name: str, above: int) -> None:
    """Removes the directory `name` of the directory `above`, whatever its program has done to keep it."""
    if _try_to_remove(name, above):
        return
    try:
        _flatten(name, above)
    except OSError:
        return
    _try_to_remove(name, above)


def _parts(path: str) -> list[str]:
    """The components, the first one last."""
    return [part for part in reversed(path.split("/")) if part not in ("", ".")]


def _check(fd: int, trusted: set[int], name: str) -> None:
    status = os.fstat(fd)
    shared = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if status.st_uid not in trusted or (shared and not status.st_mode & stat.S_ISVTX):
        raise NotOursError(errno.EPERM, "other users can exchange what is in there", name)


def _link_target(name: str, above: int, trusted: set[int]) -> str | None:
    """Where a symbolic link leads; None for anything else."""
    status = os.stat(name, dir_fd=above, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        return None
    if status.st_uid not in trusted:
        raise NotOursError(errno.EPERM, "a link of another user", name)
    return os.readlink(name, dir_fd=above)


def _own(path: str, *, make: bool) -> int:
    base, name = os.path.split(path)
    above = open_trusted(base)
    try:
        if make:
            try:
                os.mkdir(name, 0o700, dir_fd=above)
            except FileExistsError:
                pass
        held = os.open(name, _PASS, dir_fd=above)
    except NotADirectoryError:  # a link, too
        raise NotOursError(errno.EPERM, "not a directory", path) from None
    finally:
        os.close(above)
    try:
        status = os.fstat(held)
        if status.st_uid != os.getuid() or status.st_mode & 0o077:
            raise NotOursError(errno.EPERM, "not a directory that only this user may enter", path)
        return os.open(".", _LIST, dir_fd=held)
    finally:
        os.close(held)


def _try_to_remove(name: str, above: int) -> bool:
    """Whether it has gone."""
    import shutil

    try:
        shutil.rmtree(name, ignore_errors=True, dir_fd=above)
        os.stat(name, dir_fd=above, follow_symlinks=False)
    except FileNotFoundError:
        return True
    except (OSError, RecursionError):  # a tree may be deeper than Python's stack
        pass
    return False


def _flatten(name: str, above: int) -> None:
    """Puts all directories of a tree beside one another, with modes that let their owner list and change them."""
    top = _enter(name, above)
    waiting = ["."]
    try:
        while waiting:
            fd = os.open(waiting.pop(), _LIST, dir_fd=top)
            try:
                with os.scandir(fd) as entries:
                    inside = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
                for one in inside:
                    waiting += _move(one, fd, top)
            finally:
                os.close(fd)
    finally:
        os.close(top)


def _move(name: str, source: int, target: int) -> list[str]:
    """The directory's name in `target`, if it can be moved there."""
    new = os.urandom(16).hex()
    try:
        os.close(_enter(name, source))
        os.rename(name, new, src_dir_fd=source, dst_dir_fd=target)
    except OSError:
        return []  # a mount, or another user's
    return [new]


def _enter(name: str, above: int) -> int:
    """Opens a directory that may have been closed to its owner.  The mode is that of what is open, never of a link."""
    if os.chmod in os.supports_follow_symlinks:
        os.chmod(name, 0o700, dir_fd=above, follow_symlinks=False)
        return os.open(name, _LIST, dir_fd=above)
    held = os.open(name, _PASS, dir_fd=above)
    try:
        os.chmod(f"/proc/self/fd/{held}", 0o700)
        return os.open(".", _LIST, dir_fd=held)
    finally:
        os.close(held)
