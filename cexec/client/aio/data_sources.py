"""Sources that never wait: bytes in memory, and regular files.

Contract: they have no descriptor to wait for (`fd` is -1) and can be read again from the beginning only by another
source.  `PathSource` raises `LocalError` for what is no regular file or cannot be read.
"""

from __future__ import annotations

import os
import stat

from cexec.errors import LocalError
from cexec.system.io.fds import FEW, FileSource, Source
from cexec.system.reason import reason_of


class DataSource(Source):
    """Bytes in memory."""

    def __init__(self, data: bytes) -> None:
        super().__init__(-1, shared=True)
        self._data = memoryview(data)
        self.few = len(data) <= FEW

    def whole(self, most: int) -> bytes | None:
        return bytes(self._data) if len(self._data) <= most else None

    def read_into(self, view: memoryview) -> int | None:
        size = min(len(view), len(self._data))
        view[:size] = self._data[:size]
        self._data = self._data[size:]
        self.few = len(self._data) <= FEW
        return size


class PathSource(FileSource):
    """A regular file, which is closed when the attempt ends."""

    def __init__(self, path: str) -> None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError as error:
            raise LocalError(f"cannot read {path}: {reason_of(error)}") from None
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            raise LocalError(f"cannot read {path}: it is no regular file, so it could not be read again")
        super().__init__(fd)
        self._size = status.st_size
        self.few = self._size <= FEW
        self.fd = -1  # no descriptor to wait for

    def read_into(self, view: memoryview) -> int | None:
        size = super().read_into(view)
        self.few = self._size - self.position <= FEW
        return size

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1


class OpenFileSource(FileSource):
    """A regular file that somebody else has open, from offset `start` on; its own offset stays as it is."""

    def __init__(self, fd: int, start: int) -> None:
        super().__init__(fd)
        self.start = self.position = start
        self.fd = -1  # no descriptor to wait for
