"""Process trees: what a program has started, and the end of all of it.

Contract: a process that has called `process.adopt_orphans` finds every descendant of its program here, grandchildren
and double forks too, and ends them with `TreeEnd`: TERM, a grace time, KILL.  Nothing here waits, except `end_tree` and
`wait_for_end`.  Processes end and appear while one looks: every list is a guess, and only `TreeEnd` and the parent's
wait know the end.
Where there is no /proc the process group is all that can be reached.  A kernel without CONFIG_PROC_CHILDREN has no
lists of children; then every process is asked for its parent.
"""

from __future__ import annotations

import enum
import os
import signal
import time
from typing import TYPE_CHECKING, Protocol

from cexec.system.process.process import signal_group

if TYPE_CHECKING:
    from collections.abc import Sequence

_LOOK_INTERVAL = 0.01  # seconds (ours) between two looks at a tree that is ending
# Seconds (ours) of KILL, of which a busy host leaves us few: what is left then is another user's, or waits for a disk.
_GIVE_UP = 30.0
_KILL_ROUNDS = 50  # (ours) at once, as long as each finds processes that the one before has not seen
_STOP_ROUNDS = 50  # (ours) looks for processes that were started while others were being stopped
_STAT_SIZE = 4096  # bytes (ours): more than /proc/PID/stat has
# Bytes: more than the kernel lets a program be started with, 6 MB with its arguments.  A process can show a terabyte
# there later (PR_SET_MM_MAP), which would be read in vain.
_MOST_ENVIRONMENT = 8 << 20
_STATE_FIELD, _PARENT_FIELD, _START_FIELD = 0, 1, 19  # of /proc/PID/stat behind the name, proc(5)
PROC = "/proc"


class ProcView(enum.Enum):
    """What /proc tells of the processes here."""

    CHILDREN = enum.auto()  # the children of each process
    PARENTS = enum.auto()  # the parent of each process: a kernel without CONFIG_PROC_CHILDREN
    NOTHING = enum.auto()


class Killable(Protocol):
    """A control group, see `job_group` and `memory_group`."""

    def kill_others(self) -> None:
        """Kills everything in it but the calling process."""


class TreeEnd:
    """Ends the descendants of this process: TERM when it is made, KILL after `grace` seconds, until none is left.

    `groups` are those in which all of them are, if there are any: then none can fork faster than it is killed.  Who
    drives it reaps the children, and is done when there are none or when it has `given_up`.
    """

    def __init__(
        self, leader: int, grace: float, now: float, *, wrapper: int = 0, groups: Sequence[Killable] = ()
    ) -> None:
        self.given_up = False
        self._leader = leader
        self._groups = groups
        self._deadline = now + grace
        self._last = self._deadline + _GIVE_UP
        signal_tree(leader, signal.SIGTERM, wrapper=wrapper)
        signal_tree(leader, signal.SIGCONT)  # a stopped process takes the TERM only when it goes on

    def next_timeout(self) -> float:
        return self._deadline

    def handle_timeout(self, now: float) -> None:
        if now >= self._deadline:
            for one in self._groups:
                one.kill_others()
            kill_tree(self._leader)
            self._deadline = now + _LOOK_INTERVAL  # what was forked meanwhile
            self.given_up = now >= self._last


def end_tree(leader: int, grace: float, *, wrapper: int = 0, groups: Sequence[Killable] = ()) -> None:
    """Ends everything that is left below this process, and returns when all is reaped."""
    if not reap():
        return
    ending = TreeEnd(leader, grace, time.monotonic(), wrapper=wrapper, groups=groups)
    while reap() and not ending.given_up:
        ending.handle_timeout(time.monotonic())
        time.sleep(_LOOK_INTERVAL)


