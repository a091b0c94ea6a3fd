"""The thread in which an executor's asyncio loop runs.

Contract: `pool` starts the thread when it is first asked for.  `finish` lets it end once all calls are over, `abort`
now; `join` waits for that.  When the interpreter exits, calls that were submitted are finished first, as with the
executors of concurrent.futures; after a Ctrl-C they are ended instead.  In a child after fork there is no such thread,
and `pool` raises `UsageError`.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import sys
import threading
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

from cexec.errors import UsageError
from cexec.system.call_threads import run_loop, start_thread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from cexec.python.calls.call_pool import CallPool

T = TypeVar("T")

_threads: WeakSet[PoolThread] = WeakSet()


class PoolThread:
    """One executor's."""

    def __init__(self, run: Callable[[Callable[[CallPool], None]], Awaitable[None]]) -> None:
        """`run` makes the pool in the loop, gives it to the function that it is given, and runs it."""
        self._run = run
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._pool: CallPool | None = None
        self._made = threading.Event()
        self._over = threading.Event()  # `Thread.join` of Python 3.11 forgets the thread if a Ctrl-C interrupts it
        self._failure: BaseException | None = None
        self._process = os.getpid()

    @property
    def pool(self) -> CallPool:
        if os.getpid() != self._process:
            raise UsageError("this executor was made before fork: make another one in the child process")
        if self._pool is None:
            self._begin()
        if self._pool is None:
            raise self._failure or RuntimeError("the executor's thread has ended")
        return self._pool

    @property
    def started(self) -> CallPool | None:
        """The pool, if there is one."""
        return self._pool if os.getpid() == self._process else None

    def _begin(self) -> None:
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._main, name="cexec.Executor", daemon=True)
                start_thread(thread)
                self._thread = thread
                _threads.add(self)
        self._made.wait()

    def _main(self) -> None:
        try:
            run_loop(self._run_all())
        except BaseException as error:
            self._failure = error
        finally:
            self._made.set()
            self._over.set()

    async def _run_all(self) -> None:
        await self._run(self._take)

    def _take(self, pool: CallPool) -> None:
        self._pool = pool
        self._made.set()

    def call(self, what: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine in the loop and returns its result."""
        pool = self.pool
        if self._thread is threading.current_thread():
            what.close()
            raise UsageError("a callback of a future must not ask for the number of slots: it would wait for itself")
        return asyncio.run_coroutine_threadsafe(what, pool.loop).result()

    def finish(self) -> None:
        if (pool := self.started) is not None:
            pool.finish()

    def abort(self) -> None:
        if (pool := self.started) is not None:
            pool.abort()

    def join(self) -> None:
        if self._thread is not None and os.getpid() == self._process and self._thread is not threading.current_thread():
            self._over.wait()


def _end_all() -> None:
    """Leaves nothing running when the interpreter exits; a Ctrl-C meanwhile is raised again at the end."""
    threads = list(_threads)
    interrupted = isinstance(getattr(sys, "last_value", None), KeyboardInterrupt)
    try:
        for thread in threads:
            if interrupted:
                thread.abort()
            else:
                thread.finish()
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:
        for thread in threads:
            thread.abort()
        for thread in threads:
            thread.join()
        raise


atexit.register(_end_all)
