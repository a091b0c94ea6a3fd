"""Waits for descriptors in asyncio's loop, for machines that are driven by `filenos` and `next_timeout`.

Contract: `readable` returns as soon as one of the descriptors is readable, or the time has come.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


async def readable(fds: Iterable[int], until: float) -> set[int]:
    """Returns the descriptors that are readable, as soon as there is one, or an empty set when the time has come."""
    loop = asyncio.get_running_loop()
    woken = asyncio.Event()
    ready: set[int] = set()

    def wake(fd: int) -> None:
        ready.add(fd)
        woken.set()

    waited = list(fds)
    for fd in waited:
        loop.add_reader(fd, wake, fd)
    timer = loop.call_later(max(0.0, until - monotonic()), woken.set)
    try:
        await woken.wait()
    finally:
        timer.cancel()
        for fd in waited:
            loop.remove_reader(fd)
    return ready
