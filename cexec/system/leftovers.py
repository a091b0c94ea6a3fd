"""What a job leaves when its process is killed: a record of it, and how it is swept away.

Contract: each job's process holds a `Record`, a file in the user's runtime directory that it has locked: when nobody
holds the lock the job's process is dead, whatever killed it.  `sweep` ends what is left of such jobs, removes their
private directories and memory groups, and the record.  cservice sweeps when it starts and when a job's process dies.
Records are JSON lines, later ones add to earlier ones; one of another boot names no process.  The directory is
$XDG_RUNTIME_DIR/cexec or /tmp/cexec-UID, ours alone: `LocalError` when it is not.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import stat
import time

from cexec.errors import LocalError
from cexec.system import process_tree

MARK = "CEXEC_RUN"  # the variable by which the processes of one run of a job are known; the record has NAME=VALUE
PRIVATE_PREFIX = "cexec-job-"  # of a private directory's name: nothing else is ever removed
GROUP_PREFIX = "cexec-job-"  # and of a memory group's
_NEW = 60.0  # seconds (ours) that an empty record may still be about to be locked
_LOOKS = 200  # (ours) at processes that do not end, _LOOK_INTERVAL apart
_LOOK_INTERVAL = 0.005  # seconds (ours)


class Record:
    """One job's file.  Closing it says that nothing is left."""

    def __init__(self, directory: str, mark: str) -> None:
        self._path = f"{directory}/{os.getpid()}-{os.urandom(4).hex()}"
        self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        self.add(mark=mark, boot=_boot())

    def add(self, **values: object) -> None:
        """`mark`, `boot`, `leader` and `start` (its start time), `directory`, `group`: what there is to sweep."""
        os.write(self._fd, json.dumps(values).encode() + b"\n")

    def close(self) -> None:
        try:
            os.unlink(self._path)
        finally:
            os.close(self._fd)


def runtime_directory() -> str:
    """The directory for records, made if need be."""
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    path = f"{base}/cexec" if base.startswith("/") and os.path.isdir(base) else f"/tmp/cexec-{os.getuid()}"
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise LocalError(f"cannot make {path}: {os.strerror(error.errno or 0).lower()}") from error
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise LocalError(f"{path} is not a directory that only this user may enter; remove it")
    return path


def sweep(directory: str, *, grace: float = 0.0) -> list[str]:
    """Ends what dead jobs have left, by TERM first if there is a `grace`; returns the marks of those jobs."""
    swept = []
    for name in os.listdir(directory):
        try:
            fd = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue  # its job has ended
        with open(fd, "rb") as file:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue  # its job runs
            status = os.fstat(fd)
            if status.st_nlink == 0 or (status.st_size == 0 and time.time() - status.st_mtime < _NEW):
                continue
            values = _parse(file.read())
            _clean(values, grace)
            os.unlink(f"{directory}/{name}")
            swept.append(str(values.get("mark", "")))
    return swept


def end_strays(leader: int) -> None:
    """Ends and reaps the orphans of a job's process that was killed, which have become children of this process.

    `leader` is the job's main process, or 0: it may have ended already, and nothing else tells then whose it was.
    """
    seen = {leader}
    for _ in range(_LOOKS):
        # One that has died is told from our own children only by having been seen before.
        seen.update(process_tree.signal_all(process_tree.strays(MARK.encode()), signal.SIGKILL))
        ours = [pid for pid in process_tree.children(os.getpid()) if pid in seen]
        if not ours:
            return
        for pid in ours:
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                pass  # the kernel was faster, in a caller that ignores SIGCHLD
        time.sleep(_LOOK_INTERVAL)


def remove_directory(path: str) -> None:
    """Removes a job's private directory, also what the program has made hard to remove."""
    import shutil

    shutil.rmtree(path, ignore_errors=True)
    if os.path.lexists(path):
        _open_up(path)
        shutil.rmtree(path, ignore_errors=True)  # a mount, or another user's file, is no reason to fail a job


def _open_up(path: str) -> None:
    """Makes every directory one that its owner may list and change."""
    waiting = [path]
    while waiting:
        directory = waiting.pop()
        try:
            os.chmod(directory, 0o700)
            with os.scandir(directory) as entries:
                waiting += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:
            pass


def _parse(data: bytes) -> dict[str, object]:
    values: dict[str, object] = {}
    for line in data.splitlines():
        try:
            values.update(json.loads(line))
        except ValueError:
            pass  # the last line of a process that was killed while it wrote
    return values


def _clean(values: dict[str, object], grace: float) -> None:
    if values.get("boot") == _boot():
        _end_processes(str(values.get("mark", "")).encode(), values.get("leader"), values.get("start"), grace)
    directory, group = str(values.get("directory", "")), str(values.get("group", ""))
    if _is_own_directory(directory) and os.path.basename(directory).startswith(PRIVATE_PREFIX):
        remove_directory(directory)
    if os.path.basename(group).startswith(GROUP_PREFIX):
        try:
            os.rmdir(group)
        except OSError:
            pass


def _end_processes(mark: bytes, leader: object, start: object, grace: float) -> None:
    deadline = time.monotonic() + grace
    told: set[int] = set()
    for _ in range(_LOOKS + int(grace / _LOOK_INTERVAL)):
        found = process_tree.marked(mark) if mark else []
        if isinstance(leader, int) and start and process_tree.start_time(leader) == start:
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


def _is_own_directory(path: str) -> bool:
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return path.startswith("/") and stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()


def _boot() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return ""
