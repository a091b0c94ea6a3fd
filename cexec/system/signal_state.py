"""The signal state that a command starts with; its caller may have blocked or ignored signals.

Contract: a command, and a process of ours that does nothing else, calls `set_at_start` before it starts any process.
While SIGCHLD is ignored the kernel throws exit statuses away, and `subprocess` then reports 0; while it is blocked
nobody is told that a child has ended; blocked SIGINT and SIGTERM end nothing.  Signals other than SIGCHLD stay ignored
if they were, since nohup(1) and a shell's background jobs rely on that; services hear SIGTERM all the same.
"""

from __future__ import annotations

import _signal  # `signal` costs 4 ms at start, which `cexec` has not
import os


def ignore(*numbers: int) -> None:
    """These signals do nothing from now on.  The programs that `process.spawn` starts do not inherit that."""
    for number in numbers:
        _signal.signal(number, _signal.SIG_IGN)


def has_terminal() -> bool:
    """Returns True if this process has a controlling terminal: SIGHUP then says that it has gone."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def set_at_start() -> None:
    """Blocks no signal and gives SIGCHLD its default meaning; to be called by the main thread."""
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
