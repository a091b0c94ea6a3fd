"""A lease's connection in asyncio's loop, which waits until it is readable or writable, or until its timer is due.

Contract: the loop calls `step(True)` when the connection is readable, from `read` on; `step(False)` when it takes bytes
again, while `write` wants that; and `look` when the timer is due.  `wait` lets the one coroutine that owns the lease
wait until `wake` is called.  After `forget` the loop calls nothing more.
"""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable


class ConnectionWatch:
    """Has a timer from the beginning.  `reading` and `writing` say what the loop waits for."""

    def __init__(
        self, connection: _socket.socket, step: Callable[[bool], None], look: Callable[[], None], due: float
    ) -> None:
        self.reading = False
        self.writing = False
        self._connection = connection
        self._fd = connection.fileno()
        self._step = step
        self._look = look
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._due = due
        self._timer = self._loop.call_at(due, look)

    def read(self) -> None:
        """Lets the loop wait until something can be read."""
        if not self.reading:
            self.reading = True
            self._loop.add_reader(self._fd, self._step, True)

    def write(self, wanted: bool) -> None:
        """Lets the loop wait until more can be sent, or no longer."""
        if wanted is self.writing:
            return
        if wanted:
            self._loop.add_writer(self._fd, self._step, False)
        else:
            self._loop.remove_writer(self._fd)
        self.writing = wanted

    def hasten(self, due: float | None) -> None:
        """Lets the timer come earlier if that is due; one that comes too early does no harm."""
        if due is not None and due < self._due:
            self._timer.cancel()
            self.set_timer(due)

    def set_timer(self, due: float) -> None:
        """Sets the timer again, after it has come."""
        self._due = due
        self._timer = self._loop.call_at(due, self._look)

    def forget(self) -> None:
        """Removes the connection and the timer from the loop; may be called again."""
        self._timer.cancel()
        self.writing = False
        if self._connection.fileno() >= 0:
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)

    async def wait(self, until: float) -> None:
        """Waits until `wake` is called, or the time has come."""
        waiter = self._waiter = self._loop.create_future()
        timer = None if until == inf else self._loop.call_at(until, self.wake)
        try:
            await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    def wake(self) -> None:
        """Ends the wait, if there is one."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
