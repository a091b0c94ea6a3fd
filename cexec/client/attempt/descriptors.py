"""The client's descriptors that the program gets, their directions, and the streams that carry their bytes.

Contract: `inspect` returns a `Descriptor` for each open descriptor that is forwarded; it must be called before we open
anything else.  Descriptors of one open file (`2>&1`) share one stream, which keeps the order of the program's writes.
Two streams never read one open file, because each would silently get a part of the input.  The key's descriptor,
jobservers, listening sockets, epoll and the like, and directories are never forwarded, nor is a descriptor above 2 in
which `probe` sees an obstacle; `look_again` does that once more.  docs/protocol.md section 4.2 (GO).
"""

from __future__ import annotations

import _socket
import _stat as stat
import os
import sys

from cexec.protocol.connection.options import PIPE, READS, SOCKET, WRITES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cexec.protocol.connection.frames import Stream

STANDARD = 3  # descriptors 0, 1 and 2 have one direction whatever they were opened for
_LOCKED_FROM = 1 << 61  # (ours) an offset beyond all files; our process id is added, so no other client locks it
_ACCESS_MODE = os.O_RDONLY | os.O_WRONLY | os.O_RDWR
_GET_TERMINAL = 0x80045432  # TIOCGDEV of <asm-generic/ioctls.h>: the number of the terminal behind /dev/tty, too
_TERMINAL = -1  # (ours) stands in a terminal's identity where a file has the number of its file system
_JOBSERVER = "--jobserver-"  # auth=R,W or auth=fifo:PATH, and fds=R,W of old versions
_NAMED = "fifo:"
_MASTER = os.makedev(5, 2)  # /dev/ptmx: the other side of a terminal, whose bytes are not those of the terminal itself


STANDARD_NAMES = {0: "standard input", 1: "standard output", 2: "standard error"}


def name_of(descriptor: int) -> str:
    """Returns the name of a descriptor for messages."""
    return STANDARD_NAMES.get(descriptor, f"descriptor {descriptor}")


class Descriptor:
    """One descriptor.  `same_as`: the lower one whose stream it shares, or itself.  `inode`: the file's identity.

    `shares_offset`: the program's reading moves the offset of this file, perhaps through another descriptor.
    """

    __slots__ = ("access", "append", "directions", "fd", "inode", "mode", "same_as", "shares_offset")

    def __init__(self, fd: int, directions: int, mode: int, inode: tuple[int, int], flags: int) -> None:
        self.fd = fd
        self.directions = directions
        self.mode = mode
        self.inode = inode
        self.access = flags & _ACCESS_MODE
        self.append = bool(flags & os.O_APPEND)
        self.same_as = fd
        self.shares_offset = self.regular and bool(directions & READS)

    @property
    def regular(self) -> bool:
        return stat.S_ISREG(self.mode)

    def stream(self) -> Stream:
        from cexec.protocol.connection.frames import Stream  # after the announcement: it costs 0.7 ms

        kind = SOCKET if self.directions == READS | WRITES else PIPE
        return Stream(self.fd, self.directions, kind, self.same_as)


def inspect(
    maximum: int, excluded: Iterable[int], environ: Mapping[str, str], passed_over: list[str] | None = None
) -> list[Descriptor]:
    """Returns the descriptors from 0 to `maximum` that the program is to have, in ascending order.

    `passed_over` gets a text for each one above 2 that it is not to have because of what it is.
    """
    leave_out = {*excluded}
    jobserver = _jobserver(environ)
    found: list[Descriptor] = []
    for fd in _open_descriptors(maximum):
        if fd in leave_out:
            continue
        descriptor = _look_at(fd, [] if passed_over is None else passed_over)
        if descriptor is not None and descriptor.inode not in jobserver:
            _join(descriptor, [other for other in found if other.same_as == other.fd])
            found.append(descriptor)
    return found


