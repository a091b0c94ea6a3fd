"""The job's outputs over all of its attempts: has anything left that cannot be taken back?

Contract: `sinks()` for each attempt, `obstacle()` says in words why what was written cannot be taken back (empty:
nothing was, or it can), `take_back()` before the next attempt and after the last failure, `release()` after a success.

An output file can be taken back when it is a regular file without O_APPEND that ended where we began, has grown by
exactly what we wrote, is no input of the job, and no other process that could be writing has it open: the processes
above us only wait.  Descriptors on one inode are judged together.  Standard error is exempt unless it shares its file
with another output: what an abandoned attempt said stays.  So is /dev/null.  docs/protocol.md section 7, N2 and N3.
"""

from __future__ import annotations

import _stat as stat
import errno
import os
from time import monotonic, sleep

from cexec.client.attempt.descriptors import name_of
from cexec.errors import LocalError
from cexec.net.pump import BROKEN_PIPE
from cexec.protocol.connection.frames import READS, WRITES
from cexec.system.io.fds import Sink, give_up, half_close, open_sink
from cexec.system.io.spool import HeldSink
from cexec.system.reason import reason_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cexec.client.attempt.descriptors import Descriptor

STANDARD_ERROR = 2
# Seconds (ours).  What a thread above us starts has all open files of that process until it executes its own program.
BRIEFLY_OPEN = 0.1
LOOK_AGAIN = 0.01  # seconds (ours)


class _TwoWaySink(Sink):
    """A file that the program reads, too: the bytes belong where it has read to, which only it knows."""

    def write(self, view: memoryview) -> int:
        raise OSError(errno.ESPIPE, os.strerror(errno.ESPIPE))


class _Target:
    """One inode that is written: its descriptors (one for each open file), and where it stood at the start."""

    def __init__(self, descriptor: Descriptor) -> None:
        self.descriptors = [descriptor]
        self.regular = descriptor.regular
        self.start = os.lseek(descriptor.fd, 0, os.SEEK_CUR) if descriptor.regular else 0
        status = os.fstat(descriptor.fd)
        self.size = status.st_size
        self.forgotten = stat.S_ISCHR(status.st_mode) and status.st_rdev == os.stat(os.devnull).st_rdev
        self.sinks: list[Sink] = []

    @property
    def count(self) -> int:
        return sum(sink.count for sink in self.sinks)