def wait_for_end(seconds: float) -> None:
    """Reaps until nothing is left below this process, or the time is over."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and reap():
        time.sleep(_LOOK_INTERVAL)


def signal_tree(leader: int, number: int, *, wrapper: int = 0) -> None:
    """A signal for every descendant of this process, by whole groups, which the kernel does without a gap.

    A `wrapper` is a descendant that does not get it, see `sandbox`.
    """
    found = [pid for pid in descendants(os.getpid()) if pid != wrapper]
    groups = {one for one in map(group, found) if one} - {os.getpgrp(), group(wrapper) if wrapper else 0}
    for one in groups:
        signal_group(one, number)
    if not found and leader and not trees_are_seen():
        signal_group(leader, number)
    for pid in found:
        if group(pid) not in groups:
            _kill(pid, number)


def kill_tree(leader: int) -> None:
    """Kills every descendant, also those that fork and end at once so that they always have another number."""
    seen: set[int] = set()
    for _ in range(_KILL_ROUNDS):
        signal_tree(leader, signal.SIGKILL)
        found = set(descendants(os.getpid()))
        if found <= seen:
            return
        seen |= found


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
    if not reaped or any(group(pid) == leader for pid in descendants(os.getpid())):
        signal_group(leader, number)


def descendants(root: int) -> list[int]:
    """All processes below `root`, parents before children; empty where there is no /proc."""
    found: list[int] = []
    waiting = [root]
    by_parent = _children_by_parent() if _view() is ProcView.PARENTS else None
    while waiting:
        pid = waiting.pop()
        for child in _listed_children(pid) if by_parent is None else by_parent.get(pid, ()):
            found.append(child)
            waiting.append(child)
    return found


def children(pid: int) -> list[int]:
    return _children_by_parent().get(pid, []) if _view() is ProcView.PARENTS else _listed_children(pid)


def trees_are_seen() -> bool:
    """True if the descendants of a process can be found here."""
    return _view() is not ProcView.NOTHING


def _view() -> ProcView:
    """It is asked once, because no process moves to another view."""
    global _known_view
    if _known_view is None:
        _known_view = _find_view()
    return _known_view


def _find_view() -> ProcView:
    own = str(os.getpid())
    try:
        shown = os.readlink(f"{PROC}/self")
    except OSError:
        shown = ""
    if shown != own:  # there is no /proc, or it is that of another PID namespace, where numbers mean other processes
        return ProcView.NOTHING
    return ProcView.CHILDREN if os.path.exists(f"{PROC}/{own}/task/{own}/children") else ProcView.PARENTS


_known_view: ProcView | None = None


def _children_by_parent() -> dict[int, list[int]]:
    """Asks each process for its parent, which costs some 20 microseconds a process."""
    result: dict[int, list[int]] = {}
    try:
        names = os.listdir(PROC)
    except OSError:
        return result
    for name in names:
        fields = _stat_fields(int(name)) if name.isascii() and name.isdigit() else []
        if fields:
            result.setdefault(int(fields[_PARENT_FIELD]), []).append(int(name))
    return result


def _listed_children(pid: int) -> list[int]:
    result: list[int] = []
    if _view() is ProcView.NOTHING:
        return result
    try:
        for thread in os.listdir(f"{PROC}/{pid}/task"):
            with open(f"{PROC}/{pid}/task/{thread}/children", "rb") as file:
                result += map(int, file.read().split())
    except OSError:
        pass  # gone meanwhile, or not Linux
    return result


def start_time(pid: int) -> int:
    """When a process was started, in the kernel's ticks: with its number the name of a process.  0: it has ended."""
    fields = _stat_fields(pid)
    return 0 if not fields or fields[_STATE_FIELD] in (b"Z", b"X") else int(fields[_START_FIELD])


def is_stopped(pid: int) -> bool:
    """Returns True if a signal has stopped the process, not a debugger."""
    return _stat_fields(pid)[_STATE_FIELD : _STATE_FIELD + 1] == [b"T"]


def marked(mark: bytes) -> list[int]:
    """The processes of this user that were started with this NAME=VALUE in their environment."""
    user, wanted, result = os.getuid(), b"\0%b\0" % mark, []
    for name in os.listdir("/proc") if trees_are_seen() else []:
        if not name.isdigit():
            continue
        try:
            if os.stat(f"/proc/{name}").st_uid != user:
                continue
            with open(f"/proc/{name}/environ", "rb") as file:
                if wanted in b"\0%b\0" % file.read(_MOST_ENVIRONMENT):
                    result.append(int(name))
        except OSError:
            pass  # gone meanwhile, or none of our business
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


def group(pid: int) -> int:
    """The process group; 0 if the process has gone."""
    try:
        return os.getpgid(pid)
    except OSError:
        return 0


def _kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass
