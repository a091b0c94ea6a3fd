"""What a keeper has for its client.

Contract: `add` queues buffers and `write` writes as much as fits, without waiting.  While more outcomes will follow
soon (`expecting`), what is queued `gathers` until it is much or GATHERING old, so that many short outcomes share one
write.  `write` returns False if the client has gone.
"""

from __future__ import annotations

import os
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cexec.pool.call_messages import Buffer

GATHERING = 0.001  # seconds (ours) for which an outcome may wait for the next one
GATHERED = 32 * 1024  # bytes (ours) that do not wait
MOST_WRITTEN = 256  # buffers (ours) of one write


class OutcomeQueue:
    """`size` bytes wait; `due` is when what was gathered is to be written."""

    def __init__(self, target: int) -> None:
        self.size = 0
        self.due = 0.0
        self._target = target
        self._queue: deque[memoryview] = deque()

    def add(self, buffers: list[Buffer]) -> None:
        if not self._queue:
            self.due = monotonic() + GATHERING
        for one in buffers:
            self._queue.append(memoryview(one))
            self.size += len(one)

    def gathers(self, expecting: bool) -> bool:
        return expecting and 0 < self.size < GATHERED and monotonic() < self.due

    def write(self) -> bool:
        try:
            while self._queue:
                count = min(len(self._queue), MOST_WRITTEN)
                written = os.writev(self._target, [self._queue[n] for n in range(count)])
                self.size -= written
                while self._queue and written >= len(self._queue[0]):
                    written -= len(self._queue.popleft())
                if written:
                    self._queue[0] = self._queue[0][written:]
        except BlockingIOError:
            pass
        except BrokenPipeError:
            return False
        return True