class Outputs:
    """All descriptors that the program writes."""

    def __init__(self, descriptors: list[Descriptor], *, hold: bool, inputs: Iterable[tuple[int, int]] = ()) -> None:
        """`inputs`: inodes that the job reads besides its descriptors."""
        self._hold = hold
        self._inputs = {*inputs, *(d.inode for d in descriptors if d.directions & READS)}
        self._written = [d for d in descriptors if d.directions & WRITES and d.same_as == d.fd]
        self._targets: dict[tuple[int, int], _Target] = {}
        for descriptor in self._written:
            known = self._targets.get(descriptor.inode)
            if known is None:
                self._targets[descriptor.inode] = _Target(descriptor)
            else:
                known.descriptors.append(descriptor)
        self._shared = {d.fd: [other.fd for other in descriptors if other.same_as == d.fd] for d in self._written}
        self._held: dict[int, HeldSink] = {}

    def sinks(self) -> dict[int, Sink]:
        """Fresh ones, for one attempt."""
        result: dict[int, Sink] = {}
        for target in self._targets.values():
            target.sinks = []
        for descriptor in self._written:
            target = self._targets[descriptor.inode]
            sink = _TwoWaySink(descriptor.fd, shared=True) if _is_read_too(descriptor) else open_sink(descriptor.fd)
            target.sinks.append(sink)
            if self._hold and not self._exempt(target):
                sink = self._held[descriptor.fd] = HeldSink(sink)
            result[descriptor.fd] = sink
        return result

    def cannot_write(self, number: int, error: int) -> LocalError:
        """What to tell of errno `error`."""
        if number not in self._held:
            return _cannot_write(number, error)
        import tempfile

        return LocalError(f"cannot keep {name_of(number)} back in {tempfile.gettempdir()} (TMPDIR): {reason_of(error)}")

    def ended(self, number: int, *, half: bool) -> None:
        """The program has closed this output, and perhaps goes on: so do we, for a reader may wait for its end.

        `half`: it still reads what is a socket.  A file's end nobody waits for, standard error is ours too, and an
        output without a byte can still be given by another attempt.
        """
        descriptor = next((d for d in self._written if d.fd == number), None)
        if descriptor is None or number in self._held or not self._targets[descriptor.inode].count:
            return
        shared = self._shared[number]
        if stat.S_ISSOCK(descriptor.mode) and half:
            half_close(number)
        elif STANDARD_ERROR not in shared and (stat.S_ISSOCK(descriptor.mode) or stat.S_ISFIFO(descriptor.mode)):
            for fd in shared:
                give_up(fd)

    @property
    def irrevocable(self) -> bool:
        """Whether something has left that can certainly not be taken back; cheap."""
        return any(t.count and not self._exempt(t) and self._never(t) for t in self._targets.values())

    def obstacle(self) -> str:
        """Why what was written cannot be taken back."""
        for target in self._targets.values():
            if target.count and not self._exempt(target):
                reason = self._never(target) or self._not_now(target)
                if reason:
                    return f"{target.count} bytes have been written to {name_of(target.descriptors[0].fd)}, {reason}"
        return ""

    def take_back(self) -> None:
        """Cuts every output that allows it back to where it was; held output is dropped."""
        self.drop_held()
        for target in self._targets.values():
            if target.count and not self._exempt(target) and not self._never(target):
                self._cut(target)

    def drop_held(self) -> None:
        """The program has failed: what was kept back is not wanted."""
        for held in self._held.values():
            held.drop()
        self._held.clear()

    def release(self) -> bool:
        """Passes on what was kept back, and is the last look at all outputs; whether readers took all of it."""
        taken = True
        for number, held in self._held.items():
            try:
                held.release()
            except OSError as error:
                if error.errno not in BROKEN_PIPE:
                    raise _cannot_write(number, error.errno or 0) from None
                taken = False
        self._held.clear()
        for target in self._targets.values():
            if target.regular and target.count:
                number = target.descriptors[0].fd
                try:
                    os.close(os.dup(number))  # some file systems tell only here that the disk is full
                except OSError as error:
                    raise _cannot_write(number, error.errno or 0) from None
        return taken

    def _exempt(self, target: _Target) -> bool:
        if target.forgotten:
            return True
        only = target.descriptors[0]
        shared = any(d.same_as == STANDARD_ERROR and d.fd != STANDARD_ERROR for d in self._written)
        return len(target.descriptors) == 1 and only.fd == STANDARD_ERROR and not shared

    def _never(self, target: _Target) -> str:
        """What was clear from the start."""
        descriptor = target.descriptors[0]
        if not target.regular:
            return "which is no file"
        if descriptor.append:
            return "which is appended to"
        if target.size != target.start:
            return "which did not end where we began"
        if descriptor.inode in self._inputs:
            return "which the job reads too"
        if len(target.descriptors) > 1:
            return "which is open twice"
        return ""

    def _not_now(self, target: _Target) -> str:
        """What others may have done meanwhile."""
        fd = target.descriptors[0].fd
        if os.fstat(fd).st_size != target.start + target.count:
            return "to which others have written too"
        if _others_keep_open(target.descriptors[0].inode):
            return "which another process has open too"
        return ""

    def _cut(self, target: _Target) -> None:
        fd = target.descriptors[0].fd
        if self._not_now(target):
            return
        # The last look and the cut are two system calls apart; whoever could write between is not there (see above).
        if os.fstat(fd).st_size == target.start + target.count:
            os.ftruncate(fd, target.start)
            os.lseek(fd, target.start, os.SEEK_SET)


def _is_read_too(descriptor: Descriptor) -> bool:
    """Whether its offset is moved by what the program reads, too."""
    if not descriptor.shares_offset or descriptor.append:
        return False
    return os.lseek(descriptor.fd, 0, os.SEEK_CUR) < os.fstat(descriptor.fd).st_size


def _cannot_write(number: int, error: int) -> LocalError:
    reason = reason_of(error)
    if error == errno.ESPIPE:
        reason = "the program reads this file too, and where it has got to is not known here; open it for one of both"
    return LocalError(f"cannot write to {name_of(number)}: {reason}")


def _others_keep_open(inode: tuple[int, int]) -> bool:
    """Whether another process has this file open for longer than starting a program takes."""
    until = monotonic() + BRIEFLY_OPEN
    while _others_have_open(inode):
        if monotonic() >= until:
            return True
        sleep(LOOK_AGAIN)
    return False


def _others_have_open(inode: tuple[int, int]) -> bool:
    """Whether a process that is not above us has this file open: one that shares our descriptor could write through it.

    Processes of other users that we may not look into are taken not to.  Without /proc nobody can be seen.
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
        pass  # gone meanwhile, or another user's
    return False


def _ancestors() -> set[int]:
    """This process and those above it, which wait for it."""
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