def look_again(descriptors: list[Descriptor], passed_over: list[str]) -> list[Descriptor]:
    """Returns those that can still be carried: the last look before the job is given away."""
    gone = {one.fd for one in descriptors if one.fd >= STANDARD and _look_at(one.fd, passed_over) is None}
    return [one for one in descriptors if one.fd not in gone and one.same_as not in gone]


def _join(descriptor: Descriptor, streams: list[Descriptor]) -> None:
    """Decides which stream carries this descriptor's bytes: one of `streams`, or one of its own."""
    sharing = [other for other in streams if _same_open_file(other, descriptor)]
    if descriptor.regular and any(other.directions & READS for other in (*sharing, descriptor)):
        for other in (*sharing, descriptor):
            other.shares_offset = True
    wanted = descriptor.directions
    if wanted == READS | WRITES and any(other.directions == READS for other in sharing):
        wanted = WRITES  # another descriptor already reads its input
    descriptor.directions = wanted
    # A stream of exactly these directions is preferred; one of both directions serves as well.
    for directions in (wanted, READS | WRITES):
        for other in sharing:
            if other.directions == directions:
                descriptor.same_as, descriptor.directions = other.fd, directions
                return


def occupy_standard() -> None:
    """Opens /dev/null for each missing standard descriptor, so that no connection of ours becomes standard error."""
    for fd in range(STANDARD):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_WRONLY if fd else os.O_RDONLY)  # the kernel gives the lowest free number: `fd`


def inspect_standard(excluded: Iterable[int]) -> list[Descriptor]:
    """Returns all three standard descriptors; those that cannot be carried, or are excluded, become /dev/null."""
    found = inspect(STANDARD - 1, excluded, {})
    missing = {*range(STANDARD)} - {one.fd for one in found}
    for fd in missing:
        _empty(fd)
    return inspect(STANDARD - 1, (), {}) if missing else found


def empty_standard_input() -> None:
    """Makes standard input /dev/null, whatever it was: closed, a directory, or one that another descriptor shares."""
    _empty(0)


def _empty(fd: int) -> None:
    null = os.open(os.devnull, os.O_WRONLY if fd else os.O_RDONLY)
    if null != fd:
        os.dup2(null, fd)
        os.close(null)


def _open_descriptors(maximum: int) -> list[int]:
    try:
        listed = os.listdir("/proc/self/fd")
    except OSError:
        return list(range(maximum + 1))
    return sorted(fd for fd in map(int, listed) if fd <= maximum)


def _look_at(fd: int, passed_over: list[str]) -> Descriptor | None:
    import fcntl

    try:
        status = os.fstat(fd)
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    except OSError:
        return None  # closed meanwhile: it was the descriptor that listed /proc/self/fd
    access = flags & _ACCESS_MODE
    if obstacle := _obstacle(fd, status, flags):
        if fd >= STANDARD:
            passed_over.append(f"{fd} ({obstacle})")
        return None
    directions = {os.O_RDONLY: READS, os.O_WRONLY: WRITES}.get(access, READS | WRITES)
    if fd < STANDARD:
        if fd and directions == READS:
            return None  # writing to it fails here, and writing to a closed one fails there
        directions = READS if fd == 0 else WRITES
    return Descriptor(fd, directions, status.st_mode, _identity(fd, status), flags)


def _obstacle(fd: int, status: os.stat_result, flags: int) -> str:
    """Returns why the program never gets this descriptor, or ""."""
    if stat.S_ISDIR(status.st_mode) or flags & getattr(os, "O_PATH", 0):
        return "a directory, or a path that was not opened"
    if stat.S_ISSOCK(status.st_mode) and _listens(fd):
        return "a socket that listens"
    if not stat.S_IFMT(status.st_mode):
        return "an epoll, eventfd or the like"  # they have no type
    if fd < STANDARD:
        return ""  # somebody has chosen it
    from cexec.client.attempt import probe  # most calls have no other descriptors

    return probe.obstacle(fd, status, flags & _ACCESS_MODE)


