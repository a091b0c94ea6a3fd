"""The ends of streams for descriptors that somebody gave us.

Contract: O_NONBLOCK is set only on open files that are ours: descriptors that were given to us are shared with
strangers, so a pipe or a terminal is opened again through /proc/self/fd, and a regular file is read at its own offset.
`special_fds` has the ends of all others: it is loaded with the first of them.
"""

from __future__ import annotations

import _socket
import _stat as stat
import fcntl
import os

from cexec.system.io.fds import FileSource, Sink, Source

_NEW_TERMINAL = os.makedev(5, 2)  # /dev/ptmx, the other end of a pseudo-terminal: each open of it makes a new one


def open_source(fd: int) -> Source:
    """A source for a descriptor that somebody gave us."""
    if not _allows(fd, os.O_RDONLY):
        return Source(-1, shared=True)  # its first read fails, whereas poll would never call the descriptor readable
    status = os.fstat(fd)
    mode = status.st_mode
    if stat.S_ISREG(mode):
        return FileSource(fd)
    if stat.S_ISCHR(mode) and status.st_rdev == os.stat(os.devnull).st_rdev:
        return Source(fd, shared=True)  # it never makes a reader wait
    reopened = None if stat.S_ISSOCK(mode) else open_again(fd, status, os.O_RDONLY)
    if reopened is not None and not os.isatty(fd) and not (stat.S_ISFIFO(mode) and _has_name(fd)):
        return Source(reopened)
    from cexec.system.io.special_fds import CautiousSource, NamedPipeSource, SocketSource, TerminalSource

    if stat.S_ISSOCK(mode):
        return SocketSource(fd)
    if os.isatty(fd):
        return TerminalSource(fd, shared=True) if reopened is None else TerminalSource(reopened)
    return CautiousSource(fd, shared=True) if reopened is None else NamedPipeSource(fd, reopened)


def open_sink(fd: int) -> Sink:
    """A sink for a descriptor that somebody gave us."""
    status = os.fstat(fd)
    mode = status.st_mode
    if stat.S_ISREG(mode) or not _allows(fd, os.O_WRONLY):
        return Sink(fd, shared=True)
    if not stat.S_ISSOCK(mode):
        reopened = open_again(fd, status, os.O_WRONLY)
        if reopened is not None:
            return Sink(reopened)
        if not (stat.S_ISFIFO(mode) or os.isatty(fd)):
            return Sink(fd, shared=True)  # /dev/null
    from cexec.system.io.special_fds import CautiousSink, SocketSink

    return SocketSink(fd) if stat.S_ISSOCK(mode) else CautiousSink(fd, shared=True)


def _allows(fd: int, access: int) -> bool:
    """Returns True if the descriptor was opened for this: a pipe's wrong end, opened again, becomes the other end."""
    return fcntl.fcntl(fd, fcntl.F_GETFL) & (os.O_WRONLY | os.O_RDWR) in (access, os.O_RDWR)


def open_again(fd: int, status: os.stat_result, flags: int) -> int | None:
    """The same pipe or terminal as an open file of our own, non-blocking."""
    terminal = os.isatty(fd) and status.st_rdev != _NEW_TERMINAL
    if not (stat.S_ISFIFO(status.st_mode) or terminal):
        return None
    try:
        return os.open(f"/proc/self/fd/{fd}", flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return None


def _has_name(fd: int) -> bool:
    """Returns True if a pipe has been opened by its name."""
    return not os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:")


def half_close(fd: int) -> None:
    """The reader at the other end of a socket sees the end; the other direction goes on."""
    from cexec.system.io.special_fds import borrow

    borrowed = borrow(fd)
    try:
        borrowed.shutdown(_socket.SHUT_WR)
    except OSError:
        pass  # the other end has gone already
    borrowed.detach()


def give_up(fd: int) -> None:
    """Closes a descriptor that somebody gave us; its number stays taken, so that nothing of ours gets it."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, fd, inheritable=False)
    os.close(null)
