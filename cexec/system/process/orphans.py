"""Records of jobs, and the removal of everything that a job leaves when its process is killed.

Contract: each job's process holds a `Record`, a file in the user's runtime directory that it has locked.  When nobody
holds the lock, the job's process is dead, however it died.  `sweep` ends the processes that such jobs left, removes
their private directories and memory groups, and then the record.  cservice sweeps when it starts and when a job's
process dies.  Records are JSON lines; later lines add to earlier ones.  A record of another boot names no process.
Every use opens the directory anew with all checks of `directories`, and `Record` raises `OSError` if it is not ours
alone.  `sweep` raises nothing.  It acts on no file of another user, and on no text that a job's process cannot have
written.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import stat
import time

from cexec.system.process import memory_group, process_tree
from cexec.system.storage.directories import open_own, open_trusted, remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

MARK = "CEXEC_RUN"  # the variable by which the processes of one run of a job are known; the record has NAME=VALUE
PRIVATE_PREFIX = "cexec-job-"  # of a private directory's name: nothing else is ever removed
GROUP_PREFIX = "cexec-job-"  # and of a memory group's
_WHOLE_MARK = re.compile(rf"{MARK}=[0-9a-f-]{{16,200}}")
_MAXIMUM_PID = 1 << 22  # PID_MAX_LIMIT of Linux
_MAXIMUM_START = 1 << 63  # ticks: more than any process's start time
_READ = 1 << 16  # bytes (ours) of a record's beginning, which names the boot, and of its end, which names the last job
# The end of a line of `begin_job`, made once: a lease writes one for every job.
_NOTHING_YET = json.dumps({"leader": 0, "start": 0, "directory": "", "group": ""}).encode().removeprefix(b"{")
_BEFORE_JOBS = {"boot", "job_group"}  # a record has these before its first job
_NEW = 60.0  # seconds (ours) that an empty record may still be about to be locked
_LOOKS = 200  # (ours) at processes that do not end, _LOOK_INTERVAL apart
_LOOK_INTERVAL = 0.005  # seconds (ours)


class Record:
    """One job's file.  Closing it says that nothing is left."""

    def __init__(self, directory: str, mark: str = "", job_group: str = "") -> None:
        """`mark`: the job's, if it is known.  `job_group`: the path of the control group in which its process lives."""
        self._name = f"{os.getpid()}-{os.urandom(4).hex()}"
        self._directory = open_own(directory)
        known = {"mark": mark, "job_group": job_group}
        first = {"boot": boot_id(), **{name: value for name, value in known.items() if value}}
        self._beginning = b""  # the first line, until it is written
        self._torn = False  # the last line has no end
        self._fd = -1
        try:
            if not self._begin_nameless(first):
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
                self._fd = os.open(self._name, flags, 0o600, dir_fd=self._directory)
                self._begin(first)
        except OSError:
            self.close()
            raise

    def _begin_nameless(self, first: Mapping[str, str]) -> bool:
        """Gives the file its name when it is locked and says something; False where that cannot be done.

        A process that is killed before leaves nothing, so a sweep finds no empty records.
        """
        try:
            flags = os.O_TMPFILE | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
            self._fd = os.open(".", flags, 0o600, dir_fd=self._directory)
        except (AttributeError, OSError):
            return False  # this system, or this file system, has no files without a name
        self._begin(first)
        try:
            os.link(f"/proc/self/fd/{self._fd}", self._name, dst_dir_fd=self._directory, follow_symlinks=True)
        except OSError:
            os.close(self._fd)
            self._fd = -1
            return False  # there is no /proc
        return True

    def _begin(self, first: Mapping[str, str]) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        self._beginning, self._torn = json.dumps(first).encode() + b"\n", False
        self._write(b"")

    def add(self, **values: object) -> None:
        """`mark`, `boot`, `leader` and `start` (its start time), `directory`, `group`, `job_group`: what to sweep.

        It may be lost, because the disk is full: no job fails for that, and what is lost only a killed process needs.
        """
        self._write(json.dumps(values).encode() + b"\n")

    def begin_job(self, mark: str) -> None:
        """Begins another job, of which nothing is known but its mark; as `add`."""
        self._write(b'{"mark": %b, %b\n' % (json.dumps(mark).encode(), _NOTHING_YET))

    def _write(self, line: bytes) -> None:
        """Writes the beginning first, unless it is there: without the boot no process is ended."""
        lines = (b"\n" if self._torn else b"") + self._beginning + line
        try:
            size = os.write(self._fd, lines)
        except OSError:
            return
        self._torn = size < len(lines)
        if not self._torn:
            self._beginning = b""

    def close(self) -> None:
        try:
            os.unlink(self._name, dir_fd=self._directory)
        except OSError:
            pass  # somebody has removed it
        finally:
            if self._fd >= 0:
                os.close(self._fd)
            os.close(self._directory)


def sweep(directory: str, *, grace: float = 0.0) -> list[str]:
    """Ends what dead jobs have left, by TERM first if there is a `grace`; returns the marks of those jobs."""
    try:
        fd = open_own(directory)
    except OSError:
        return []  # somebody has removed or exchanged it
    try:
        marks = [_sweep_record(name, fd, grace) for name in os.listdir(fd)]
    finally:
        os.close(fd)
    return [mark for mark in marks if mark is not None]


