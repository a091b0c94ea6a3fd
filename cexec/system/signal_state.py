"""The signal state that a command starts with; its caller may have blocked or ignored signals.

Contract: a command, and a process of ours that does nothing else, calls `set_at_start` before it starts any process.
While SIGCHLD is ignored the kernel throws exit statuses away, and `subprocess` then reports 0; while it is blocked
nobody is told that a child has ended; blocked SIGINT and SIGTERM end nothing.  Signals other than SIGCHLD stay ignored
if they were: nohup(1) and a shell's background jobs rely on that.
"""

from __future__ import annotations

import _signal  # `signal` costs 4 ms at start, which `cexec` has not


def set_at_start() -> None:
    """Blocks no signal and gives SIGCHLD its default meaning; to be called by the main thread."""
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
