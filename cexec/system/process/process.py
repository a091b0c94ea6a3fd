"""Starting programs.

Contract: `resolve` finds an executable once; `spawn` starts it in a session of its own with exactly the descriptors
that it is given, and with the limit of descriptors that this process had at its start; `adopt_orphans` makes this
process the parent of all that its descendants leave behind (Linux), so that `process_tree` can end them.  Raises
`OSError` as the system calls do, `UsageError` from `resolve` only.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import sys
from typing import TYPE_CHECKING

from cexec.errors import UsageError
from cexec.system.io import wakeup
from cexec.system.process import descriptor_limit, executable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

LINUX = sys.platform == "linux"
_SET_CHILD_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of <linux/prctl.h>
_URGENCY = 10  # (ours) of nice(1), by which a worker comes before the programs that it starts
_CANNOT_EXECUTE = 127  # exit status (ours) of a child that has told its errno, and that nobody else sees
# Python, or our own parent, may ignore or block these signals; a program expects them as a shell leaves them.
_DEFAULT_SIGNALS = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})  # nobody can ignore those


def resolve(program: str, search: str | None) -> str:
    """The absolute path of an executable file, looked for in `search` (a PATH) unless it has a slash."""
    candidates = [program] if "/" in program else [os.path.join(d or ".", program) for d in (search or "").split(":")]
    found = ""
    for candidate in candidates:
        if os.path.isfile(candidate):
            found = found or candidate
            if os.access(candidate, os.X_OK):
                if problem := executable.problem_of(candidate, search):
                    raise UsageError(f"{candidate} cannot be started: {problem}")
                return os.path.abspath(candidate)
    if found:
        raise UsageError(f"{found} is not executable; type: chmod +x {found}")
    if "/" in program and os.path.isdir(program):
        raise UsageError(f"{program} is a directory; name a program in it")
    where = "" if "/" in program else f" in {executable.shown_path(search)}"
    raise UsageError(f"{program} is not found{where}; give the program's full path or install it on this machine")


def spawn(
    path: str,
    arguments: Sequence[bytes | str],
    environment: Mapping[bytes, bytes],
    descriptors: Mapping[int, int],
    prepare: Callable[[], None] | None = None,
) -> int:
    """Starts a program whose descriptor n is our `descriptors[n]` and that has no other; returns its process id.

    Descriptors 0 to 2 that are not named are closed, as they were at the client.  `prepare` runs in the new process
    before the program does, for what cannot be inherited otherwise: limits.  A script without `#!` is run by a shell.
    """
    try:
        return _spawn(path, arguments, environment, descriptors, prepare)
    except OSError as error:
        if error.errno != errno.ENOEXEC or not executable.is_script(path):
            raise
    return _spawn(executable.SHELL, ["sh", path, *arguments[1:]], environment, descriptors, prepare)


def _spawn(
    path: str,
    arguments: Sequence[bytes | str],
    environment: Mapping[bytes, bytes],
    descriptors: Mapping[int, int],
    prepare: Callable[[], None] | None,
) -> int:
    highest = max(descriptors, default=0)
    moved: dict[int, int] = {}
    try:
        for number, fd in descriptors.items():
            if fd <= highest:  # it must not be in the way of another one
                moved[number] = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, highest + 1)
        sources = {**descriptors, **moved}
        # The C library refuses a descriptor above the limit, also as the one that is to be copied.
        if prepare is not None or not descriptor_limit.can_be_lowered(max(sources.values(), default=0)):
            return _fork(path, arguments, environment, sources, prepare or _nothing)
        actions: list[tuple[int, int] | tuple[int, int, int]] = []
        actions += [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in sources.items()]
        actions += [(os.POSIX_SPAWN_CLOSE, number) for number in range(3) if number not in sources]
        with descriptor_limit.lowered(highest):
            return os.posix_spawn(
                path,
                list(arguments),
                environment,
                file_actions=actions,
                setsid=True,
                setsigmask=[],
                setsigdef=_DEFAULT_SIGNALS,
            )
    finally:
        for fd in moved.values():
            os.close(fd)


def _nothing() -> None:
    """Prepares a new process for nothing."""


def _fork(
    path: str,
    arguments: Sequence[bytes | str],
    environment: Mapping[bytes, bytes],
    descriptors: Mapping[int, int],
    prepare: Callable[[], None],
) -> int:
    """Starts a program that has to be prepared for, as posix_spawn cannot.  The child reports its errno over a pipe."""
    reading, writing = os.pipe()
    try:
        pid = os.fork()
        if pid == 0:
            _become(path, arguments, environment, descriptors, prepare, writing)
    except OSError:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    with open(reading, "rb") as pipe:
        told = pipe.read()
    if told:
        try:
            os.waitpid(pid, 0)
        except ChildProcessError:
            pass  # a caller that ignores SIGCHLD has no children to wait for
        raise OSError(int(told), os.strerror(int(told)))
    return pid


def _become(
    path: str,
    arguments: Sequence[bytes | str],
    environment: Mapping[bytes, bytes],
    descriptors: Mapping[int, int],
    prepare: Callable[[], None],
    errors: int,
) -> None:
    """Turns the forked child into the program; never returns."""
    number = 0
    try:
        wakeup.detach()
        for one in _DEFAULT_SIGNALS:
            signal.signal(one, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.setsid()
        prepare()
        errors = fcntl.fcntl(errors, fcntl.F_DUPFD_CLOEXEC, max([2, *descriptors]) + 1)
        for target, fd in descriptors.items():
            os.dup2(fd, target)
        for target in range(3):
            if target not in descriptors:
                os.closerange(target, target + 1)
        descriptor_limit.restore(max(descriptors, default=0))
        os.execve(path, list(arguments), environment)
    except OSError as error:
        number = error.errno or 0
    except BaseException:
        pass
    finally:
        os.write(errors, str(number or 22).encode())  # EINVAL stands for what is no system error
        os._exit(_CANNOT_EXECUTE)


def signal_group(leader: int, number: int) -> None:
    """A signal for every process of the program's group; it may have gone already."""
    try:
        os.killpg(leader, number)
    except (ProcessLookupError, PermissionError):
        pass


def adopt_orphans() -> None:
    """From now on this process becomes the parent of its descendants' orphans, so that none can hide from it."""
    prctl(_SET_CHILD_SUBREAPER, 1)


def _load_libc() -> None:
    """Once, and in cservice before it forks."""
    global _libc
    if LINUX and _libc is None:
        import ctypes

        _libc = ctypes.CDLL(None)


_libc: object = None


def prctl(option: int, value: int) -> None:
    """prctl(2) with one argument; nothing where the system has no such call."""
    _load_libc()
    if _libc is not None:
        _libc.prctl(option, value, 0, 0, 0)  # type: ignore[attr-defined]


def become_urgent() -> None:
    """Raises this process's priority above that of its programs, if the system allows that."""
    global _ordinary
    own = os.getpriority(os.PRIO_PROCESS, 0)
    try:
        os.setpriority(os.PRIO_PROCESS, 0, own - _URGENCY)
    except OSError:
        return
    _ordinary = own


def become_ordinary() -> None:
    """Takes that back, in a process that was forked since."""
    if _ordinary is not None:
        os.setpriority(os.PRIO_PROCESS, 0, _ordinary)


_ordinary: int | None = None  # the nice value that this process was started with, while it has another


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
