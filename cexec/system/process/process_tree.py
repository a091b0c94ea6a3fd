"""Process trees: what a program has started, and the end of all of it.

Contract: a process that has called `process.adopt_orphans` finds every descendant of its program here, grandchildren
and double forks too, and ends them with `TreeEnd`: TERM, a grace time, KILL.  Nothing here waits, except `end_tree`.
Processes end and appear while one looks: every list is a guess, and only `TreeEnd` and the parent's wait know the end.
Where there is no /proc the process group is all that can be reached.
"""

from __future__ import annotations

import os
import signal
import time

from cexec.system.process.process import signal_group

_LOOK_INTERVAL = 0.01  # seconds (ours) between two looks at a tree that is ending
_GIVE_UP = 10.0  # seconds (ours) of KILL: what is left then is another user's, or stuck in the kernel
_STOP_ROUNDS = 50  # (ours) looks for processes that were started while others were being stopped
_STAT_SIZE = 4096  # bytes (ours): more than /proc/PID/stat has
_STATE_FIELD, _SESSION_FIELD, _START_FIELD = 0, 3, 19  # of /proc/PID/stat behind the name, proc(5)


class TreeEnd:
    """Ends the descendants of this process: TERM when it is made, KILL after `grace` seconds, until none is left.

    Who drives it reaps the children, and is done when there are none or when it has `given_up`.
    """

    def __init__(self, leader: int, grace: float, now: float) -> None:
        self.given_up = False
        self._leader = leader
        self._deadline = now + grace
        self._last = self._deadline + _GIVE_UP
        signal_tree(leader, signal.SIGTERM)
        signal_tree(leader, signal.SIGCONT)  # a stopped process takes the TERM only when it goes on

    def next_timeout(self) -> float:
        return self._deadline

    def handle_timeout(self, now: float) -> None:
        if now >= self._deadline:
            signal_tree(self._leader, signal.SIGKILL)
            self._deadline = now + _LOOK_INTERVAL  # what was forked meanwhile
            self.given_up = now >= self._last


def end_tree(leader: int, grace: float) -> None:
    """Ends everything that is left below this process, and returns when all is reaped."""
    if not reap():
        return
    ending = TreeEnd(leader, grace, time.monotonic())
    while reap() and not ending.given_up:
        ending.handle_timeout(time.monotonic())
        time.sleep(_LOOK_INTERVAL)


def signal_tree(leader: int, number: int) -> None:
    """A signal for every descendant of this process, by whole groups, which the kernel does without a gap."""
    found = descendants(os.getpid())
    groups = {group for group in map(_group, found) if group} - {os.getpgrp()}
    for group in groups:
        signal_group(group, number)
    if not found and leader and not os.path.isdir("/proc/self"):
        signal_group(leader, number)
    for pid in found:
        if _group(pid) not in groups:
            _kill(pid, number)


def stop_tree() -> None:
    """Stops every descendant.  Not by SIGTSTP, which does nothing in a group that no shell looks after."""
    stopped: set[int] = set()
    for _ in range(_STOP_ROUNDS):
        running = set(descendants(os.getpid())) - stopped
        if not running:
            return
        for pid in running:
            _kill(pid, signal.SIGSTOP)
        stopped |= running


def signal_program(leader: int, number: int, *, reaped: bool) -> None:
    """A signal for the program's process group; when its leader is `reaped` its number may have become another's."""
    if not reaped or any(_group(pid) == leader for pid in descendants(os.getpid())):
        signal_group(leader, number)


def descendants(root: int) -> list[int]:
    """All processes below `root`, parents before children; empty where there is no /proc."""
    found: list[int] = []
    waiting = [root]
    while waiting:
        for child in children(waiting.pop()):
            found.append(child)
            waiting.append(child)
    return found


def children(pid: int) -> list[int]:
    result: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                result += map(int, file.read().split())
    except OSError:
        pass  # gone meanwhile, or not Linux
    return result


def start_time(pid: int) -> int:
    """When a process was started, in the kernel's ticks: with its number the name of a process.  0: it has ended."""
    fields = _stat_fields(pid)
    return 0 if not fields or fields[_STATE_FIELD] in (b"Z", b"X") else int(fields[_START_FIELD])


def marked(mark: bytes) -> list[int]:
    """The processes of this user that were started with this NAME=VALUE in their environment."""
    user, result = os.getuid(), []
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else []:
        if not name.isdigit():
            continue
        try:
            if os.stat(f"/proc/{name}").st_uid != user:
                continue
            with open(f"/proc/{name}/environ", "rb") as file:
                if mark in file.read().split(b"\0"):
                    result.append(int(name))
        except OSError:
            pass  # gone meanwhile, or none of our business
    return result


def strays(mark_name: bytes) -> list[int]:
    """Children of this process that it did not start: the orphans of a job's process that was killed.

    All that a job starts is in sessions other than ours.  So are helpers of our own, but these lead theirs and do not
    carry `mark_name` in their environment.
    """
    session, result = os.getsid(0), []
    for child in children(os.getpid()):
        fields = _stat_fields(child)
        theirs = int(fields[_SESSION_FIELD]) if fields else 0
        if theirs not in (0, session) and (theirs != child or _has_variable(child, mark_name)):
            result.append(child)
    return result


def reap() -> bool:
    """Collects children that have ended; whether any is left."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return True


def signal_all(pids: list[int], number: int) -> list[int]:
    """A signal for these processes and all of their descendants; returns who got it."""
    found = [pid for root in pids for pid in (root, *descendants(root))]
    for pid in found:
        _kill(pid, number)
    return found


def _has_variable(pid: int, name: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return any(variable.startswith(name + b"=") for variable in file.read().split(b"\0"))
    except OSError:
        return False


def _stat_fields(pid: int) -> list[bytes]:
    """Returns the fields behind the name; none if the process has gone.

    Not with `open`, which makes five system calls more: a job's process asks this of every program that it starts.
    """
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        return os.read(fd, _STAT_SIZE).rpartition(b")")[2].split()
    except OSError:
        return []
    finally:
        os.close(fd)


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except OSError:
        return 0


def _kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass
