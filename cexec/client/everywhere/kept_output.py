"""`cexec --all`: each worker's output is kept until the worker has finished, then written as a whole.

Contract: a `KeptSink` takes any number of bytes.  Up to KEPT_IN_MEMORY of them stay in memory, more go to a temporary
file.  The `Printer` writes outputs in the order in which they were added, and never blocks: its owner's loop waits for
`wanted` and calls `advance`.  `reader_gone` is true once the reader of one of our outputs has gone.  A line of our own
that nobody takes is dropped, as it is without `--all`.  Only `LocalError` is raised.
"""

from __future__ import annotations

import select
import tempfile

from cexec.client.attempt.descriptors import name_of
from cexec.errors import LocalError
from cexec.net.pump import BROKEN_PIPE
from cexec.system.io.fds import Sink
from cexec.system.io.opened_fds import open_sink
from cexec.system.reason import reason_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

KEPT_IN_MEMORY = 1024 * 1024  # bytes (ours) of one output of one worker; 1,000 workers then need 1 GiB at most
READ_SIZE = 64 * 1024  # bytes (ours) written at once: the capacity of a pipe


class KeptSink(Sink):
    """One output of one worker's program."""

    def __init__(self) -> None:
        super().__init__(-1, shared=True)
        self._file = tempfile.SpooledTemporaryFile(KEPT_IN_MEMORY, prefix="cexec-output-")  # noqa: SIM115 - see chunks

    def write(self, view: memoryview) -> int:
        self.count += self._file.write(view)
        return len(view)

    def chunks(self, tag: bytes) -> Iterator[bytes]:
        """Returns the bytes in pieces, then closes the file.  `tag` is put before each line, and ends the last line."""
        self._file.seek(0)
        at_start = True
        while data := self._file.read(READ_SIZE):
            if tag:
                data = tag + data if at_start else data
                at_start = data.endswith(b"\n")
                last = b"\n" if at_start else b""
                data = data.removesuffix(last).replace(b"\n", b"\n" + tag) + last
            yield data
        if tag and not at_start:
            yield b"\n"
        self._file.close()

    def drop(self) -> None:
        """Forgets the bytes."""
        self._file.close()


class Printer:
    """Writes to our own descriptors."""

    def __init__(self) -> None:
        self.reader_gone = False
        self._sinks: dict[int, Sink] = {}
        self._queue: list[tuple[int, Iterator[bytes], bool]] = []
        self._rest = memoryview(b"")  # the unwritten part of a piece of the first output in the queue

    @property
    def idle(self) -> bool:
        return not self._queue

    def add(self, number: int, chunks: Iterator[bytes], *, ours: bool = False) -> None:
        """Adds an output for this descriptor of ours, after all that were added before.  `ours`: it is no program's."""
        if number not in self._sinks:
            self._sinks[number] = open_sink(number)
        self._queue.append((number, chunks, ours))

    def wanted(self) -> dict[int, int]:
        return {self._sinks[self._queue[0][0]].fd: select.POLLOUT} if self._queue else {}

    def advance(self) -> None:
        """Writes as much as the descriptors take now."""
        while self._queue:
            number, chunks, ours = self._queue[0]
            if not self._rest:
                self._rest = memoryview(next(chunks, b""))
                if not self._rest:
                    del self._queue[0]
                    continue
            try:
                size = self._sinks[number].write(self._rest)
            except OSError as error:
                if ours:
                    self._rest = memoryview(b"")
                    continue
                if error.errno in BROKEN_PIPE:
                    self.reader_gone = True
                    return
                raise LocalError(f"cannot write to {name_of(number)}: {reason_of(error)}") from None
            if not size:
                return
            self._rest = self._rest[size:]