def _identity(fd: int, status: os.stat_result) -> tuple[int, int]:
    """Returns the identity of a file.  A terminal has several names (/dev/pts/1, /dev/tty), but one number."""
    import fcntl

    if stat.S_ISCHR(status.st_mode) and status.st_rdev != _MASTER:
        try:
            number = fcntl.ioctl(fd, _GET_TERMINAL, bytes(4))
        except OSError:
            pass  # not a terminal, or not Linux
        else:
            return _TERMINAL, int.from_bytes(number, sys.byteorder)
    return status.st_dev, status.st_ino


def _listens(fd: int) -> bool:
    try:
        borrowed = _socket.socket(fileno=fd)
    except OSError:
        return False
    try:
        return bool(borrowed.getsockopt(_socket.SOL_SOCKET, _socket.SO_ACCEPTCONN))
    except OSError:
        return False
    finally:
        borrowed.detach()


def _same_open_file(one: Descriptor, other: Descriptor) -> bool:
    """Returns True if two descriptors share one open file.  All opens of a pipe, terminal or socket share its bytes."""
    if one.inode != other.inode:
        return False
    if not one.regular:
        return True
    if one.access != other.access or one.append != other.append:
        return False
    if one.append and one.access == os.O_WRONLY:
        return True
    if os.lseek(one.fd, 0, os.SEEK_CUR) != os.lseek(other.fd, 0, os.SEEK_CUR):
        return False
    same = share_locks(one, other)
    # Without such locks, two outputs at one offset are taken for `2>&1`: otherwise they could overwrite one another.
    return bool((one.directions | other.directions) & WRITES) if same is None else same


def share_locks(one: Descriptor, other: Descriptor) -> bool | None:
    """Returns True if a lock that `one` takes belongs to `other`, too; None if the system has no such locks.

    These locks belong to an open file, not to a process.  Moving one offset and looking at the other would tell as
    well, but another process that shares the file may be writing at this moment.
    """
    import fcntl

    if not hasattr(fcntl, "F_OFD_SETLK") or sys.maxsize < 1 << 32:
        return None  # not Linux, or a struct flock of another layout
    kind = fcntl.F_RDLCK if one.access == os.O_RDONLY else fcntl.F_WRLCK
    where = _LOCKED_FROM + os.getpid()
    try:
        fcntl.fcntl(one.fd, fcntl.F_OFD_SETLK, _lock(kind, where))
        found = fcntl.fcntl(other.fd, fcntl.F_OFD_GETLK, _lock(fcntl.F_WRLCK, where))
        fcntl.fcntl(one.fd, fcntl.F_OFD_SETLK, _lock(fcntl.F_UNLCK, where))
    except OSError:
        return None  # a file system without locks, or another process has locked the whole file
    return found[:2] == _lock(fcntl.F_UNLCK, where)[:2]


def _lock(kind: int, where: int) -> bytes:
    """Returns a struct flock for one byte: type, whence, padding, start, length, process id, padding."""
    numbers = kind.to_bytes(2, sys.byteorder) + bytes(6) + where.to_bytes(8, sys.byteorder)
    return numbers + (1).to_bytes(8, sys.byteorder) + bytes(8)


def _jobserver(environ: Mapping[str, str]) -> set[tuple[int, int]]:
    """Returns the pipes by which make, cargo and others count the jobs of all their children.

    The variable is MAKEFLAGS, CARGO_MAKEFLAGS or another one.  A number that is no pipe is somebody else's: make closes
    its own for a command that is no make.
    """
    result: set[tuple[int, int]] = set()
    for value in environ.values():
        if _JOBSERVER not in value:
            continue
        for word in value.split():
            name, _, place = word.partition("=")
            if not name.startswith(_JOBSERVER):
                continue
            named = place.startswith(_NAMED)
            for one in [place.removeprefix(_NAMED)] if named else place.split(","):
                try:
                    status = os.stat(one if named else int(one))
                except (OSError, ValueError):
                    continue
                if stat.S_ISFIFO(status.st_mode):
                    result.add((status.st_dev, status.st_ino))
    return result
