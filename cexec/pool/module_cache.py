"""Zip files of modules that clients have sent, so that each comes to a machine once.

Contract: a directory of one user, private (0700, its owner is checked), below the directory for temporary files.  A
file is called by the SHA-256 of its bytes, and is there as a whole or not at all.  `find` returns None for one that is
not there, or is damaged.  `add` keeps at most MOST_BYTES; the files that were used longest ago are removed.  Both raise
`OSError` if there can be no such directory.
"""

from __future__ import annotations

import os
import tempfile
import time
from hashlib import file_digest

from cexec.pool.array_store import open_private
from cexec.pool.module_file import ModuleFile

MOST_BYTES = 256 * 1024 * 1024  # (ours)
ABANDONED = 3600.0  # seconds (ours) after which a file that was begun and has no name yet is removed
_NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


def find(digest: bytes) -> ModuleFile | None:
    """Returns the file with these bytes."""
    directory = _enter()
    try:
        fd = os.open(digest.hex(), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return None
    finally:
        os.close(directory)
    found = None
    try:
        with open(fd, "rb", closefd=False) as file:
            if file_digest(file, "sha256").digest() == digest:
                os.utime(fd)
                found = ModuleFile.at(fd)
    finally:
        if found is None:
            os.close(fd)
    return found


def add(digest: bytes, data: bytes | bytearray) -> None:
    """Keeps these bytes, if they are not too many."""
    if len(data) > MOST_BYTES:
        return
    directory = _enter()
    part = f".{os.getpid()}"
    try:
        _make_room(directory, MOST_BYTES - len(data))
        with open(os.open(part, _NEW, 0o600, dir_fd=directory), "wb") as file:
            file.write(data)
        os.rename(part, digest.hex(), src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        _remove(directory, part)
        raise
    finally:
        os.close(directory)


def _enter() -> int:
    path = os.path.join(tempfile.gettempdir(), f"cexec-modules-{os.geteuid()}")
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    return open_private(path)


def _make_room(directory: int, size: int) -> None:
    """Removes files until at most so many bytes are left."""
    files = []
    for name in os.listdir(directory):
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            continue  # another slot has removed it
        if name.startswith("."):
            if status.st_mtime < time.time() - ABANDONED:
                _remove(directory, name)
        else:
            files.append((status.st_mtime, status.st_size, name))
    total = sum(taken for _, taken, _ in files)
    for _, taken, name in sorted(files):
        if total <= size:
            return
        _remove(directory, name)
        total -= taken


def _remove(directory: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except OSError:
        pass
