"""Which of the client's descriptors the program gets, in which direction, and what carries their bytes here.

Contract: `inspect` looks at what is open (to be called before anything else is opened) and returns `Descriptor`s; those
that are one open file (`2>&1`) are one stream, so that the order of what the program writes to both is kept.  Never
forwarded: the key's descriptor, make's jobserver, listening sockets, epoll and the like, directories.
docs/protocol.md section 4.2 (GO).
"""

from __future__ import annotations

import _socket
import _stat as stat
import os
import sys

from cexec.protocol.frames import PIPE, READS, SOCKET, WRITES, Stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

STANDARD = 3  # descriptors 0, 1 and 2 have one direction whatever they were opened for
_LOCKED_FROM = 1 << 61  # (ours) where no file has bytes; our process id added, a place that is ours alone
_ACCESS_MODE = os.O_RDONLY | os.O_WRONLY | os.O_RDWR


STANDARD_NAMES = {0: "standard input", 1: "standard output", 2: "standard error"}


def name_of(descriptor: int) -> str:
    """What a message calls a descriptor."""
    return STANDARD_NAMES.get(descriptor, f"descriptor {descriptor}")


class Descriptor:
    """One descriptor.  `same_as`: the lowest one that is the same open file in the same direction, or itself."""

    __slots__ = ("append", "directions", "fd", "inode", "mode", "same_as")

    def __init__(self, fd: int, directions: int, mode: int, inode: tuple[int, int], append: bool) -> None:
        self.fd = fd
        self.directions = directions
        self.mode = mode
        self.inode = inode
        self.append = append
        self.same_as = fd

    @property
    def regular(self) -> bool:
        return stat.S_ISREG(self.mode)

    def stream(self) -> Stream:
        kind = SOCKET if self.directions == READS | WRITES else PIPE
        return Stream(self.fd, self.directions, kind, self.same_as)


def inspect(maximum: int, excluded: Iterable[int], environ: Mapping[str, str]) -> list[Descriptor]:
    """The descriptors from 0 to `maximum` that the program is to have, in ascending order."""
    leave_out = {*excluded, *_jobserver(environ)}
    found: list[Descriptor] = []
    for fd in _open_descriptors(maximum):
        if fd in leave_out:
            continue
        descriptor = _look_at(fd)
        if descriptor is not None:
            descriptor.same_as = next((other.fd for other in found if _same_open_file(other, descriptor)), fd)
            found.append(descriptor)
    return found


def occupy_standard() -> None:
    """A descriptor of ours must never become a standard one: what is said to the person would go into a connection."""
    for fd in range(STANDARD):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free, which is this one


def _open_descriptors(maximum: int) -> list[int]:
    try:
        listed = os.listdir("/proc/self/fd")
    except OSError:
        return list(range(maximum + 1))
    return sorted(fd for fd in map(int, listed) if fd <= maximum)


def _look_at(fd: int) -> Descriptor | None:
    import fcntl

    try:
        status = os.fstat(fd)
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    except OSError:
        return None  # closed, or the directory that listed it
    if stat.S_ISDIR(status.st_mode) or flags & getattr(os, "O_PATH", 0):
        return None
    if stat.S_ISSOCK(status.st_mode) and _listens(fd):
        return None
    if not stat.S_IFMT(status.st_mode):
        return None  # an epoll, eventfd, timerfd and the like have no type
    access = flags & _ACCESS_MODE
    directions = {os.O_RDONLY: READS, os.O_WRONLY: WRITES}.get(access, READS | WRITES)
    if fd < STANDARD:
        if fd and directions == READS:
            return None  # the program would fail to write to it, and so it will to one that is closed
        directions = READS if fd == 0 else WRITES
    inode = (status.st_dev, status.st_ino)
    return Descriptor(fd, directions, status.st_mode, inode, bool(flags & os.O_APPEND))


def _listens(fd: int) -> bool:
    borrowed = _socket.socket(fileno=fd)
    try:
        return bool(borrowed.getsockopt(_socket.SOL_SOCKET, _socket.SO_ACCEPTCONN))
    except OSError:
        return False
    finally:
        borrowed.detach()


def _same_open_file(one: Descriptor, other: Descriptor) -> bool:
    """Whether two descriptors share one open file: for a pipe or a terminal the same inode is as good."""
    if one.inode != other.inode or one.directions != other.directions or one.append != other.append:
        return False
    if not one.regular or one.append:
        return True
    if os.lseek(one.fd, 0, os.SEEK_CUR) != os.lseek(other.fd, 0, os.SEEK_CUR):
        return False
    same = _share_locks(one, other)
    # Where that cannot be told, two outputs at one offset are better taken for `2>&1` than written over one another.
    return one.directions == WRITES if same is None else same


def _share_locks(one: Descriptor, other: Descriptor) -> bool | None:
    """Whether a lock of one open file's (not of a process's) is the other's own; None where there are none.

    That it moves both offsets would tell as well, but strangers who share the file may be writing at this moment.
    """
    import fcntl

    if not hasattr(fcntl, "F_OFD_SETLK") or sys.maxsize < 1 << 32:
        return None  # not Linux, or another layout of the struct
    kind = fcntl.F_RDLCK if one.directions == READS else fcntl.F_WRLCK
    where = _LOCKED_FROM + os.getpid()
    try:
        fcntl.fcntl(one.fd, fcntl.F_OFD_SETLK, _lock(kind, where))
        found = fcntl.fcntl(other.fd, fcntl.F_OFD_GETLK, _lock(fcntl.F_WRLCK, where))
        fcntl.fcntl(one.fd, fcntl.F_OFD_SETLK, _lock(fcntl.F_UNLCK, where))
    except OSError:
        return None  # a file system without locks, or somebody has locked all of the file
    return found[:2] == _lock(fcntl.F_UNLCK, where)[:2]


def _lock(kind: int, where: int) -> bytes:
    """A struct flock of one byte: type, whence, padding, start, length, process id, padding."""
    numbers = kind.to_bytes(2, sys.byteorder) + bytes(6) + where.to_bytes(8, sys.byteorder)
    return numbers + (1).to_bytes(8, sys.byteorder) + bytes(8)


def _jobserver(environ: Mapping[str, str]) -> set[int]:
    """The descriptors through which make counts its jobs: they are between make and its children."""
    result: set[int] = set()
    for word in environ.get("MAKEFLAGS", "").split():
        name, _, value = word.partition("=")
        if name in ("--jobserver-auth", "--jobserver-fds"):
            result.update(int(part) for part in value.split(",") if part.isdigit())
    return result
