"""The place of cboot on a host: one directory below the user's home, and a record of everything outside it.

Contract: `HostPlace(home)` is `~/.local/share/cexec/boot`; making the object touches nothing.  `locked` makes the
directory and its parents, and notes which of them did not exist; `note` notes what a worker will make elsewhere.
`tidy` removes the place, and what was noted, as soon as it holds neither a worker nor a release.  It removes no file
that was there before and no directory that is not empty.  All of this happens inside `locked`.

This package runs on the host, under a Python that has nothing but its standard library, so it imports nothing else.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BELOW_HOME = ".local/share/cexec/boot"
LOCK_PATIENCE = 300.0  # seconds (ours): as long as another host with this home may take to install
LOCK_PAUSE = 0.1  # seconds (ours) between two tries
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)  # network file systems without locks
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)


class RemoteError(Exception):
    """The host tells this to the booting machine: `kind` is a word for programs, the text is for people."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


def told(error: OSError) -> RemoteError:
    """Returns a failure of the file system in words."""
    where = f" ({error.filename})" if error.filename else ""
    text = f"{error.strerror or error}{where}"
    if error.errno in _NO_SPACE:
        return RemoteError("space", f"no space is left: {text}")
    if error.errno in _NOT_ALLOWED:
        return RemoteError("permission", f"nothing may be written there: {text}")
    return RemoteError("remote", text)


class HostPlace:
    """The directories of cboot for one user of one host, or of several hosts that share a home."""

    def __init__(self, home: str | os.PathLike[str]) -> None:
        self.home = Path(home)
        self.root = self.home / BELOW_HOME
        self.releases = self.root / "releases"
        self.workers = self.root / "workers"
        self.programs = self.root / "programs"
        self._lock = self.root / "lock"
        self._made = self.root / "made.json"

    def exists(self) -> bool:
        return self.root.is_dir()

    def free(self) -> int:
        """Returns the bytes that this user may still write."""
        found = next(path for path in (self.root, *self.root.parents) if path.exists())
        status = os.statvfs(found)
        return status.f_bavail * status.f_frsize

    @contextmanager
    def locked(self, *, make: bool = True) -> Iterator[None]:
        """Holds the lock of this home; other hosts that share it wait.  `make`: makes the place if it is absent."""
        missing = _missing(self.root)
        if missing and not make:
            yield
            return
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = self._lock_file()
        try:
            if missing:
                self._add_made(missing, [])
            yield
        finally:
            os.close(fd)

    def note(self, paths: Iterable[Path]) -> None:
        """Notes files that do not exist yet and are about to be made, with those of their directories that are new."""
        absent = [path for path in paths if not os.path.lexists(path)]
        directories = [directory for path in absent for directory in _missing(path.parent)]
        self._add_made(list(dict.fromkeys(directories)), absent)

    def tidy(self, *, keep_programs: bool) -> list[str]:
        """Removes the place if nothing needs it; returns the paths of files that are not ours and stay."""
        if not self.exists() or _entries(self.workers) or _entries(self.releases):
            return []
        if not keep_programs:
            shutil.rmtree(self.programs, ignore_errors=True)
        for directory in (self.workers, self.releases):
            _remove_empty(directory)
        if set(_entries(self.root)) - {self._lock.name, self._made.name}:
            return [str(self.root / name) for name in _entries(self.root) if name not in ("lock", "made.json")]
        made = self._read_made()
        for name in made["files"]:
            Path(name).unlink(missing_ok=True)
        self._made.unlink(missing_ok=True)
        self._lock.unlink(missing_ok=True)
        _remove_empty(self.root)
        for name in sorted(made["directories"], key=len, reverse=True):
            _remove_empty(Path(name))
        return []

    def _lock_file(self) -> int:
        """Returns the descriptor of the locked file; a file that was removed while we waited does not count."""
        deadline = time.monotonic() + LOCK_PATIENCE
        while True:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if _take(fd):
                    if _is_same(fd, self._lock):
                        return fd
                elif time.monotonic() > deadline:
                    raise RemoteError("busy", f"another cboot has held {self._lock} for {LOCK_PATIENCE:g} s")
                else:
                    time.sleep(LOCK_PAUSE)
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)

    def _read_made(self) -> dict[str, list[str]]:
        try:
            found: dict[str, list[str]] = json.loads(self._made.read_text())
        except (OSError, ValueError):
            return {"directories": [], "files": []}
        return found

    def _add_made(self, directories: list[Path], files: list[Path]) -> None:
        made = self._read_made()
        for name, paths in (("directories", directories), ("files", files)):
            made[name] = list(dict.fromkeys([*made[name], *map(str, paths)]))
        write_json(self._made, made)


def write_json(path: Path, value: Any) -> None:
    """Writes the file whole or not at all."""
    write_whole(path, json.dumps(value, indent=1).encode(), 0o600)


def write_whole(path: Path, data: bytes, mode: int) -> None:
    """Writes the file whole or not at all, with this mode."""
    draft = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
    try:
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
        os.chmod(draft, mode)
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _missing(path: Path) -> list[Path]:
    """Returns those of the directory and its parents that do not exist."""
    return [one for one in (path, *path.parents) if not os.path.lexists(one)]


def _entries(path: Path) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def _remove_empty(path: Path) -> None:
    try:
        path.rmdir()
    except OSError:
        pass  # somebody else uses it, or it is gone


def _take(fd: int) -> bool:
    """Returns True if we have the lock, also where the file system has no locks: releases then appear by a rename."""
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in _NO_LOCKS
    return True


def _is_same(fd: int, path: Path) -> bool:
    try:
        status = os.stat(path)
    except OSError:
        return False
    opened = os.fstat(fd)
    return (status.st_dev, status.st_ino) == (opened.st_dev, opened.st_ino)