def _sweep_record(name: str, directory: int, grace: float) -> str | None:
    """The mark of a job that was dead, "" if its record does not tell; None if there was no job."""
    try:
        # Not blocking, because a named pipe would wait for a writer.
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return None  # its job has ended
    try:
        if not _is_record(fd):
            return None
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises if its job runs
        status = os.fstat(fd)
        if status.st_nlink != 1 or (status.st_size == 0 and time.time() - status.st_mtime < _NEW):
            return None
        values = _parse(_contents(fd, status.st_size))
        _clean(values, grace)
        os.unlink(name, dir_fd=directory)
        return None if values and values.keys() <= _BEFORE_JOBS else _mark(values)
    except OSError:
        return None
    finally:
        os.close(fd)


def _is_record(fd: int) -> bool:
    """Returns True if nobody but us can have written the record."""
    status = os.fstat(fd)
    shared = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.getuid() and not shared and status.st_nlink == 1


def _contents(fd: int, size: int) -> bytes:
    """All of it, or the beginning and the end: a lease may have had a million jobs."""
    if size <= 2 * _READ:
        return os.pread(fd, 2 * _READ, 0)
    return os.pread(fd, _READ, 0) + b"\n" + os.pread(fd, _READ, size - _READ)


def remove_directory(path: str) -> None:
    """Removes a job's private directory, also what the program has made hard to remove."""
    base, name = os.path.split(path)
    try:
        above = os.open(base or ".", getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return  # a mount, or another user's file, is no reason to fail a job, and neither is this
    try:
        remove_tree(name, above)
    finally:
        os.close(above)


def _parse(data: bytes) -> dict[str, object]:
    """Returns the members of all lines that are JSON objects; later lines win."""
    values: dict[str, object] = {}
    for line in data.splitlines():
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            continue  # the last line of a process that was killed while it wrote
        if isinstance(found, dict):
            values.update(found)
    return values


def _text(values: dict[str, object], name: str) -> str:
    """A text that can be a file's name; "" for anything else."""
    value = values.get(name)
    if not isinstance(value, str) or "\0" in value:
        return ""
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        return ""
    return value


def _number(values: dict[str, object], name: str, least: int, most: int) -> int:
    """A whole number in that range; 0 for anything else."""
    value = values.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most else 0


def _mark(values: dict[str, object]) -> str:
    """Returns the mark if it is NAME=VALUE as jobs have it, else an empty text: a shorter one could mark strangers."""
    mark = _text(values, "mark")
    return mark if _WHOLE_MARK.fullmatch(mark) else ""


def _clean(values: dict[str, object], grace: float) -> None:
    boot = boot_id()
    if boot and values.get("boot") == boot:
        leader, start = _number(values, "leader", 2, _MAXIMUM_PID), _number(values, "start", 1, _MAXIMUM_START)
        _end_processes(_mark(values).encode(), leader if leader != os.getpid() else 0, start, grace)
    directory = _text(values, "directory")
    above = _above_own(directory, PRIVATE_PREFIX)
    if above is not None:
        remove_tree(os.path.basename(directory), above)
        os.close(above)
    for name in ("job_group", "group"):
        group = _text(values, name)
        above = _above_own(group, GROUP_PREFIX) if group.startswith(f"{memory_group.ROOT}/") else None
        if above is not None:
            _end_group(os.path.basename(group), above)
            os.close(above)


def _end_group(name: str, above: int) -> None:
    """Kills what is in a control group, where the kernel can do that, and removes it."""
    try:
        fd = os.open(f"{name}/cgroup.kill", os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
    except OSError:
        pass  # version 1
    else:
        try:
            os.write(fd, b"1")
        except OSError:
            pass  # it has gone
        os.close(fd)
    for _ in range(_LOOKS):
        try:
            os.rmdir(name, dir_fd=above)
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(_LOOK_INTERVAL)  # its processes are still ending, or one of them cannot be ended
        else:
            return


def _above_own(path: str, prefix: str) -> int | None:
    """Opens the directory that holds `path`, if `path` is a directory of ours with such a name."""
    base, name = os.path.split(path)
    if not name.startswith(prefix) or os.path.normpath(path) != path:
        return None
    try:
        above = open_trusted(base)
    except OSError:
        return None
    try:
        status = os.stat(name, dir_fd=above, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid():
            return above
    except OSError:
        pass
    os.close(above)
    return None


def _end_processes(mark: bytes, leader: int, start: int, grace: float) -> None:
    deadline = time.monotonic() + grace
    told: set[int] = set()
    for _ in range(_LOOKS + int(grace / _LOOK_INTERVAL)):
        found = process_tree.marked(mark) if mark else []
        if leader and start and process_tree.start_time(leader) == start:
            found.append(leader)
        if not found:
            return
        if time.monotonic() >= deadline:
            process_tree.signal_all(found, signal.SIGKILL)
        elif not told.issuperset(found):
            new = [pid for pid in found if pid not in told]
            process_tree.signal_all(new, signal.SIGTERM)
            process_tree.signal_all(new, signal.SIGCONT)
            told.update(new)
        time.sleep(_LOOK_INTERVAL)


def boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return ""
