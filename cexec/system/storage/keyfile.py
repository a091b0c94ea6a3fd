"""Key files: found, opened with suspicion, read whole, and written once.

Contract: `read_key` returns a key of a wanted class.  `KeyFileError` names the file and says what is wrong with it and
what to type; `LocalError` is a failure of this machine (a full disk, too many open files).  `write_new` never replaces
a file: `FileExistsError` when the name is taken.  docs/protocol.md section 1.
"""

from __future__ import annotations

import errno
import os
import stat

from cexec.errors import KeyFileError, LocalError, UsageError
from cexec.protocol.base import sodium
from cexec.protocol.base.keys import OwnerKey, decode_key
from cexec.system.reason import reason_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    from cexec.protocol.base.keys import Key

    WantedKey = TypeVar("WantedKey", bound=Key)

MAXIMUM_KEY_FILE = 16 * 1024  # bytes (ours): a key takes 1 KiB, the rest is room for its holder's comments
OPEN_TO_OTHERS = stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP  # group read is allowed, so root:lab 0640 works

_DESCRIPTOR_DIRECTORIES = ("/dev/fd/", "/proc/self/fd/")
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS)  # what link says on FAT and some network file systems
_NO_SUCH_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
# The errors of an open that are about the file and stay until somebody changes it; all others are the machine's.
_ABOUT_THE_FILE = (*_NO_SUCH_FILE, errno.EACCES, errno.EPERM, errno.EISDIR)


def key_descriptor(path: str) -> int | None:
    """Returns the descriptor of `path` (`/dev/fd/63`, as `<(pass show app)` gives), which must never reach a job."""
    if path == "/dev/stdin":
        return 0
    for directory in _DESCRIPTOR_DIRECTORIES:
        digits = path.removeprefix(directory)
        if digits != path and digits.isascii() and digits.isdigit():
            return int(digits)
    return None


def read_key(path: str, kinds: tuple[type[WantedKey], ...], what: str | None = None) -> WantedKey:
    """Returns the key in the file, which must be one of `kinds`; `what` tells the user which file is needed instead."""
    try:
        key = decode_key(_read_guarded(path))
    except KeyFileError as error:
        raise KeyFileError(f"{path} {error}") from None
    if not isinstance(key, kinds):
        needed = what or "needed is a " + " or a ".join(kind.description for kind in kinds)
        raise KeyFileError(f"{path} is a {key.description}; {needed}")
    return key


def find_client_key(name: str) -> str:
    """Returns the path of the client key that a user calls `name`: the file itself, or `name` plus `.pub` beside it."""
    if not name:
        raise UsageError("the name of the key is empty")
    public = f"{name}.pub"
    if _exists(public):
        return name if _exists(name) and not _stands_aside(name) else public
    if _exists(name):
        return name
    wanted, missing = (
        (name, f"{name} does not exist") if name.endswith(".pub") else (public, f"neither {name} nor {public} exists")
    )
    raise KeyFileError(
        f"{missing}; copy {wanted} from its owner or make it with: ckeygen {quoted(wanted.removesuffix('.pub'))}"
    )


def client_key_files() -> list[str]:
    """Returns the paths of the files *.pub in the current directory, then of those in the user's configuration."""
    from cexec.system.storage.directories import config_directory  # here, because `cexec` does not call this

    found: list[str] = []
    for directory in ("", config_directory()):
        if directory is None:
            continue
        try:
            names = sorted(os.listdir(directory or "."))
        except OSError:
            continue
        found += [os.path.join(directory, name) for name in names if name.endswith(".pub") and name[0] != "."]
    return found


def write_new(path: str, text: str, mode: int = 0o600) -> None:
    """Writes a file that did not exist, whole and on the disk, or nothing at all."""
    directory = os.path.dirname(path)
    draft = os.path.join(directory, f".cexec-draft.{sodium.random_bytes(8).hex()}")
    try:
        try:
            _write_draft(draft, text.encode(), mode)
            _publish(draft, path)
        finally:
            _remove(draft)
        _synchronise(directory or ".")
    except FileExistsError:
        raise
    except OSError as error:
        raise LocalError(f"cannot write {path}: {reason_of(error)}") from None


def quoted(path: str) -> str:
    """Returns `path` as a shell reads it."""
    plain = path.isascii() and path.replace("/", "").replace("-", "").replace("_", "").replace(".", "").isalnum()
    return path if plain else "'" + path.replace("'", "'\\''") + "'"


def _read_guarded(path: str) -> bytes:
    """Returns the file's bytes if nobody else can read or change them; the texts of errors lack the path."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
        try:
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode) and status.st_mode & OPEN_TO_OTHERS:
                how = "read" if status.st_mode & stat.S_IROTH else "changed"
                raise KeyFileError(f"can be {how} by others; type: chmod 600 {quoted(path)}")
            return _read_bounded(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in _ABOUT_THE_FILE:
            raise KeyFileError(f"cannot be read: {reason_of(error)}") from None
        raise LocalError(f"cannot read {path}: {reason_of(error)}") from None


def _read_bounded(descriptor: int) -> bytes:
    data = b""
    while chunk := os.read(descriptor, MAXIMUM_KEY_FILE + 1 - len(data)):
        data += chunk
        if len(data) > MAXIMUM_KEY_FILE:
            raise KeyFileError(f"is damaged: it is longer than {MAXIMUM_KEY_FILE} bytes")
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
    if not stat.S_ISREG(mode):
        return stat.S_ISDIR(mode)
    try:
        return isinstance(decode_key(_read_guarded(path)), OwnerKey)
    except KeyFileError:
        return False


def _write_draft(draft: str, data: bytes, mode: int) -> None:
    descriptor = os.open(draft, _CREATE, mode)
    try:
        os.fchmod(descriptor, mode)  # the umask does not count
        while data:
            data = data[os.write(descriptor, data) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _publish(draft: str, path: str) -> None:
    """Gives the draft its name in one step, unless the name is taken."""
    try:
        os.link(draft, path)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        os.close(os.open(path, _CREATE, 0o600))  # reserves the name: rename alone would replace somebody's file
        try:
            os.rename(draft, path)
        except BaseException:
            _remove(path)
            raise


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return  # it has got its final name


def _synchronise(directory: str) -> None:
    """Puts the directory's entry on the disk, where the directory can be opened and its file system can do so."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EINVAL, errno.ENOTSUP):
            raise
