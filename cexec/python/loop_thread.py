"""A thread with an event loop, on which blocking callers run what is asynchronous.

Contract: `call` runs a coroutine in the loop and returns its result; Ctrl-C, or another exception in the waiting
thread, cancels it.  Any thread may call, but for the loop's own.  `stop` ends the thread; whatever still runs in the
loop is cancelled.  The end of the interpreter waits for nothing: the connections close with the process, and workers
end the jobs of a client that has gone.  After fork the child has no such thread: `UsageError`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from cexec.errors import JobCancelledError, UsageError
from cexec.system.call_threads import end_threads, start_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")

STOP_PATIENCE = 5.0  # seconds (ours) that the end of a client waits for its thread


class LoopThread:
    """The thread begins with the first call."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopped = False

    def call(self, what: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Runs the coroutine that `what` makes, and returns its result."""
        self.check()
        if threading.current_thread() is self._thread:
            raise UsageError("a blocking call in the client's own thread would wait for itself: use AsyncClient there")
        future: concurrent.futures.Future[T] | None = None
        try:
            with self._lock:  # nothing is given to a loop that is being stopped
                future = asyncio.run_coroutine_threadsafe(_begin(what), self._started())
            return future.result()
        except concurrent.futures.CancelledError:
            if self._stopped:
                raise JobCancelledError("the client has been closed") from None
            raise
        except BaseException:
            if future is not None:
                future.cancel()
            raise

    def call_soon(self, function: Callable[..., object], *arguments: object) -> None:
        """Calls a function in the loop, and does not wait for that."""
        self.check()
        with self._lock:
            self._started().call_soon_threadsafe(function, *arguments)

    def check(self) -> None:
        """Raises `UsageError` in a child after fork, and after `stop`."""
        if os.getpid() != self._process:
            raise UsageError("this client was made before fork: make another one in the child process")
        if self._stopped:
            raise UsageError("the client has been closed")

    def _started(self) -> asyncio.AbstractEventLoop:
        """Returns the loop, which runs.  Called with the lock."""
        self.check()
        if self._loop is None:
            started = threading.Event()
            self._thread = threading.Thread(target=self._run, args=(started,), name=self._name, daemon=True)
            start_thread(self._thread)
            started.wait()
        assert self._loop is not None
        return self._loop

    def stop(self, last: Callable[[], Coroutine[Any, Any, None]] | None = None) -> None:
        """Runs the coroutine that `last` makes, and ends the thread; may be called again."""
        if os.getpid() != self._process:
            return  # and the lock may have been held by a thread that is not here
        with self._lock:
            loop, thread, self._stopped = self._loop, self._thread, True
            self._loop = self._thread = None
        if loop is None or thread is None:
            return
        try:
            if last is not None:
                asyncio.run_coroutine_threadsafe(_begin(last), loop).result(STOP_PATIENCE)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(STOP_PATIENCE)

    def abandon(self) -> None:
        """Ends the thread, and waits for nothing: nobody can use it any more."""
        loop, self._stopped = self._loop, True
        if loop is not None and os.getpid() == self._process:
            try:
                loop.call_soon_threadsafe(loop.stop)
            except RuntimeError:
                pass  # it has ended

    def _run(self, started: threading.Event) -> None:
        with asyncio.Runner() as runner:  # which cancels all tasks at its end
            loop = self._loop = runner.get_loop()
            loop.call_soon(started.set)
            try:
                loop.run_forever()
            finally:
                end_threads(loop)


async def _begin(what: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Makes the coroutine in the loop, so that none is left over if the loop has ended."""
    return await what()
