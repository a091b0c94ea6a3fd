"""Threads where there may be no more of them: those of a user (`ulimit -u`) and of a container are counted.

Contract: `Threads` makes each call once: in a thread of its own or, where all of them are busy and no other one can be
started, in the thread of the caller, who waits then.  `in_thread` is `asyncio.to_thread` with such threads, which each
loop has for itself; `run_loop` is `asyncio.run`, and waits for them at the end, as `end_threads` does.  `start_thread`
raises `LocalError` where a thread cannot be started.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from cexec.errors import LocalError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Coroutine

T = TypeVar("T")
P = ParamSpec("P")

NO_THREAD = "no more threads can be started here; see ulimit -u, and pids.max of the control group"


class Threads(ThreadPoolExecutor):
    """Python's own executor keeps a call whose thread it could not start, and makes it later, if ever."""

    def __init__(self, most: int | None = None, name: str = "") -> None:
        super().__init__(most, name)
        self._calls: deque[tuple[Future[Any], Callable[[], Any]]] = deque()

    def submit(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        mine = (future, partial(call, *args, **kwargs))
        self._calls.append(mine)
        try:
            super().submit(self._make_next)
        except RuntimeError:
            if self._shutdown:
                self._calls.remove(mine)
                raise
            self._make_next()  # it makes the call that has waited longest, which may be another one
        return future

    def _make_next(self) -> None:
        """Makes the call that waits longest; there may be none, if a caller has made it."""
        try:
            future, call = self._calls.popleft()
        except IndexError:
            return
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = call()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)


_of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, Threads] = WeakKeyDictionary()


async def in_thread(call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    loop = asyncio.get_running_loop()
    threads = _of_loops.get(loop)
    if threads is None:
        threads = _of_loops[loop] = Threads()
    context = contextvars.copy_context()
    return await loop.run_in_executor(threads, partial(context.run, call, *args, **kwargs))


def run_loop(main: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner() as runner:
        try:
            return runner.run(main)
        finally:
            end_threads(runner.get_loop())


def end_threads(loop: asyncio.AbstractEventLoop) -> None:
    """Waits for the calls of `in_thread` that still go on."""
    threads = _of_loops.pop(loop, None)
    if threads is not None:
        threads.shutdown()


def start_thread(thread: threading.Thread) -> None:
    try:
        thread.start()
    except RuntimeError:
        raise LocalError(NO_THREAD) from None
