"""Key files: found, opened with suspicion, and read whole.

Contract: `read_key` returns a key of a wanted class.  `KeyFileError` names the file and says what is wrong with it and
what to type; `LocalError` is a failure of this machine (too many open files).  A process that reads a key writes no
core file from then on.  `key_names` helps where a file is missing, `whole_files` writes one.
A pipe of this user is waited for; a file that another user may have put in place is refused before it is opened: every
pipe of his, and everything of his where all users can make files, as in /tmp.
`read_guarded` is for files that are no keys but are trusted like them, such as a list of revoked certificates; they are
read again and again, so none of them may be a pipe.  docs/protocol.md section 1.
"""

from __future__ import annotations

import _stat
import errno
import os

from cexec.common_errors import KeyFileError, LocalError, UsageError
from cexec.protocol.base.client_key import client_key_of, parse_fields
from cexec.system.reason import reason_of
from cexec.system.storage.user_files import configured, key_descriptor, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    from cexec.protocol.base.keys import Key

    WantedKey = TypeVar("WantedKey", bound=Key)

LIMITS = "/proc/self/limits"  # where Linux tells a process its limits
MAXIMUM_KEY_FILE = 16 * 1024  # bytes (ours): a key takes 1 KiB, the rest is room for its holder's comments
WRITABLE_BY_OTHERS = _stat.S_IWOTH | _stat.S_IWGRP
OPEN_TO_OTHERS = _stat.S_IROTH | WRITABLE_BY_OTHERS  # group read is allowed, so root:lab 0640 works

_ROOT = 0
_NO_SUCH_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
# The errors of an open that are about the file and stay until somebody changes it; all others are the machine's.
_ABOUT_THE_FILE = (*_NO_SUCH_FILE, errno.EACCES, errno.EPERM, errno.EISDIR)


def forbid_core_files() -> None:
    """For a process that holds a key.  Programs inherit it as a soft limit, which they may raise again."""
    if _writes_no_core_file():
        return
    import resource  # takes 0.15 ms, which is for nothing where the limit is 0 by default, as nearly everywhere

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def _writes_no_core_file() -> bool:
    """Returns True if the soft limit is 0 already; False also if this system has no such file."""
    try:
        fd = os.open(LIMITS, os.O_RDONLY | os.O_CLOEXEC)
        try:
            limits = os.read(fd, 4096)
        finally:
            os.close(fd)
    except OSError:
        return False
    _, _, line = limits.partition(b"\nMax core file size ")
    return line.split(None, 1)[:1] == [b"0"]


def open_key(path: str) -> int:
    """Returns a descriptor from which `read_key` reads the key later, perhaps as another user; nothing is read yet."""
    try:
        return _open_guarded(path)
    except KeyFileError as error:
        raise KeyFileError(f"{path} {error}") from None


def read_key(
    path: str, kinds: tuple[type[WantedKey], ...], what: str | None = None, *, descriptor: int | None = None
) -> WantedKey:
    """Returns the key in the file, which must be one of `kinds`; `what` tells the user which file is needed instead.

    `descriptor` is what `open_key` has returned for this path; it is closed.
    """
    try:
        key = _decode(_read_key_text(path, descriptor))
    except KeyFileError as error:
        raise KeyFileError(f"{path} {error}") from None
    if not isinstance(key, kinds):
        needed = what or "needed is a " + " or a ".join(kind.description for kind in kinds)
        raise KeyFileError(f"{path} is a {key.description}; {needed}")
    return key


def _decode(text: bytes) -> Key:
    kind, fields = parse_fields(text)
    if kind == "client":
        return client_key_of(fields)
    from cexec.protocol.base.keys import key_of  # most commands that start often read a client key

    return key_of(kind, fields)


def find_client_key(name: str) -> str:
    """Returns the path of the client key that a user calls `name`: the file itself, or `name` plus `.pub` beside it.

    A plain name that is not here is looked for in ~/.config/cexec.
    """
    if not name:
        raise UsageError("the name of the key is empty")
    path = _client_key_at(name) or _client_key_at(configured(name))
    if path:
        return path
    from cexec.system.storage.key_names import missing_client_key  # most keys are there

    raise missing_client_key(name)


