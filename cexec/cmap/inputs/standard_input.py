"""Standard input as `cmap` reads it.

Contract: `open_standard_input` returns a stream whose end, once it was reached, stays its end: a terminal would go on
after a Ctrl-D, so that a second one was needed.  Without a buffer no lock is held by a thread that waits for more when
we end.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any, BinaryIO

    from _typeshed import WriteableBuffer


def open_standard_input(*, unbuffered: bool) -> BinaryIO:
    raw = OnceEnded(0, closefd=False)
    return raw if unbuffered else io.BufferedReader(raw)


class OnceEnded(io.FileIO):
    """The descriptor is not closed with it.  None: nothing is there now, and somebody has made it non-blocking."""

    _ended = False

    def readinto(self, buffer: WriteableBuffer, /) -> int | Any:
        if self._ended:
            return 0
        count = super().readinto(buffer)
        self._ended = count == 0 and memoryview(buffer).nbytes > 0
        return count

    def read(self, size: int | None = -1, /) -> bytes | Any:
        if self._ended:
            return b""
        data = super().read(size)
        self._ended = data == b"" and size != 0
        return data

    def readall(self) -> bytes | Any:
        data = b"" if self._ended else super().readall()
        self._ended = self._ended or data is not None
        return data
