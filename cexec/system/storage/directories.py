"""The user's directories; directories that no other user can have put in place or exchanged; removal of trees.

Contract: `user_files` knows the XDG variables and where their directories are without them.  `config_directory`,
`state_directory` and `cache_directory` make nothing and return None if there is no place; `runtime_directory` makes its
directory, or raises `LocalError`.  `su` keeps these variables: a directory that another user owns or can exchange is
read as configuration, but nothing is written there.

`open_trusted` walks an absolute path from the root and holds each component's descriptor while it opens the next.
Every directory and symbolic link of the path belongs to root, to this user or to the owner of `/`.  No other user may
write to a directory of the path, unless it is sticky, as /tmp is: there nobody can rename another user's entries.
`open_own` and `make_own` open a directory at the end of such a path that is this user's alone and not a link.
They raise `NotOursError` for a path that breaks these rules, and other `OSError` as the system calls raise it.  The
caller closes the descriptors.  `remove_tree` follows no link and raises nothing: a mount, or a directory of another
user, stays.
"""

from __future__ import annotations

import errno
import os
import stat

from cexec.common_errors import LocalError
from cexec.system.reason import reason_of
from cexec.system.storage.user_files import STATE_HOME, homes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_PASS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAXIMUM_LINKS = 40  # of one path, as in Linux
_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class NotOursError(PermissionError):
    """Another user owns the directory, or can write to it or exchange it."""


def state_directory(environ: Mapping[str, str] = os.environ) -> str | None:
    """Returns $XDG_STATE_HOME/cexec, else ~/.local/state/cexec."""
    return next(filter(_may_be_written, homes(environ, *STATE_HOME)), None)


def cache_directory(environ: Mapping[str, str] = os.environ) -> str | None:
    """Returns $XDG_CACHE_HOME/cexec, else ~/.cache/cexec."""
    return next(filter(_may_be_written, homes(environ, "XDG_CACHE_HOME", ".cache")), None)


def runtime_directory(environ: Mapping[str, str] = os.environ) -> str:
    """Returns $XDG_RUNTIME_DIR/cexec, else /tmp/cexec-UID; only this user may enter it."""
    base = environ.get("XDG_RUNTIME_DIR", "")
    return _made(f"{base}/cexec" if _has_room(base) else f"/tmp/cexec-{os.getuid()}")


def _may_be_written(path: str) -> bool:
    """Returns True if no other user owns or can exchange the part of the path that exists.

    Groups may write to it: with a umask of 002, the usual one where every user has a group, they can in every home.
    """
    while path:
        try:
            os.close(open_trusted(path, shared=stat.S_IWOTH))
            return True
        except FileNotFoundError:
            path = os.path.dirname(path)
        except OSError:
            return False
    return False


def _has_room(base: str) -> bool:
    """Returns True if no other user can exchange the directories below `base`, and we can have one there."""
    try:
        fd = open_trusted(base)
    except OSError:
        return False
    try:
        return os.access("cexec", os.X_OK, dir_fd=fd) or os.access(".", os.W_OK | os.X_OK, dir_fd=fd)
    finally:
        os.close(fd)


def _made(path: str) -> str:
    try:
        os.close(make_own(path))
    except NotOursError as error:
        if error.filename != path:
            raise LocalError(f"cannot use {path}: other users can exchange a part of its path") from error
        raise LocalError(f"{path} is not a directory that only this user may enter; remove it") from error
    except OSError as error:
        raise LocalError(f"cannot make {path}: {reason_of(error)}") from error
    return path


def open_trusted(path: str, *, shared: int = _OTHERS) -> int:
    """Opens the directory, to be used as `dir_fd`; `shared` are the mode bits by which others could exchange it."""
    if not path.startswith("/") or "\0" in path:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    fd = os.open("/", _PASS)
    try:
        # In a user namespace root may be a stranger, but whoever owns `/` can exchange everything below.
        trusted = {0, os.getuid(), os.fstat(fd).st_uid}
        _check(fd, trusted, shared, "/")
        parts, links = _parts(path), 0
        while parts:
            name = parts.pop()
            target = _link_target(name, fd, trusted)
            if target is None:
                above, fd = fd, os.open(name, _PASS, dir_fd=fd)
                os.close(above)
                _check(fd, trusted, shared, name)
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
    """Opens the directory, to be listed and used as `dir_fd`."""
    return _own(path, make=False)


def make_own(path: str) -> int:
    """Makes the directory if it does not exist, and opens it."""
    return _own(path, make=True)


def remove_tree(name: str, above: int) -> None:
    """Removes the directory `name` of the directory `above`, also if its modes or depth are meant to prevent it."""
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


def _check(fd: int, trusted: set[int], shared: int, name: str) -> None:
    status = os.fstat(fd)
    if status.st_uid not in trusted or (status.st_mode & shared and not status.st_mode & stat.S_ISVTX):
        raise NotOursError(errno.EPERM, "other users can exchange its entries", name)


def _link_target(name: str, above: int, trusted: set[int]) -> str | None:
    """Returns the target of a symbolic link; None if it is not a link."""
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
    except NotADirectoryError:  # raised for a link, too
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
    """Returns True if the tree is gone."""
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
    """Moves all directories of a tree beside one another, with modes that let their owner list and change them."""
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
    """Moves a directory to `target` and returns its new name there; an empty list if it cannot be moved."""
    new = os.urandom(16).hex()
    try:
        os.close(_enter(name, source))
        os.rename(name, new, src_dir_fd=source, dst_dir_fd=target)
    except OSError:
        return []  # it is a mount, or belongs to another user
    return [new]


def _enter(name: str, above: int) -> int:
    """Opens a directory that its owner may have no permission to enter.  Never changes the mode of a link's target."""
    if os.chmod in os.supports_follow_symlinks:
        os.chmod(name, 0o700, dir_fd=above, follow_symlinks=False)
        return os.open(name, _LIST, dir_fd=above)
    held = os.open(name, _PASS, dir_fd=above)
    try:
        os.chmod(f"/proc/self/fd/{held}", 0o700)
        return os.open(".", _LIST, dir_fd=held)
    finally:
        os.close(held)
