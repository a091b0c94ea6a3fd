"""The job's inputs over all of its attempts: can every byte that was consumed be given again?

Contract: `sources()` for each attempt, `obstacle()` says in words why the inputs cannot be given again (empty: they
can), `rewind()` before the next attempt, `move_offsets` at the end of a successful one.  docs/protocol.md section 7.
"""

from __future__ import annotations

import os

from cexec.client.attempt.descriptors import name_of
from cexec.protocol.connection.frames import READS
from cexec.system.io.fds import EmptySource, FileSource, open_source
from cexec.system.io.spool import Budget, SpoolSource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cexec.client.attempt.descriptors import Descriptor
    from cexec.protocol.connection.streams import Outgoing
    from cexec.system.io.fds import Source


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
        """Why the input cannot be given again."""
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
        """Everything is given again."""
        for source in self._sources.values():
            if isinstance(source, SpoolSource | FileSource):
                source.rewind()

    def forget(self) -> None:
        """No further attempt can be made: gives the memory back."""
        if self._rereadable:
            self._rereadable = False
            for source in self._sources.values():
                if isinstance(source, SpoolSource):
                    source.forget()

    def move_offsets(self, halves: dict[int, Outgoing]) -> None:
        """What shares our input file goes on where the program stopped reading, as after a local command."""
        for number, source in self._sources.items():
            # What has been moved meanwhile, by our own writing (`3<>file`) or by others, is where they want it.
            if isinstance(source, FileSource) and os.lseek(number, 0, os.SEEK_CUR) == source.start:
                source.move_offset(halves[number].read)

    def _open(self, descriptor: Descriptor, empty: bool) -> Source:
        if empty or not _is_readable(descriptor.fd):
            return EmptySource()
        source = open_source(descriptor.fd)
        if isinstance(source, FileSource):
            self._fingerprints[descriptor.fd] = _fingerprint(descriptor.fd)
            return source
        return SpoolSource(source, self._budget)


def _is_readable(fd: int) -> bool:
    """Whether it was opened for reading; nohup, for one, opens /dev/null for writing as a standard input."""
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_GETFL) & (os.O_WRONLY | os.O_RDWR) != os.O_WRONLY


def _fingerprint(fd: int) -> tuple[int, int, int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
