"""Threads where no more of them can be started."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cexec.errors import LocalError
from cexec.system.call_threads import Threads, in_thread, run_loop, start_thread
from tests.waiting import PATIENCE


@contextmanager
def no_thread_starts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")  # as Python says when clone(2) fails with EAGAIN

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        yield


def test_a_call_is_made_by_its_caller_where_there_are_no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: cmap ended with a traceback and status 1, "one task has failed", where pids.max was reached."""

    async def main() -> tuple[int, int]:
        return await in_thread(threading.get_ident), await in_thread(pow, 2, 3)

    with no_thread_starts(monkeypatch):
        assert run_loop(main()) == (threading.get_ident(), 8)


def test_an_error_of_a_call_is_raised_whoever_makes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        await in_thread(int, "x")

    with pytest.raises(ValueError):
        run_loop(main())
    with no_thread_starts(monkeypatch), pytest.raises(ValueError):
        run_loop(main())


def test_each_call_is_made_once_when_the_only_thread_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's executor keeps a call whose thread it could not start, and makes it when another thread is free."""
    made: list[int] = []
    going_on, may_end = threading.Event(), threading.Event()

    def first() -> None:
        going_on.set()
        assert may_end.wait(PATIENCE)

    with Threads(4) as threads:
        busy = threads.submit(first)
        assert going_on.wait(PATIENCE)
        with no_thread_starts(monkeypatch):
            later = [threads.submit(made.append, number) for number in range(5)]
            assert made == list(range(5)) and all(one.done() for one in later)
        may_end.set()
        assert busy.result(PATIENCE) is None
        assert threads.submit(len, made).result(PATIENCE) == 5
    assert made == list(range(5))


def test_calls_go_on_side_by_side_where_threads_can_be_started() -> None:
    meet = threading.Barrier(3)

    async def main() -> None:
        await asyncio.gather(*(in_thread(meet.wait, PATIENCE) for _ in range(3)))

    run_loop(main())


def test_nothing_is_taken_after_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = Threads(1)
    threads.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        threads.submit(int)


def test_a_loop_ends_with_the_calls_of_its_threads() -> None:
    ended: list[bool] = []

    def call() -> None:
        may_end.wait(PATIENCE)
        ended.append(True)

    async def main() -> None:
        left.append(asyncio.ensure_future(in_thread(call)))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0, may_end.set)
        await asyncio.sleep(0.01)

    may_end, left = threading.Event(), list[asyncio.Future[None]]()
    run_loop(main())
    assert ended == [True]


def test_a_thread_that_cannot_be_started_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: cgate and cmap --pipe ended with a traceback."""
    with (
        no_thread_starts(monkeypatch),
        pytest.raises(LocalError, match="no more threads can be started here; see ulim"),
    ):
        start_thread(threading.Thread(target=int))
