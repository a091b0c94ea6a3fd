"""Wakes everybody who waits for the next change of something.

Contract: `wait` returns at the next `ring` after its call, or when `seconds` have passed; it belongs to one event loop.
A waiter that is cancelled is forgotten.
"""

from __future__ import annotations

import asyncio


class Bell:
    """One thing that changes, and those who wait for it."""

    def __init__(self) -> None:
        self.waiting: set[asyncio.Future[None]] = set()  # those who wait now

    def ring(self) -> None:
        """Lets all who wait go on."""
        waiting, self.waiting = self.waiting, set()
        for one in waiting:
            if not one.done():
                one.set_result(None)

    async def wait(self, seconds: float | None = None) -> bool:
        """Returns True if the bell has rung, False if the time was over before."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self.waiting.add(waiter)
        timer = None if seconds is None else loop.call_later(max(0.0, seconds), waiter.cancel)
        try:
            await waiter
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if timer is None or not waiter.cancelled() or (task is not None and task.cancelling()):
                raise
            return False
        finally:
            self.waiting.discard(waiter)
            if timer is not None:
                timer.cancel()
        return True
