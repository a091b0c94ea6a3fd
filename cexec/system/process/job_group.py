"""Control groups of version 2, by which the kernel kills all processes of a job at once, however they hide.

Contract: `claim_place` is called once at the start of cservice, after `memory_group.claim_parent` and as root before
root's rights are given up; `place` is None where no group can be made: it takes root or a delegated subtree (systemd:
`Delegate=`), and Linux 5.14 for `cgroup.kill`.  Each job process has a `JobGroup`, in which it lives itself together
with everything that it starts, so a job costs nothing: its process joins once.  `kill_others` is for the process that
lives in the group, `kill` and `remove` are for its supervisor.  cgroups(7), Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import os

from cexec.system.process.memory_group import write_value

PREFIX = "cexec-job-"
_OWN_PREFIX = "cexec-service-"  # of the group for another user, in which cservice itself lives then
_KILL = "cgroup.kill"
_DELEGATED = ("", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads")  # what its user must own, cgroups(7)

place: str | None = None  # the directory in which groups for job processes can be made


class JobGroup:
    """One job process's group.  `path` is its directory."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path

    @classmethod
    def create(cls, name: str) -> JobGroup | None:
        """Returns None where there can be none."""
        if place is None:
            return None
        path = f"{place}/{PREFIX}{name}"
        try:
            os.mkdir(path)
        except OSError:
            return None
        return cls(path)

    def join(self) -> bool:
        """Puts the calling process in; what it starts will be in there too."""
        return _write(f"{self.path}/cgroup.procs", "0")

    def kill(self) -> None:
        """Kills everything in it."""
        _write(f"{self.path}/{_KILL}", "1")

    def kill_others(self) -> None:
        """Kills everything in it but the calling process, which steps aside for a moment."""
        if _write(f"{os.path.dirname(self.path)}/cgroup.procs", "0"):
            self.kill()
            self.join()

    def remove(self) -> bool:
        """Returns False if one of its processes has not ended yet."""
        try:
            os.rmdir(self.path)
        except FileNotFoundError:
            pass
        except OSError:
            return False
        return True


def groups_of(supervisor: int) -> list[JobGroup]:
    """The groups that a supervisor with this process id has made; it includes the id in their names."""
    prefix = f"{PREFIX}{supervisor}-"
    names = [] if place is None else os.listdir(place)
    return [JobGroup(f"{place}/{name}") for name in names if name.startswith(prefix)]


def claim_place(
    user: int | None = None, *, mounts: str = "/proc/self/mountinfo", own_groups: str = "/proc/self/cgroup"
) -> None:
    """Finds the place; `user` is the one whom this process becomes after that."""
    global place
    own = _own_group(mounts, own_groups)
    place = own
    if own is None or not os.access(own, os.W_OK) or not os.access(f"{own}/cgroup.procs", os.W_OK):
        place = None
    else:
        _remove_stale(own)
        place = own if user is None else _made_for(user, own)
    if place is not None and not _works():
        place = None


def _made_for(user: int, own: str) -> str | None:
    """Makes a group that belongs to the user, and moves this process there: its own group must be below it."""
    path = f"{own}/{_OWN_PREFIX}{os.getpid()}"
    try:
        os.mkdir(path)
        for name in _DELEGATED:
            os.chown(f"{path}/{name}", user, -1)
        write_value(f"{path}/cgroup.procs", "0")
    except OSError:
        return None
    return path


def _remove_stale(own: str) -> None:
    """Removes the empty groups of services that have been killed, or could not remove their own."""
    for name in os.listdir(own):
        pid = name.removeprefix(PREFIX).partition("-")[0] if name.startswith(PREFIX) else ""
        if name.startswith(_OWN_PREFIX) or (pid.isdigit() and not os.path.exists(f"/proc/{pid}")):
            try:
                os.rmdir(f"{own}/{name}")
            except OSError:
                pass  # it has processes


def _works() -> bool:
    """Returns True if a group can be made here and has `cgroup.kill`."""
    trial = JobGroup.create(f"{os.getpid()}-trial")
    if trial is None:
        return False
    try:
        return os.path.exists(f"{trial.path}/{_KILL}")
    finally:
        trial.remove()


def _own_group(mounts: str, own_groups: str) -> str | None:
    """Returns the directory of the group of version 2 in which this process lives."""
    try:
        with open(own_groups) as file:
            path = next((line.rstrip("\n")[3:] for line in file if line.startswith("0::/")), None)
        with open(mounts) as file:
            lines = [line.split() for line in file]
    except OSError:
        return None  # not Linux
    for words in lines:
        root, point = words[3], words[4]
        if path is not None and "cgroup2" in words[words.index("-") :][1:2] and _is_below(path, root):
            return os.path.normpath(f"{point}/{os.path.relpath(path, root)}")
    return None


def _is_below(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")


def _write(path: str, text: str) -> bool:
    try:
        write_value(path, text)
    except OSError:
        return False
    return True
