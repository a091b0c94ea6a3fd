"""The blocks of --pipe, read by a thread, so that nothing here waits for the program that writes standard input.

Contract: `take` is the next block, b"" at the end, None if it has not come yet; then `arrived` is called, in the
thread, when there is something to take.  At most AHEAD blocks wait.  `LocalError` when the input cannot be read.
"""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

from cexec.errors import LocalError
from cexec.system.call_threads import start_thread
from cexec.system.reason import reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

AHEAD = 4  # (ours)


class BlockReader:
    """Reads ahead from the first `take` on."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self.arrived: Callable[[], None] = lambda: None
        self._blocks = blocks
        self._waiting: queue.Queue[bytes | OSError] = queue.Queue(AHEAD)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._over = False

    def take(self) -> bytes | None:
        if not self._over and not self._thread.ident:
            start_thread(self._thread)
        if self._over:
            return b""
        try:
            found = self._waiting.get_nowait()
        except queue.Empty:
            return None
        if isinstance(found, OSError):
            raise LocalError(f"cannot read standard input: {reason_of(found)}")
        self._over = not found
        return found

    def _read(self) -> None:
        last: bytes | OSError = b""
        try:
            for block in self._blocks:
                self._put(block)
        except OSError as error:
            last = error
        self._put(last)

    def _put(self, thing: bytes | OSError) -> None:
        self._waiting.put(thing)
        self.arrived()
