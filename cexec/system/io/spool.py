"""Input that can be given again, and output that can be kept back: what lets an attempt be repeated.

Contract: a `SpoolSource` remembers what it has read, within a `Budget` that all inputs of a job share; when that is
spent the memory is given back and `lost` says how much could not be repeated.  A `HeldSink` takes everything into an
unnamed temporary file and passes it on when told.  docs/protocol.md section 7, N2 and N3.
"""

from __future__ import annotations

import errno
import os
import select

from cexec.system.io.fds import Sink, Source

COPY_SIZE = 256 * 1024  # bytes (ours) moved at once when held output is passed on


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
        if self._position < len(self._memory):
            size = self._read_again(view)
            self._choose_descriptor()
            return size
        if self._ended:
            return 0
        read = self._inner.read_into(view)
        self.later = self._inner.later
        if read:
            self._remember(view[:read])
        elif read == 0:
            self._ended = True
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
        size = min(len(view), len(self._memory) - self._position)
        view[:size] = self._memory[self._position : self._position + size]
        self._position += size
        if not self._remembers and self._position == len(self._memory):
            self.forget()
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


class HeldSink(Sink):
    """Output that is kept back until it is released or dropped."""

    def __init__(self, target: Sink) -> None:
        import tempfile

        self._file = tempfile.TemporaryFile(prefix="cexec-held-", buffering=0)  # noqa: SIM115 - lives as long as we do
        super().__init__(self._file.fileno(), shared=True)
        self._target = target

    def write(self, view: memoryview) -> int:
        size = self._file.write(view)
        self.count += size
        return size

    def close(self) -> None:
        """The stream has ended; what it carried is still held."""

    def release(self) -> None:
        """Passes everything on; raises `OSError` when the target fails."""
        position = 0
        while position < self.count:
            data = memoryview(os.pread(self._file.fileno(), COPY_SIZE, position))
            if not len(data):
                raise OSError(errno.EIO, "held output has been lost")
            position += len(data)
            while len(data):
                done = self._target.write(data)
                data = data[done:]
                if not done:
                    poll = select.poll()
                    poll.register(self._target.fd, select.POLLOUT)
                    poll.poll()
        self.drop()

    def drop(self) -> None:
        """Forgets everything."""
        self._file.close()
        self._target.close()
