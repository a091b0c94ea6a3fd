"""The job's inputs over all of its attempts: they decide whether consumed bytes can be given again.

Contract: `sources()` returns the sources of one attempt.  `obstacle()` returns in words why the inputs cannot be given
again; it is empty if they can.  A `SpoolSource` remembers what it has read, within a `Budget` that all inputs of a job
share; when that is spent the memory is given back and `lost` says how much could not be repeated.  `rewind()` is called
before the next attempt, `move_offsets` after a successful one. docs/protocol.md section 7.
"""

from __future__ import annotations

import os

from cexec.client.attempt.descriptors import name_of
from cexec.protocol.connection.options import READS
from cexec.system.io.fds import EmptySource, FileSource, Source
from cexec.system.io.opened_fds import open_source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cexec.client.attempt.descriptors import Descriptor
    from cexec.protocol.connection.streams import Outgoing


class Budget:
    """The number of bytes of input that may still be remembered."""

    __slots__ = ("left", "whole")

    def __init__(self, size: int) -> None:
        self.whole = self.left = size


class SpoolSource(Source):
    """A pipe, terminal or socket whose bytes can be given again.  `close` is not final: the next attempt reads on."""

    def __init__(self, inner: Source, budget: Budget) -> None:
        super().__init__(inner.fd, shared=True)
        self.lost = 0  # bytes that were read and cannot be given again
        self._inner = inner
        self._budget = budget
        self._memory = bytearray()
        self._position = 0  # in the memory; at its end the next bytes come from the descriptor
        self._remembers = True
        self._ended = False

    def read_into(self, view: memoryview) -> int | None:
        if self.fd < 0 and (self._ended or self._position < len(self._memory)):
            return self._read_again(view)
        read = self._inner.read_into(view)
        self.later = self._inner.later
        if not read:
            if read == 0:
                self._ended = True
                self._choose_descriptor()
        elif self._remembers:
            self._remember(view[:read])
        else:
            self.lost += read
        return read

    def rewind(self) -> None:
        """The next attempt gets everything from the beginning."""
        if self.lost:
            raise ValueError("input cannot be given again")
        self._position = 0
        self._choose_descriptor()

    def forget(self) -> None:
        """No further attempt will be made: the memory is given back, but for what this attempt is still to be given."""
        self._remembers = False
        self.lost += self._position
        self._budget.left += self._position
        self._memory = self._memory[self._position :]
        self._position = 0
        self._choose_descriptor()

    def close(self) -> None:
        """This attempt reads no more."""
        self.fd = -1

    def _read_again(self, view: memoryview) -> int:
        """Gives what is remembered; returns 0 at the end."""
        size = min(len(view), len(self._memory) - self._position)
        view[:size] = self._memory[self._position : self._position + size]
        self._position += size
        if not self._remembers and self._position == len(self._memory):
            self.forget()
        self._choose_descriptor()
        return size

    def _remember(self, data: memoryview) -> None:
        if self._remembers and len(data) > self._budget.left:
            self.forget()
        if not self._remembers:
            self.lost += len(data)
            return
        self._budget.left -= len(data)
        self._memory += data
        self._position = len(self._memory)

    def _choose_descriptor(self) -> None:
        """Without one the source is always ready: what is remembered, or the end."""
        self.fd = -1 if self._position < len(self._memory) or self._ended else self._inner.fd


class Inputs:
    """All descriptors that the program reads."""

    def __init__(self, descriptors: list[Descriptor], *, no_stdin: bool, spool: int) -> None:
        self._budget = Budget(spool)
        self._sources: dict[int, Source] = {}
        self._fingerprints: dict[int, tuple[int, int, int, int]] = {}
        self._rereadable = True
        for descriptor in descriptors:
            if descriptor.same_as == descriptor.fd and descriptor.directions & READS:
                self._sources[descriptor.fd] = self._open(descriptor, no_stdin and descriptor.fd == 0)

    def sources(self) -> dict[int, Source]:
        return dict(self._sources)

    def obstacle(self) -> str:
        """Returns why the inputs cannot be given again; empty if they can."""
        for number, source in self._sources.items():
            if isinstance(source, SpoolSource) and source.lost:
                if not self._rereadable:
                    return f"{name_of(number)} has been read and is no longer kept"
                return (
                    f"{source.lost} bytes of {name_of(number)} cannot be given again; "
                    f"CEXEC_SPOOL, which is {self._budget.whole}, says how many are kept"
                )
            if isinstance(source, FileSource) and self._fingerprints[number] != _fingerprint(number):
                return f"the file that is {name_of(number)} has changed meanwhile"
        return ""

    def rewind(self) -> None:
        """Lets every source begin again with its first byte."""
        for source in self._sources.values():
            if isinstance(source, SpoolSource | FileSource):
                source.rewind()

    def forget(self) -> None:
        """Frees the kept bytes, because no further attempt can be made."""
        if self._rereadable:
            self._rereadable = False
            for source in self._sources.values():
                if isinstance(source, SpoolSource):
                    source.forget()

    def move_offsets(self, halves: dict[int, Outgoing]) -> None:
        """Moves the offset of each input file to the place where the program stopped reading, as a local command does.

        The next command of a script that shares the file then goes on there.
        """
        for number, source in self._sources.items():
            # An offset that our own writing (`3<>file`) or another process has moved meanwhile is left alone.
            if isinstance(source, FileSource) and os.lseek(number, 0, os.SEEK_CUR) == source.start:
                source.move_offset(halves[number].read)

    def _open(self, descriptor: Descriptor, empty: bool) -> Source:
        if empty or not is_readable(descriptor.fd):
            return EmptySource()
        source = open_source(descriptor.fd)
        if isinstance(source, FileSource):
            self._fingerprints[descriptor.fd] = _fingerprint(descriptor.fd)
            return source
        return SpoolSource(source, self._budget)


def is_readable(fd: int) -> bool:
    """Returns True if `fd` was opened for reading; nohup, for example, opens standard input for writing only."""
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_GETFL) & (os.O_WRONLY | os.O_RDWR) != os.O_WRONLY


def _fingerprint(fd: int) -> tuple[int, int, int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
