"""Programs and their process trees.

Contract: `resolve` finds an executable once; `spawn` starts it in a session of its own with exactly the descriptors
that it is given; `end_tree` ends every descendant of this process, grandchildren and double forks too, because the
process that calls `adopt_orphans` first becomes the parent of all that its children leave behind (Linux; elsewhere
the process group is all that can be reached).  Raises `OSError` as the system calls do, `UsageError` from `resolve`
only.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time

from cexec.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

LINUX = sys.platform == "linux"
_SET_CHILD_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of <linux/prctl.h>
_REAP_INTERVAL = 0.01  # seconds (ours) between two looks at a tree that is ending
# Python ignores or blocks these; a program expects them as a shell leaves them.
_DEFAULT_SIGNALS = [
    getattr(signal, name)
    for name in ("SIGPIPE", "SIGXFSZ", "SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGCHLD")
]


def resolve(program: str, search: str | None) -> str:
    """The absolute path of an executable file, looked for in `search` (a PATH) unless it has a slash."""
    candidates = [program] if "/" in program else [os.path.join(d or ".", program) for d in (search or "").split(":")]
    found = ""
    for candidate in candidates:
        if os.path.isfile(candidate):
            found = found or candidate
            if os.access(candidate, os.X_OK):
                return os.path.abspath(candidate)
    if found:
        raise UsageError(f"{found} is not executable; type: chmod +x {found}")
    where = "" if "/" in program else f" in the PATH {search}"
    raise UsageError(f"{program} is not found{where}; give the program's full path or install it on this machine")


def spawn(
    executable: str,
    arguments: list[bytes | str] | list[str],
    environment: Mapping[bytes, bytes],
    descriptors: Mapping[int, int],
) -> int:
    """Starts a program whose descriptor n is our `descriptors[n]` and that has no other; returns its process id.

    Descriptors 0 to 2 that are not named are closed, as they were at the client.
    """
    highest = max(descriptors, default=0)
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, highest + 1) for fd in descriptors.values()]
    actions: list[tuple[int, int] | tuple[int, int, int]] = []
    actions += [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in zip(descriptors, moved, strict=True)]
    actions += [(os.POSIX_SPAWN_CLOSE, number) for number in range(3) if number not in descriptors]
    try:
        return os.posix_spawn(
            executable,
            arguments,
            environment,
            file_actions=actions,
            setsid=True,
            setsigmask=[],
            setsigdef=_DEFAULT_SIGNALS,
        )
    finally:
        for fd in moved:
            os.close(fd)


def signal_group(leader: int, number: int) -> None:
    """A signal for every process of the program's group; it may have gone already."""
    try:
        os.killpg(leader, number)
    except (ProcessLookupError, PermissionError):
        pass


def adopt_orphans() -> None:
    """From now on this process becomes the parent of its descendants' orphans, so that none can hide from it."""
    _prctl(_SET_CHILD_SUBREAPER, 1)


def load_prctl() -> None:
    """Loads what `adopt_orphans` needs, once, before the process forks."""
    global _libc
    if LINUX and _libc is None:
        import ctypes

        _libc = ctypes.CDLL(None)


_libc: object = None


def _prctl(option: int, value: int) -> None:
    load_prctl()
    if _libc is not None:
        _libc.prctl(option, value, 0, 0, 0)  # type: ignore[attr-defined]


def end_tree(leader: int, grace: float) -> None:
    """Ends everything that is left of the program: TERM, `grace` seconds, KILL; returns when all is reaped."""
    if not _reap():
        return
    deadline = time.monotonic() + grace
    _signal_all(leader, signal.SIGTERM)
    _signal_all(leader, signal.SIGCONT)  # a stopped process takes the TERM only when it goes on
    while _reap():
        if time.monotonic() >= deadline:
            _signal_all(leader, signal.SIGKILL)
        time.sleep(_REAP_INTERVAL)


def _reap() -> bool:
    """Collects children that have ended; whether any is left."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return True


def _signal_all(leader: int, number: int) -> None:
    signal_group(leader, number)
    for pid in descendants(os.getpid()):
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            pass


def descendants(root: int) -> list[int]:
    """All processes below `root`, parents before children; empty where there is no /proc."""
    found: list[int] = []
    waiting = [root]
    while waiting:
        for child in _children(waiting.pop()):
            found.append(child)
            waiting.append(child)
    return found


def _children(pid: int) -> list[int]:
    result: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                result += map(int, file.read().split())
    except OSError:
        pass  # gone meanwhile, or not Linux
    return result


def close_on_exec_from(first: int) -> None:
    """Descriptors that this process was started with are nobody else's business: no program inherits them."""
    try:
        open_now = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        open_now = list(range(first, 256))
    for fd in open_now:
        if fd >= first:
            try:
                os.set_inheritable(fd, False)
            except OSError:
                pass
