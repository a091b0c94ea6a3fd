"""The rest of a long message from one descriptor to another, without reading it.

Contract: `move` passes on what is there, up to `missing` bytes, and returns how many bytes that were.  It never waits;
`wait_for_target` says which end has to be ready before it is worth another try.  Where the system cannot do it,
`possible` is false from then on, and the bytes have to be read and written.
"""

from __future__ import annotations

import os
import select

MOST = 1024 * 1024  # bytes (ours) at a time: what a pipe takes at most


class SpliceThrough:
    """One direction."""

    def __init__(self) -> None:
        self.possible = hasattr(os, "splice")
        self.wait_for_target = False

    def register(self, poll: select.poll, source: int, target: int) -> None:
        """Lets the poll wait for the end that has to be ready."""
        if self.wait_for_target:
            poll.register(target, select.POLLOUT)
        else:
            poll.register(source, select.POLLIN)

    def move(self, source: int, target: int, missing: int) -> int:
        """Raises `BrokenPipeError` if nobody reads any more; `EOFError` if nothing more will come."""
        try:
            count = os.splice(source, target, min(missing, MOST), flags=os.SPLICE_F_NONBLOCK)
        except BlockingIOError:
            self.wait_for_target = not self.wait_for_target  # the end that was ready is not the one that it waits for
            return 0
        except BrokenPipeError:
            raise
        except OSError:
            self.possible = False  # neither end is a pipe
            return 0
        if not count:
            raise EOFError
        self.wait_for_target = False
        return count
