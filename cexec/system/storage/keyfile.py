"""Key files: found, opened with suspicion, read whole, and written once.

Contract: `read_key` returns a key of a wanted class.  `KeyFileError` names the file and says what is wrong with it and
what to type; `LocalError` is a failure of this machine (a full disk, too many open files).  `write_new` never replaces
a file: `FileExistsError` when the name is taken.  A process that reads a key writes no core file from then on.
A pipe of this user is waited for; a file that another user may have put in place is refused before it is opened: every
pipe of his, and everything of his where all users can make files, as in /tmp.
`read_guarded` and `replace_file` are for files that are no keys but are trusted like them, such as a list of revoked
certificates; they are read again and again, so none of them may be a pipe.  docs/protocol.md section 1.
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
WRITABLE_BY_OTHERS = stat.S_IWOTH | stat.S_IWGRP
OPEN_TO_OTHERS = stat.S_IROTH | WRITABLE_BY_OTHERS  # group read is allowed, so root:lab 0640 works

_ROOT = 0
_DESCRIPTOR_DIRECTORIES = ("/dev/fd/", "/proc/self/fd/")
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS)  # what link says on FAT and some network file systems
_NO_SUCH_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
# The errors of an open that are about the file and stay until somebody changes it; all others are the machine's.
_ABOUT_THE_FILE = (*_NO_SUCH_FILE, errno.EACCES, errno.EPERM, errno.EISDIR)


def forbid_core_files() -> None:
    """For a process that holds a key.  Programs inherit it as a soft limit, which they may raise again."""
    import resource  # 0.15 ms

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def key_descriptor(path: str) -> int | None:
    """Returns the descriptor of `path` (`/dev/fd/63`, as `<(pass show app)` gives), which must never reach a job."""
    if path == "/dev/stdin":
        return 0
    for directory in _DESCRIPTOR_DIRECTORIES:
        digits = path.removeprefix(directory)
        if digits != path and digits.isascii() and digits.isdigit():
            return int(digits)
    return None


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
        key = decode_key(_read_key_text(path, descriptor))
    except KeyFileError as error:
        raise KeyFileError(f"{path} {error}") from None
    if not isinstance(key, kinds):
        needed = what or "needed is a " + " or a ".join(kind.description for kind in kinds)
        raise KeyFileError(f"{path} is a {key.description}; {needed}")
    return key


def find_client_key(name: str) -> str:
    """Returns the path of the client key that a user calls `name`: the file itself, or `name` plus `.pub` beside it.

    A plain name that is not here is looked for in ~/.config/cexec.
    """
    if not name:
        raise UsageError("the name of the key is empty")
    path = _client_key_at(name) or _client_key_at(_configured(name))
    if path:
        return path
    wanted, missing = (
        (name, f"{name} does not exist")
        if name.endswith(".pub")
        else (f"{name}.pub", f"neither {name} nor {name}.pub exists")
    )
    base = wanted.removesuffix(".pub")
    raise KeyFileError(
        f"{missing}{_where_else(name)}; {_guess(base, _bases_of('.pub'), '.pub')}"
        f"copy {wanted} from its owner or make it with: ckeygen {quoted(base)}"
    )


def find_key(name: str) -> str:
    """Returns the path of the key file that a user calls `name`: a plain name may be one in ~/.config/cexec."""
    if not name:
        raise UsageError("the name of the key is empty")
    for path in (name, _configured(name)):
        if path and _exists(path):
            return path
    base, dot, suffix = name.rpartition(".")
    made = f"ckeygen {quoted(name)}"
    if base and suffix in ("pub", "relay", "worker"):
        options = {"pub": "", "relay": "--relay ", "worker": "--worker NAME "}[suffix]
        made = f"ckeygen {options}{quoted(base)}{f' {quoted(name)}' if suffix == 'worker' else ''}"
    else:
        base, dot, suffix = name, "", ""  # a private key: another one is known by the client key beside it
    guess = _guess(base, _bases_of(f"{dot}{suffix}" or ".pub", beside=not dot), f"{dot}{suffix}")
    raise KeyFileError(
        f"{name} does not exist{_where_else(name)}; {guess}copy it from its owner or make it with: {made}"
    )


def _client_key_at(name: str) -> str:
    """Returns `name` or `name` plus `.pub`, whichever is there and is the client key; empty if neither is there."""
    if not name:
        return ""
    public = f"{name}.pub"
    if _exists(public):
        return name if _exists(name) and not _stands_aside(name) else public
    return name if _exists(name) else ""


def _configured(name: str) -> str:
    """Returns the path of a plain name in the user's configuration; empty for a path, or if there is no such place."""
    from cexec.system.storage.directories import config_directory  # here, because most keys are where the user says

    directory = None if "/" in name else config_directory()
    return "" if directory is None else os.path.join(directory, name)


def _where_else(name: str) -> str:
    directory = os.path.dirname(_configured(name))
    return f", here or in {directory}" if directory else ""


def _guess(wanted: str, known: list[str], suffix: str) -> str:
    """Asks if another file was meant, which is there; `wanted` and those that are `known` lack the suffix."""
    from difflib import get_close_matches

    found = get_close_matches(wanted, known, 1)
    return f"did you mean {found[0]}{suffix}? Otherwise " if found else ""


def _bases_of(suffix: str, *, beside: bool = False) -> list[str]:
    """Returns the names of key files without their end; `beside`: of those that have a file without it beside them."""
    paths = [path.removesuffix(suffix) for path in client_key_files(suffix)]
    return list(dict.fromkeys(os.path.basename(path) for path in paths if not beside or os.path.isfile(path)))


def client_key_files(suffix: str = ".pub") -> list[str]:
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
        found += [os.path.join(directory, name) for name in names if name.endswith(suffix) and name[0] != "."]
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


def replace_file(path: str, text: str, mode: int) -> None:
    """Writes a file whole and on the disk, in place of the one that has the name; a reader sees one of the two."""
    directory = os.path.dirname(path)
    draft = os.path.join(directory, f".cexec-draft.{sodium.random_bytes(8).hex()}")
    try:
        try:
            _write_draft(draft, text.encode(), mode)
            os.rename(draft, path)
        finally:
            _remove(draft)
        _synchronise(directory or ".")
    except OSError as error:
        raise LocalError(f"cannot write {path}: {reason_of(error)}") from None


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
            if not waits and not stat.S_ISREG(status.st_mode):
                raise KeyFileError("is no regular file")
            if stat.S_ISREG(status.st_mode) and status.st_mode & refused:
                if refused == WRITABLE_BY_OTHERS:
                    raise KeyFileError(f"can be changed by others; type: chmod go-w {quoted(path)}")
                how = "read" if status.st_mode & stat.S_IROTH else "changed"
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
    for one in (status, os.stat(path)) if stat.S_ISLNK(status.st_mode) else (status,):
        if one.st_uid in (os.geteuid(), _ROOT):
            continue
        shared = os.stat(os.path.dirname(path) or ".").st_mode & stat.S_IWOTH
        if shared or stat.S_ISFIFO(one.st_mode):
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


def quoted(path: str) -> str:
    """Returns `path` as a shell reads it."""
    plain = path.isascii() and path.replace("/", "").replace("-", "").replace("_", "").replace(".", "").isalnum()
    return path if plain else "'" + path.replace("'", "'\\''") + "'"


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
    if not stat.S_ISREG(mode):
        return stat.S_ISDIR(mode)
    try:
        return isinstance(decode_key(_read_key_text(path)), OwnerKey)
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
