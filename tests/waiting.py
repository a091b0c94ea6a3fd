"""Waits for what another process or thread does.

Contract: a wait ends as soon as its condition is true, so patience costs time only in a test that fails.  The default
is therefore long: a busy machine must not fail a test.  Tests that measure seconds are campaigns or benchmarks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import psutil

PATIENCE = 60.0  # seconds; less than the timeout of a test, so that the failure says what did not come true
PAUSE = 0.02  # seconds between two looks
REST = 5.0  # times what a look costs of the CPU: else those who wait take it from those they wait for
LOOKS = 10  # in a row at which processes that have nothing left to do are asleep


def comes_true(condition: Callable[[], object], patience: float = PATIENCE, pause: float = PAUSE) -> bool:
    """Returns True as soon as the condition is true, and False if it is not within `patience` seconds.

    A look that costs much, as one at all processes does, is taken less often: REST times as long passes without it.
    """
    deadline = time.monotonic() + patience
    while True:
        began = time.thread_time()
        if condition():
            return True
        cost = time.thread_time() - began
        if time.monotonic() > deadline:
            return False
        time.sleep(max(pause, REST * cost))


def wait_until(
    condition: Callable[[], object],
    patience: float = PATIENCE,
    *,
    pause: float = PAUSE,
    explain: Callable[[], object] = lambda: "",
) -> None:
    """Waits until the condition is true; otherwise raises AssertionError with what `explain` returns."""
    assert comes_true(condition, patience, pause), f"it has not come true in {patience:g} s: {explain()}"


async def until(condition: Callable[[], object], patience: float = PATIENCE) -> None:
    """As `wait_until`, for a coroutine: asyncio's loop goes on meanwhile."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"it has not come true in {patience:g} s"
        await asyncio.sleep(PAUSE)


async def one_turn() -> None:
    """Lets the event loop call what is ready; no time passes."""
    await asyncio.sleep(0)


def all_asleep(*pids: int) -> bool:
    """Returns True if each process waits for something at LOOKS looks in a row, so that what was on its way is there.

    A process that the machine has no time for does not count as asleep: the kernel calls it runnable.  Nor does one
    that has ended meanwhile, as one of those that somebody has just listed may have.
    """
    for look in range(LOOKS):
        if look:
            time.sleep(PAUSE)
        if not all(map(_is_asleep, pids)):
            return False
    return True


def _is_asleep(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() in (psutil.STATUS_SLEEPING, psutil.STATUS_IDLE)
    except psutil.NoSuchProcess:
        return False
