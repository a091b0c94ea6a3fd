"""Output that is kept back until the job has succeeded (`cexec --hold`).

Contract: a `HeldSink` takes everything into an unnamed temporary file and passes it on when told.  docs/protocol.md
section 7, N2.
"""

from __future__ import annotations

import errno
import os
import select

from cexec.system.io.fds import Sink

COPY_SIZE = 256 * 1024  # bytes (ours) moved at once when held output is passed on


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
