"""The job's outputs over all of its attempts: they decide whether written bytes can be taken back.

Contract: `sinks()` makes the sinks of one attempt.  `obstacle()` returns in words why written bytes cannot be taken
back; it is empty if they can, or if there are none.  `take_back()` is called before the next attempt and after the last
failure, `release()` after a success.

An output can be taken back if it is a regular file without O_APPEND, ended where we began, has grown by exactly the
bytes that we wrote, and is no input of the job, and if no other process has it open that could write to it.  Our parent
and the processes above it may have it open, because they only wait for us.  Descriptors of one inode are judged
together.  Two outputs are exempt: /dev/null, and standard error unless it shares its file with another output, so
messages of an attempt that was given up stay.  docs/protocol.md section 7, N2 and N3.
"""

from __future__ import annotations

import _stat as stat
import errno
import os

from cexec.client.attempt.descriptors import name_of
from cexec.common_errors import LocalError
from cexec.net.pump import BROKEN_PIPE
from cexec.protocol.connection.options import READS, WRITES
from cexec.system.io.fds import Sink
from cexec.system.io.opened_fds import give_up, half_close, open_sink
from cexec.system.reason import reason_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cexec.client.attempt.descriptors import Descriptor
    from cexec.system.io.held_output import HeldSink

STANDARD_ERROR = 2
HEARD = 2048  # bytes (ours) of the beginning and of the end of standard error, in which complaints are looked for


class _HeardSink(Sink):
    """The sink of standard error: it keeps the first and the last bytes."""

    def __init__(self, inner: Sink) -> None:
        super().__init__(inner.fd, shared=True)
        self.first = self.last = b""
        self._inner = inner

    def write(self, view: memoryview) -> int:
        size = self._inner.write(view)
        self.count += size
        if len(self.first) < HEARD:
            self.first += bytes(view[: min(size, HEARD - len(self.first))])
        self.last = (self.last + bytes(view[max(0, size - HEARD) : size]))[-HEARD:]
        return size

    def close(self) -> None:
        self._inner.close()
        super().close()


