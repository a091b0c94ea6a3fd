"""A connection in asyncio's loop: what the loop calls, and when it stops.  `test_lease.py` has it with a lease."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from math import inf
from typing import Any

import pytest

from cexec.client.aio.connection_watch import ConnectionWatch
from tests.waiting import one_turn, until

LATER = 1000.0  # seconds, in which a test has ended


class Rig:
    """One end of a connection that is watched, and what was called."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)
        self.steps: list[bool] = []
        self.looks = 0
        self.loop = asyncio.get_running_loop()
        self.watch = ConnectionWatch(self.ours, self._step, self._look, self.loop.time() + LATER)

    def _step(self, readable: bool) -> None:
        self.steps.append(readable)
        if readable:
            self.ours.recv(100)
        self.watch.wake()

    def _look(self) -> None:
        self.looks += 1

    def close(self) -> None:
        self.watch.forget()
        self.ours.close()
        self.theirs.close()


def watched(play: Callable[[Rig], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        rig = Rig()
        try:
            await play(rig)
        finally:
            rig.close()

    asyncio.run(run())


def test_a_readable_connection_is_stepped_from_read_on() -> None:
    async def play(rig: Rig) -> None:
        rig.theirs.send(b"x")
        await one_turn()
        assert rig.steps == []
        rig.watch.read()
        await rig.watch.wait(inf)
        assert rig.steps == [True]

    watched(play)


def test_a_connection_that_takes_bytes_is_stepped_as_long_as_that_is_wanted() -> None:
    async def play(rig: Rig) -> None:
        rig.watch.write(True)
        await rig.watch.wait(inf)
        assert rig.watch.writing and set(rig.steps) == {False}
        rig.watch.write(False)
        count = len(rig.steps)
        await one_turn()
        await one_turn()
        assert not rig.watch.writing and len(rig.steps) == count

    watched(play)


def test_a_timer_is_hastened_and_never_put_off() -> None:
    async def play(rig: Rig) -> None:
        rig.watch.hasten(None)
        rig.watch.hasten(rig.loop.time() + 2 * LATER)
        rig.watch.hasten(rig.loop.time())
        await until(lambda: rig.looks)
        rig.watch.set_timer(rig.loop.time())
        await until(lambda: rig.looks == 2)

    watched(play)


def test_a_wait_ends_with_its_time_too() -> None:
    async def play(rig: Rig) -> None:
        await rig.watch.wait(rig.loop.time())
        rig.watch.wake()  # nobody waits

    watched(play)


@pytest.mark.parametrize("closed", [False, True])
def test_what_is_forgotten_is_not_called_any_more(closed: bool) -> None:
    async def play(rig: Rig) -> None:
        rig.watch.read()
        rig.watch.write(True)
        rig.watch.hasten(rig.loop.time())
        rig.theirs.send(b"x")
        if closed:
            rig.watch.forget()
            rig.ours.close()
        rig.watch.forget()
        await rig.watch.wait(rig.loop.time() + 0.01)
        assert (rig.steps, rig.looks) == ([], 0)

    watched(play)
