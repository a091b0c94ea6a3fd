"""Waiting for descriptors in asyncio's loop."""

from __future__ import annotations

import asyncio
import os
from time import monotonic

from cexec.client.aio.readiness import readable
from tests.waiting import one_turn


def test_what_is_readable_is_returned_and_the_time_ends_the_wait() -> None:
    async def scene() -> None:
        one, other = os.pipe(), os.pipe()
        try:
            assert await readable([one[0], other[0]], monotonic() - 1.0) == set()
            assert await readable([one[0], other[0]], monotonic() + 0.01) == set()
            os.write(other[1], b"x")
            assert await readable([one[0], other[0]], monotonic() + 60.0) == {other[0]}
            waiting = asyncio.create_task(readable([one[0]], monotonic() + 60.0))
            await one_turn()
            os.write(one[1], b"x")
            assert await waiting == {one[0]}
        finally:
            for fd in (*one, *other):
                os.close(fd)

    asyncio.run(scene())
