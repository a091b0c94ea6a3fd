"""A command as the first process of a container, PID 1, which has duties that no other process has.

Contract: `stand_aside` returns at once, unless this process is PID 1.  Then it forks, and returns in the child, which
is an ordinary process: a signal whose default action ends it does end it, and the processes of others, such as those of
`docker exec`, do not become its children.  PID 1 keeps no descriptor.  It passes signals on, collects the processes
that others leave, and ends as the child does, by which the kernel ends everything in the container.  It is called
before anything else is started or opened.
"""

from __future__ import annotations

import os
import signal

_FIRST = 1
_PASSED_ON = {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2,
              signal.SIGCONT, signal.SIGTSTP, signal.SIGWINCH}  # fmt: skip
_BY_KERNEL = 0x80  # SI_KERNEL of <bits/siginfo-consts.h>: from the terminal, whose whole foreground group has got it
_SIGNALLED = 128  # exit status of a process that a signal has ended, as shells have it, less the number
_HIGHEST_DESCRIPTOR = 1 << 20


def stand_aside() -> None:
    if os.getpid() != _FIRST:
        return
    waited = _PASSED_ON | {signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, waited)  # none is lost: while it is blocked it is not ignored
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    status = 1
    try:
        os.closerange(0, _HIGHEST_DESCRIPTOR)
        os.chdir("/")
        status = _serve(child, waited)
    finally:
        os._exit(status)


def _serve(child: int, waited: set[signal.Signals]) -> int:
    """Returns the exit status of the child, once it has ended."""
    while True:
        ended = _reap(child)
        if ended is not None:
            code = os.waitstatus_to_exitcode(ended)
            return code if code >= 0 else _SIGNALLED - code
        found = signal.sigwaitinfo(waited)
        if found.si_signo in _PASSED_ON and found.si_code != _BY_KERNEL:
            os.kill(child, found.si_signo)  # it is our child, and not reaped yet


def _reap(child: int) -> int | None:
    """Collects all that have ended; returns the wait status of the child if it is among them."""
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == child:
            return status
        if pid == 0:
            return None
