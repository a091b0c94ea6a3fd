"""The thread on which blocking callers run what is asynchronous."""

from __future__ import annotations

import asyncio
import threading

import pytest

from cexec.errors import JobCancelledError, UsageError
from cexec.python.loop_thread import LoopThread
from tests.waiting import wait_until


async def name() -> str:
    return threading.current_thread().name


async def for_ever() -> None:
    await asyncio.Event().wait()


def test_coroutines_of_any_thread_run_in_one_thread() -> None:
    thread = LoopThread("test")
    assert {thread.call(name), thread.call(name)} == {"test"}
    thread.stop()
    thread.stop()


def test_an_error_is_that_of_the_coroutine() -> None:
    async def fail() -> None:
        raise KeyError("mine")

    thread = LoopThread("test")
    with pytest.raises(KeyError, match="mine"):
        thread.call(fail)
    thread.stop()


def test_a_blocking_call_in_the_loop_itself_is_refused() -> None:
    thread = LoopThread("test")

    async def inner() -> None:
        thread.call(name)

    with pytest.raises(UsageError, match="would wait for itself: use AsyncClient there"):
        thread.call(inner)
    thread.stop()


def test_stopping_ends_all_calls_after_the_last_one() -> None:
    thread = LoopThread("test")
    begun = threading.Event()
    ends: list[list[str]] = []
    last: list[str] = []

    async def wait() -> None:
        begun.set()
        await for_ever()

    def call() -> None:
        with pytest.raises(JobCancelledError, match="has been closed"):
            thread.call(wait)
        ends.append(list(last))

    async def conclude() -> None:
        last.append("last")

    caller = threading.Thread(target=call)
    caller.start()
    assert begun.wait(60)
    thread.stop(conclude)
    caller.join(60)
    assert ends == [["last"]]
    with pytest.raises(UsageError, match="has been closed"):
        thread.call(name)
    with pytest.raises(UsageError, match="has been closed"):
        thread.call_soon(print)


def test_a_thread_that_never_began_can_be_stopped() -> None:
    LoopThread("test").stop(for_ever)


def test_calls_that_nobody_waits_for() -> None:
    thread = LoopThread("test")
    seen: list[int] = []
    thread.call_soon(seen.append, 1)
    wait_until(lambda: seen == [1])
    thread.stop()
