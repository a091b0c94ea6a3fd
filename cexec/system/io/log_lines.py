"""Lines on their way to a descriptor that somebody gave us, whose reader may be slow, or may read nothing at all.

Contract: nothing here raises because of the reader, and only `close` and `offer` wait, for a bounded time.  `write`
takes text and writes as much as there is room for; the rest stays in memory, at most MAXIMUM_WAITING bytes of it.
Lines that come when that is full are lost and counted, and so are lines that could not be written because of an error
(a full disk).  The next line that is taken comes behind one that `lost_line` has made of their number.  `masks` says
what to wait for with poll(2), and `flush` is called when that has come.
"""

from __future__ import annotations

import select
import traceback
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING

from cexec.system.io.opened_fds import open_sink
from cexec.system.io.wakeup import wait_ready

if TYPE_CHECKING:
    from collections.abc import Callable

    from cexec.system.io.fds import Sink

MAXIMUM_WAITING = 1 << 18  # bytes (ours): some thousand lines
PATIENCE = 1.0  # seconds (ours) that a reader has at the end to take some more
STANDARD_ERROR = 2


def lines_lost(count: int) -> str:
    return f"{count} {'line' if count == 1 else 'lines'} lost"


class LogLines:
    """The lines for one descriptor, which stays its owner's.  It can be the file of `print`."""

    def __init__(self, fd: int) -> None:
        self.lost_line: Callable[[int], str] = lines_lost
        self._sink: Sink = open_sink(fd)
        self._sink.keep_size()
        self._waiting: deque[bytes] = deque()
        self._size = 0  # bytes of those
        self._lost = 0  # lines, since the last one that was taken
        self._full = (
            False  # nothing is taken until half of the room is free: else every second line would be an account
        )
        self._cut = False  # a part of the first of them has been written
        self._torn = False  # the rest of such a line is lost, so that the next one has to end it

    def write(self, text: str) -> None:
        """Takes whole lines, each with its end."""
        data = text.encode("utf-8", "replace")
        if self._full and self._size <= MAXIMUM_WAITING // 2:
            self._full = False
        if self._full or self._size + len(data) > MAXIMUM_WAITING:
            self._full = True
            self._lost += data.count(b"\n")
        else:
            self._account()
            self._add(data)
        self.flush()

    def flush(self) -> None:
        """Writes what there is room for."""
        try:
            self._write_out()
        except OSError:
            self._lost += sum(data.count(b"\n") for data in self._waiting)
            self._torn = self._torn or self._cut
            self._cut = False
            self._waiting.clear()
            self._size = 0

    def masks(self) -> dict[int, int]:
        """What to wait for; empty if no line waits."""
        return {self._sink.fileno(): select.POLLOUT} if self._waiting else {}

    def close(self) -> None:
        """Writes the rest, as long as the reader takes some of it every PATIENCE seconds."""
        self._account()
        self.flush()
        while self._waiting:
            before = self._size
            wait_ready(self.masks(), PATIENCE)
            self.flush()
            if self._size == before:
                break
        self._sink.close()

    def _account(self) -> None:
        """Adds the line about those that are lost."""
        if self._lost:
            count, self._lost = self._lost, 0
            self._add(f"{self.lost_line(count)}\n".encode("utf-8", "replace"))

    def _add(self, data: bytes) -> None:
        self._waiting.append(data)
        self._size += len(data)

    def _write_out(self) -> None:
        while self._waiting:
            data = self._waiting[0]
            if self._torn:
                self._waiting[0] = data = b"\n" + data
                self._size += 1
                self._torn = False
            size = self._sink.write(memoryview(data))
            self._size -= size
            self._cut = size < len(data) and (size > 0 or self._cut)
            if size == len(data):
                self._waiting.popleft()
                continue
            self._waiting[0] = data[size:]
            if not size:
                return


def offer(fd: int, text: str, patience: float = PATIENCE) -> None:
    """Writes one text to the descriptor, as far as its reader takes it in that time."""
    data = text.encode("utf-8", "replace")
    deadline = monotonic() + patience
    try:
        sink = open_sink(fd)
        try:
            sink.keep_size()
            while data:
                data = data[sink.write(memoryview(data)) :]
                if data and (left := deadline - monotonic()) > 0:
                    wait_ready({sink.fileno(): select.POLLOUT}, left)
                elif data:
                    return
        finally:
            sink.close()
    except OSError:
        pass  # it is closed, its disk is full, or its reader has gone


def offer_traceback() -> None:
    """Says where the exception of this moment comes from: a process that is to end must not wait for a reader."""
    offer(STANDARD_ERROR, traceback.format_exc())
