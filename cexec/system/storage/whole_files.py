"""Files that are written whole and on the disk, or not at all.

Contract: `write_new` never replaces a file: `FileExistsError` when the name is taken.  `replace_file` puts a file in
the place of another one in one step.  Both raise `LocalError` for a failure of this machine, such as a full disk.
"""

from __future__ import annotations

import errno
import os

from cexec.errors import LocalError
from cexec.protocol.base import sodium
from cexec.system.reason import reason_of

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS)  # what link says on FAT and some network file systems


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
