"""Says if other processes have a file open.

Contract: this needs /proc; without it no process is seen.
"""

from __future__ import annotations

import os
from time import monotonic, sleep

# Seconds (ours) that another process may have an output open.  If a thread of our parent starts a command at this
# moment, the child has all open files of the parent between fork and exec.
BRIEFLY_OPEN = 0.1
LOOK_AGAIN = 0.01  # seconds (ours) between two looks at /proc within that time


def others_keep_open(inode: tuple[int, int]) -> bool:
    """Returns True if another process has this file open for longer than the start of a program takes."""
    until = monotonic() + BRIEFLY_OPEN
    while others_have_open(inode):
        if monotonic() >= until:
            return True
        sleep(LOOK_AGAIN)
    return False


def others_have_open(inode: tuple[int, int]) -> bool:
    """Returns True if a process that is not above us has this file open, because it could write to it.

    A process of another user whose descriptors we may not list counts as not having it.  Without /proc no process is
    seen.
    """
    above = _ancestors()
    for name in os.listdir("/proc") if os.path.isdir("/proc/self/fd") else ():
        if name.isdigit() and int(name) not in above and _has_open(f"/proc/{name}/fd", inode):
            return True
    return False


def _has_open(directory: str, inode: tuple[int, int]) -> bool:
    try:
        for entry in os.listdir(directory):
            try:
                status = os.stat(f"{directory}/{entry}")
            except OSError:
                continue
            if (status.st_dev, status.st_ino) == inode:
                return True
    except OSError:
        pass  # the process has ended, or belongs to another user
    return False


def _ancestors() -> set[int]:
    """Returns the ids of this process and of those above it, which wait for it."""
    found = {os.getpid()}
    pid = os.getppid()
    while pid > 1 and pid not in found:
        found.add(pid)
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                pid = int(file.read().rpartition(b")")[2].split()[1])
        except (OSError, ValueError):
            break
    return found
