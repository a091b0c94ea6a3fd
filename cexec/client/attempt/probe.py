"""Looks at a descriptor above 2 before the job is given away: can its bytes be carried at all?

Contract: `obstacle(fd, status, access)` returns in words why a descriptor is passed over, or "" if it goes with the
job; `access` is its access mode.  Nothing is changed or used up by the look.  Most descriptors that fail it have leaked
into a shell: the caller knows nothing of them and the program does not touch them, but reading them would fail or hang.
What fails after the job was given away is the job's failure.
"""

from __future__ import annotations

import _socket
import _stat as stat
import os
import select

from cexec.system.reason import reason_of

_MASTER = os.makedev(5, 2)  # /dev/ptmx: the other side of a terminal
_MEMORY = frozenset(os.makedev(1, number) for number in (3, 5, 7, 8, 9))  # null, zero, full, random, urandom
_INTERNET = (_socket.AF_UNIX, _socket.AF_INET, _socket.AF_INET6)
_FAILED = select.POLLERR | select.POLLNVAL


def obstacle(fd: int, status: os.stat_result, access: int) -> str:
    """Returns why the descriptor is passed over, or ""."""
    mode = status.st_mode
    if stat.S_ISREG(mode):
        return _obstacle_of_file(fd, access)
    if stat.S_ISSOCK(mode):
        return _obstacle_of_socket(fd)
    if stat.S_ISCHR(mode):
        return _obstacle_of_device(fd, status.st_rdev, access)
    return ""  # a pipe whose other end has gone is as good as one with it: it has ended, or breaks as a pipe does


def _obstacle_of_file(fd: int, access: int) -> str:
    """Namespaces, files of /proc, of tracing and others look like regular files."""
    try:
        position = os.lseek(fd, 0, os.SEEK_CUR)
        if access == os.O_WRONLY:
            return ""
        found = _poll(fd)
        if not found & select.POLLIN:  # a plain file is always readable
            return "a file that cannot be read without waiting"
        if found & select.POLLOUT:  # and writable, while a file of events is not: a look would take one away
            os.pread(fd, 1, position)
    except OSError as error:
        return f"a file that is no plain one: {reason_of(error)}"
    return ""


def _obstacle_of_socket(fd: int) -> str:
    try:
        borrowed = _socket.socket(fileno=fd)
    except OSError as error:
        return f"a socket that tells nothing of itself: {reason_of(error)}"
    try:
        if borrowed.type == _socket.SOCK_DGRAM and borrowed.family not in _INTERNET:
            return "a socket that carries no bytes"
        if borrowed.type not in (_socket.SOCK_STREAM, _socket.SOCK_SEQPACKET, _socket.SOCK_DGRAM):
            return "a socket that carries no bytes"
        try:
            borrowed.getpeername()
        except OSError:
            return "a socket without a peer"
    finally:
        borrowed.detach()
    found = _poll(fd)
    if found & _FAILED or (found & select.POLLHUP and not found & select.POLLIN):
        return "a socket that has failed"
    return ""


def _obstacle_of_device(fd: int, device: int, access: int) -> str:
    if device in _MEMORY:
        return ""
    if _poll(fd) & (_FAILED | select.POLLHUP):
        return "a terminal without its other side" if device == _MASTER else "a device that has failed"
    if access != os.O_WRONLY and device != _MASTER and not os.isatty(fd):
        return "a device that is no terminal"  # reading it may wait for ever, or take away what is meant for others
    return ""


def _poll(fd: int) -> int:
    poll = select.poll()
    poll.register(fd, select.POLLIN | select.POLLOUT)
    return dict(poll.poll(0)).get(fd, 0)
