"""The journals of `cmap` in some directories.

Contract: `RunDirectory(paths).scan()` returns a `JournalFile` for each file that looks like a journal, the ones that
have changed last first and MOST_JOURNALS at most, and sentences about what cannot be looked at.  It reads the first
bytes of a file and waits for nothing: of a FIFO, a device or a link that another user can have put there nothing is
opened.  It raises nothing.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cexec.cmap.results.journal_format import APPLICATION, FORMAT, MAGIC, real_path
from cexec.cmap.run_files import JOURNAL_ENDINGS
from cexec.system.reason import reason_of
from cexec.system.storage.own_files import check_output

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MOST_JOURNALS = 1000  # (ours) that are shown
MOST_NAMES = 100_000  # (ours) of a directory that are looked at
HEAD = 100  # bytes of a database that are its header (SQLite)
ID_SIZE = 16  # hexadecimal digits (ours)
BESIDE = (*filter(None, JOURNAL_ENDINGS), "-control")  # the endings of files that belong to a journal


@dataclass(slots=True)
class JournalFile:
    """`stamp` is another one when the file has changed.  `owner` is empty for our own; `problem` for a good one."""

    id: str
    path: str
    name: str
    directory: str
    changed: float
    stamp: object
    owner: str = ""
    problem: str = ""


class RunDirectory:
    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths

    def scan(self) -> tuple[list[JournalFile], list[str]]:
        found: dict[str, JournalFile] = {}
        problems: list[str] = []
        for directory in self._paths:
            try:
                for one in _journals(directory, problems):
                    found.setdefault(one.id, one)
            except OSError as error:
                problems.append(f"cannot look into {directory}: {reason_of(error)}")
        ordered = sorted(found.values(), key=lambda one: (-one.changed, one.id))
        if len(ordered) > MOST_JOURNALS:
            problems.append(f"{len(ordered)} journals are there; the {MOST_JOURNALS} that changed last are shown")
        return ordered[:MOST_JOURNALS], problems


def _journals(directory: str, problems: list[str]) -> Iterator[JournalFile]:
    with os.scandir(directory) as entries:
        for count, entry in enumerate(entries):
            if count >= MOST_NAMES:
                problems.append(f"{directory} has more than {MOST_NAMES} files; the others are not looked at")
                return
            if entry.name.endswith(BESIDE):
                continue
            try:
                found = _look(entry.path, entry.name, directory)
            except OSError:
                continue  # it has vanished, or is not ours to read
            if found is not None:
                yield found


def _look(path: str, name: str, directory: str) -> JournalFile | None:
    """Returns None for what is no journal."""
    status = os.lstat(path)
    problem = ""
    if stat.S_ISLNK(status.st_mode):
        try:
            check_output(path)
        except OSError:
            return None  # nobody knows who has put it there
        status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        return None
    log = _status_of(f"{real_path(path)}-wal")
    head = _head(path)
    if head[: len(MAGIC)] != MAGIC or len(head) < HEAD:
        return None
    application, version = (int.from_bytes(head[at : at + 4], "big") for at in (68, 60))
    # What a young journal is can be in its log alone.
    if application != APPLICATION and not (application == 0 and version == 0 and log):
        return None
    if version > FORMAT:
        problem = "a newer cmap has written this journal; update cexec here"
    changed = max(status.st_mtime, log.st_mtime if log else 0.0)
    stamp = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size, log and (log.st_mtime_ns, log.st_size))
    id = hashlib.sha256(os.fsencode(real_path(path))).hexdigest()[:ID_SIZE]
    owner = "" if status.st_uid == os.geteuid() else _name_of(status.st_uid)
    return JournalFile(id, path, _shown(name), _shown(directory), changed, stamp, owner, problem)


def _head(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return os.pread(fd, HEAD, 0)
    finally:
        os.close(fd)


def _status_of(path: str) -> os.stat_result | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found if stat.S_ISREG(found.st_mode) else None


def _name_of(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def _shown(name: str) -> str:
    return os.fsencode(name).decode(errors="replace")