def find_key(name: str) -> str:
    """Returns the path of the key file that a user calls `name`: a plain name may be one in ~/.config/cexec."""
    if not name:
        raise UsageError("the name of the key is empty")
    for path in (name, configured(name)):
        if path and _exists(path):
            return path
    from cexec.system.storage.key_names import missing_key  # most keys are there

    raise missing_key(name)


def _client_key_at(name: str) -> str:
    """Returns `name` or `name` plus `.pub`, whichever is there and is the client key; empty if neither is there."""
    if not name:
        return ""
    public = f"{name}.pub"
    if _exists(public):
        return name if _exists(name) and not _stands_aside(name) else public
    return name if _exists(name) else ""


def read_guarded(path: str, refused: int = OPEN_TO_OTHERS, largest: int = MAXIMUM_KEY_FILE) -> bytes:
    """Returns the file's bytes unless it has one of the `refused` mode bits; the texts of `KeyFileError` lack the path.

    `KeyFileError` is also raised for a file of more than `largest` bytes, and for what is no regular file.
    """
    return _read_to_end(path, _open_guarded(path, refused, waits=False), largest)


def _open_guarded(path: str, refused: int = OPEN_TO_OTHERS, *, waits: bool = True) -> int:
    """Opens the file if nobody else can read or change it; the texts of errors lack the path.

    `waits`: it may be a pipe, whose writer is waited for.
    """
    try:
        if waits and key_descriptor(path) is None:  # else it was given to us
            _refuse_planted(path)
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | (0 if waits else os.O_NONBLOCK))
        try:
            status = os.fstat(descriptor)
            if not waits and not _stat.S_ISREG(status.st_mode):
                raise KeyFileError("is no regular file")
            if _stat.S_ISREG(status.st_mode) and status.st_mode & refused:
                if refused == WRITABLE_BY_OTHERS:
                    raise KeyFileError(f"can be changed by others; type: chmod go-w {quoted(path)}")
                how = "read" if status.st_mode & _stat.S_IROTH else "changed"
                raise KeyFileError(f"can be {how} by others; type: chmod 600 {quoted(path)}")
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor
    except OSError as error:
        raise _failure(path, error) from None


def _refuse_planted(path: str) -> None:
    """Raises `KeyFileError` for what another user may have put in place."""
    status = os.lstat(path)
    for one in (status, os.stat(path)) if _stat.S_ISLNK(status.st_mode) else (status,):
        if one.st_uid in (os.geteuid(), _ROOT):
            continue
        shared = os.stat(os.path.dirname(path) or ".").st_mode & _stat.S_IWOTH
        if shared or _stat.S_ISFIFO(one.st_mode):
            raise KeyFileError("belongs to another user; use a copy of your own, in a directory of your own")


def _read_key_text(path: str, descriptor: int | None = None) -> bytes:
    """Returns the bytes of a key file, from a descriptor of `open_key` if there is one already, which is closed."""
    if descriptor is None:
        descriptor = _open_guarded(path)
    forbid_core_files()
    return _read_to_end(path, descriptor, MAXIMUM_KEY_FILE)


def _read_to_end(path: str, descriptor: int, largest: int) -> bytes:
    try:
        return _read_bounded(descriptor, largest)
    except OSError as error:
        raise _failure(path, error) from None
    finally:
        os.close(descriptor)


def _failure(path: str, error: OSError) -> KeyFileError | LocalError:
    if error.errno in _ABOUT_THE_FILE:
        return KeyFileError(f"cannot be read: {reason_of(error)}")
    return LocalError(f"cannot read {path}: {reason_of(error)}")


def _read_bounded(descriptor: int, largest: int) -> bytes:
    data = b""
    while chunk := os.read(descriptor, largest + 1 - len(data)):
        data += chunk
        if len(data) > largest:
            raise KeyFileError(f"is damaged: it is longer than {largest} bytes")
    return data


def _exists(path: str) -> bool:
    try:
        os.stat(path)
    except OSError as error:
        if error.errno in _NO_SUCH_FILE:
            return False
        raise KeyFileError(f"{path} cannot be read: {reason_of(error)}") from None
    return True


def _stands_aside(path: str) -> bool:
    """Returns True if `path` is the private key or a directory beside a client key.  Reads nothing from a pipe."""
    mode = os.stat(path).st_mode
    if not _stat.S_ISREG(mode):
        return _stat.S_ISDIR(mode)
    try:
        return _decode(_read_key_text(path)).kind == "owner"
    except KeyFileError:
        return False
