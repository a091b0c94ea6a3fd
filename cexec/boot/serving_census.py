"""Which workers answer the census, by the serials of their certificates.

Contract: `ServingCensus.wait(serial, deadline)` returns the answer of the worker with this certificate, or None when
the time has come.  Censuses are taken as long as somebody waits, one at a time for all that wait.
docs/protocol.md section 2.6.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from types import TracebackType
from typing import Self

from cexec.client.aio.readiness import readable
from cexec.client.search.inquiry import Inquiry
from cexec.net.announcer import Announcer
from cexec.net.groups import GroupEntry
from cexec.protocol.base.keys import ClientKey
from cexec.protocol.decisions.census import Answer
from cexec.system.call_threads import in_thread

SHORTEST_PAUSE, LONGEST_PAUSE = 0.2, 2.0  # seconds (ours) between two censuses, growing while nobody new answers


class ServingCensus:
    """The censuses of one application; an asynchronous context manager."""

    def __init__(self, key: ClientKey, entries: list[GroupEntry] | None, port: int) -> None:
        self.found: dict[int, Answer] = {}
        self._key = key
        self._announcer = Announcer(entries, port)
        self._waiting = 0
        self._wanted = asyncio.Event()
        self._changed = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await in_thread(self._announcer.settle)
        self._task = asyncio.create_task(self._ask_again_and_again())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._announcer.close()

    async def wait(self, serial: int, deadline: float) -> Answer | None:
        """`deadline`: on the monotonic clock; infinity is allowed."""
        self.found.pop(serial, None)  # a new census has to show that it answers now
        self._waiting += 1
        self._wanted.set()
        try:
            async with asyncio.timeout(max(0.0, deadline - monotonic()) if deadline < float("inf") else None):
                async with self._changed:
                    await self._changed.wait_for(lambda: serial in self.found)
        except TimeoutError:
            return None
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._wanted.clear()
        return self.found[serial]

    async def once(self) -> None:
        """Takes one census."""
        inquiry = Inquiry([self._key], self._announcer)
        now = monotonic()
        while not inquiry.advance(now):
            await readable(inquiry.filenos(), inquiry.next_timeout())
            now = monotonic()
            inquiry.listen(now)
        for answer in inquiry.censuses[0].answers.values():
            self.found[answer.hello.certificate.serial] = answer
        async with self._changed:
            self._changed.notify_all()

    async def _ask_again_and_again(self) -> None:
        pause = SHORTEST_PAUSE
        while True:
            await self._wanted.wait()
            before = len(self.found)
            await self.once()
            pause = SHORTEST_PAUSE if len(self.found) > before else min(2 * pause, LONGEST_PAUSE)
            await asyncio.sleep(pause)
