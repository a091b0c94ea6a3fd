"""Requests that run, and the end of those whose token or session is not valid any more.

Contract: `LiveRequests.run` runs a coroutine as a task of its own, and raises `NoLongerValidError` when its key has
ended or was revoked: within `look` seconds and the time that a coroutine takes to be cancelled.  One watcher looks for
all requests together, and only while there are some.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from cexec.errors import CexecError, LocalError


class NoLongerValidError(CexecError):
    """The token or session of a running request has ended."""


class LiveRequests:
    """`ended` returns which of some keys are not valid any more."""

    def __init__(self, ended: Callable[[Iterable[int]], set[int]], look: float) -> None:
        self._ended = ended
        self._look = look
        self._running: dict[asyncio.Task[None], int] = {}
        self._over: set[asyncio.Task[None]] = set()  # those that were cancelled for their key
        self._watcher: asyncio.Task[None] | None = None

    async def run(self, key: int, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._running[task] = key
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.ensure_future(self._watch())
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait({task})
            raise
        finally:
            del self._running[task]
        if task in self._over:
            self._over.discard(task)
            if not task.cancelled():
                task.exception()  # looked at, so that asyncio does not complain
            raise NoLongerValidError("the token or session is not valid any more")
        await task

    def __len__(self) -> int:
        return len(self._running)

    async def _watch(self) -> None:
        while self._running:
            await asyncio.sleep(self._look)
            try:
                ended = self._ended(set(self._running.values()))
            except LocalError:
                continue  # the disk of the state is full or away: new requests are told
            for task, key in list(self._running.items()):
                if key in ended and task not in self._over:
                    self._over.add(task)
                    task.cancel()
