"""Memory limits for all processes of a job together: control groups of Linux, where this user may make them.

Contract: `claim_parent` is called once at the start of cservice and finds the place; `MemoryGroup.create` makes a group
there for one job.  Version 2 needs a delegated subtree (systemd: `Delegate=memory`) in which no other process lives,
because only leaves may have processes; version 1 needs a writable group of our own.  None where neither is there, and
then limits are each process's own.  cgroups(7), Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
"""

from __future__ import annotations

import os

ROOT = "/sys/fs/cgroup"
_OWN_LEAF = "cexec-service"  # where cservice itself lives under version 2
_PREFIX = "cexec-job-"

parent: str | None = None  # what `claim_parent` found


class MemoryGroup:
    """One job's group.  `path` is its directory."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._second = os.path.exists(f"{path}/memory.max")

    @classmethod
    def create(cls, name: str, limit: int) -> MemoryGroup | None:
        """A group that may use `limit` bytes, swap included; None where there can be none."""
        if parent is None:
            return None
        path = f"{parent}/{_PREFIX}{name}"
        try:
            os.mkdir(path)
        except OSError:
            return None
        group = cls(path)
        try:
            group.set_limit(limit)
        except OSError:
            group.remove()
            return None
        return group

    def join(self) -> None:
        """Puts the calling process in; what it starts will be in there too."""
        write_value(f"{self.path}/cgroup.procs", "0")

    def killed(self) -> int:
        """Returns the number of processes that the kernel has ended because the group was at its limit."""
        name = "memory.events" if self._second else "memory.oom_control"
        try:
            with open(f"{self.path}/{name}") as file:
                words = [line.split() for line in file]
        except OSError:
            return 0
        return next((int(pair[1]) for pair in words if pair[:1] == ["oom_kill"]), 0)

    def kill_others(self) -> None:
        """Kills everything in it, where the kernel can; the calling process has not joined it."""
        if self._second:
            _try_to_write(f"{self.path}/cgroup.kill", "1")

    def remove(self) -> None:
        """Removes the group, once its processes have ended."""
        try:
            os.rmdir(self.path)
        except OSError:
            pass  # one cannot be ended: the group stays as long as it does

    def set_limit(self, limit: int) -> None:
        if self._second:
            write_value(f"{self.path}/memory.max", str(limit))
            _try_to_write(f"{self.path}/memory.swap.max", "0")
            _try_to_write(f"{self.path}/memory.oom.group", "1")  # a job without one of its processes is no job
        else:
            write_value(f"{self.path}/memory.limit_in_bytes", str(limit))
            _try_to_write(f"{self.path}/memory.memsw.limit_in_bytes", str(limit))


def claim_parent(root: str = ROOT, own_groups: str = "/proc/self/cgroup") -> None:
    """Finds where groups for jobs can be made; under version 2 this process moves into a leaf of its own first."""
    global parent
    parent = None
    try:
        with open(own_groups) as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError:
        return  # not Linux
    for _, controllers, path in lines:
        place = os.path.normpath(f"{root}/{'memory' if controllers else ''}{path}")
        first = "memory" in controllers.split(",") and os.access(place, os.W_OK)
        if first or (not controllers and _delegated(place) and _make_room(place)):
            parent = place


def _delegated(place: str) -> bool:
    """Returns True if this user may divide the group."""
    return "memory" in _words(f"{place}/cgroup.controllers") and os.access(f"{place}/cgroup.subtree_control", os.W_OK)


def _make_room(place: str) -> bool:
    """Hands the memory controller down to the groups below, for which no process may be left in this one."""
    if "memory" in _words(f"{place}/cgroup.subtree_control"):
        return True
    leaf = f"{place}/{_OWN_LEAF}"
    try:
        os.makedirs(leaf, exist_ok=True)
        write_value(f"{leaf}/cgroup.procs", "0")
        write_value(f"{place}/cgroup.subtree_control", "+memory")
    except OSError:  # somebody else lives here: back to where we were
        _try_to_write(f"{place}/cgroup.procs", "0")
        try:
            os.rmdir(leaf)
        except OSError:
            pass
        return False
    return True


def _words(path: str) -> list[str]:
    try:
        with open(path) as file:
            return file.read().split()
    except OSError:
        return []


def write_value(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def _try_to_write(path: str, text: str) -> None:
    try:
        write_value(path, text)
    except OSError:
        pass