class OutputFile:
    """One inode that the program writes: its descriptors, one for each open file, and its state at the start."""

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

    def __init__(
        self,
        descriptors: list[Descriptor],
        *,
        hold: bool,
        inputs: Iterable[tuple[int, int]] = (),
        repeatable: bool = True,
    ) -> None:
        """`inputs`: inodes that the job reads besides its descriptors.  `repeatable`: another attempt is possible."""
        self._hold = hold
        self._repeatable = repeatable
        self._inputs = {*inputs, *(d.inode for d in descriptors if d.directions & READS)}
        self._only_read = {d.inode for d in descriptors if d.directions == READS}
        self._written = [d for d in descriptors if d.directions & WRITES and d.same_as == d.fd]
        self.files: dict[tuple[int, int], OutputFile] = {}
        for descriptor in self._written:
            known = self.files.get(descriptor.inode)
            if known is None:
                self.files[descriptor.inode] = OutputFile(descriptor)
            else:
                known.descriptors.append(descriptor)
        self._shared = {d.fd: [other.fd for other in descriptors if other.same_as == d.fd] for d in self._written}
        self._held: dict[int, HeldSink] = {}
        self._heard: _HeardSink | None = None

    def said(self) -> bytes:
        """Returns the beginning and the end of what the program has written to standard error."""
        return b"" if self._heard is None else self._heard.first + b"\n" + self._heard.last

    def sinks(self) -> dict[int, Sink]:
        """Returns new sinks, for one attempt."""
        result: dict[int, Sink] = {}
        for target in self.files.values():
            target.sinks = []
        for descriptor in self._written:
            target = self.files[descriptor.inode]
            sink = _two_way_sink(descriptor.fd) if _is_read_too(descriptor) else open_sink(descriptor.fd)
            target.sinks.append(sink)
            if self._hold and not self._exempt(target):
                from cexec.system.io.held_output import HeldSink  # few outputs are held back

                sink = self._held[descriptor.fd] = HeldSink(sink)
            if STANDARD_ERROR in self._shared[descriptor.fd]:
                sink = self._heard = _HeardSink(sink)
            result[descriptor.fd] = sink
        return result

    @property
    def piped(self) -> list[int]:
        """The outputs with a reader that may go: pipes, sockets and terminals whose bytes are not held back."""
        return [
            d.fd for d in self._written if not d.regular and not (self._hold and not self._exempt(self.files[d.inode]))
        ]

    def cannot_write(self, number: int, error: int) -> LocalError:
        """Returns the error for errno `error` of this output."""
        if number not in self._held:
            return _cannot_write(number, error)
        from cexec.system.storage.temporary import temporary_place

        return LocalError(f"cannot keep {name_of(number)} back in {temporary_place()} (TMPDIR): {reason_of(error)}")

    def ended(self, number: int, *, half: bool) -> None:
        """Closes an output that the program has closed, because a reader may wait for its end.

        `half`: the program still reads from the same socket, by this descriptor or another one.  A file stays open,
        because no reader waits for its end.  Standard error stays open for our own messages.  An output without any
        byte stays open, too, if another attempt may still fill it.
        """
        descriptor = next((d for d in self._written if d.fd == number), None)
        if descriptor is None or number in self._held:
            return
        if self._repeatable and not self.files[descriptor.inode].count:
            return
        shared = self._shared[number]
        if stat.S_ISSOCK(descriptor.mode) and (half or descriptor.inode in self._only_read):
            half_close(number)
        elif STANDARD_ERROR not in shared and (stat.S_ISSOCK(descriptor.mode) or stat.S_ISFIFO(descriptor.mode)):
            for fd in shared:
                give_up(fd)

    @property
    def irrevocable(self) -> bool:
        """True if bytes were written that can never be taken back.  Cheap: it makes no system call."""
        return any(t.count and not self._exempt(t) and self._never(t) for t in self.files.values())

    def obstacle(self) -> str:
        """Returns why written bytes cannot be taken back; empty if they can."""
        for target in self.files.values():
            if target.count and not self._exempt(target):
                reason = self._never(target) or self._not_now(target)
                if reason:
                    return f"{target.count} bytes have been written to {name_of(target.descriptors[0].fd)}, {reason}"
        return ""

    def take_back(self) -> None:
        """Cuts every output that allows it back to its size at the start, and drops held output."""
        self.drop_held()
        for target in self.files.values():
            if target.count and not self._exempt(target) and not self._never(target):
                self._cut(target)

    def drop_held(self) -> None:
        """Forgets held output, because the program has failed."""
        for held in self._held.values():
            held.drop()
        self._held.clear()

    def release(self) -> bool:
        """Writes held output and checks all outputs a last time; returns False if a reader did not take all of it."""
        taken = True
        for number, held in self._held.items():
            try:
                held.release()
            except OSError as error:
                if error.errno not in BROKEN_PIPE:
                    raise _cannot_write(number, error.errno or 0) from None
                taken = False
        self._held.clear()
        for target in self.files.values():
            if target.regular and target.count:
                number = target.descriptors[0].fd
                try:
                    os.close(os.dup(number))  # NFS and others report a full disk only at close
                except OSError as error:
                    raise _cannot_write(number, error.errno or 0) from None
        return taken

    def _exempt(self, target: OutputFile) -> bool:
        if target.forgotten:
            return True
        only = target.descriptors[0]
        shared = any(d.same_as == STANDARD_ERROR and d.fd != STANDARD_ERROR for d in self._written)
        return len(target.descriptors) == 1 and only.fd == STANDARD_ERROR and not shared

    def _never(self, target: OutputFile) -> str:
        """Returns why this output can never be taken back: reasons that held before the job began."""
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

    def _not_now(self, target: OutputFile) -> str:
        """Returns why this output cannot be taken back now: acts of other processes."""
        fd = target.descriptors[0].fd
        if os.fstat(fd).st_size != target.start + target.count:
            return "to which others have written too"
        from cexec.system.process.open_files import others_keep_open  # most output is never taken back

        if others_keep_open(target.descriptors[0].inode):
            return "which another process has open too"
        return ""

    def _cut(self, target: OutputFile) -> None:
        fd = target.descriptors[0].fd
        if self._not_now(target):
            return
        # Another process could write between these two system calls, but `_not_now` has found none that could.
        if os.fstat(fd).st_size == target.start + target.count:
            os.ftruncate(fd, target.start)
            os.lseek(fd, target.start, os.SEEK_SET)


def _two_way_sink(fd: int) -> Sink:
    from cexec.system.io.special_fds import TwoWaySink  # few files are read and written

    return TwoWaySink(fd, shared=True)


def _is_read_too(descriptor: Descriptor) -> bool:
    """Returns True if the program's reading moves the offset at which this output is written."""
    if not descriptor.shares_offset or descriptor.append:
        return False
    return os.lseek(descriptor.fd, 0, os.SEEK_CUR) < os.fstat(descriptor.fd).st_size


def _cannot_write(number: int, error: int) -> LocalError:
    reason = reason_of(error)
    if error == errno.ESPIPE:
        reason = "the program reads this file too, and where it has got to is not known here; open it for one of both"
    return LocalError(f"cannot write to {name_of(number)}: {reason}")
