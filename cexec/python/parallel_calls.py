"""The calls of one `joblib.Parallel`: as many as it allows are given to the executor at a time.

Contract: `submit` and `abort` may be called from any thread.  `callback` is called with the future of each batch once
that is done, also if the batch could not be sent.  This happens in the thread of `callbacks`, because joblib reads the
caller's generator there, and pickles what comes next, while the executor's thread has to look after all slots.
"""

from __future__ import annotations

import operator
import threading
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import ThreadPoolExecutor

    from cexec.python.calls.array_sharing import ArraySharing
    from cexec.python.executor import Executor

    Batch = Callable[[], Any]
    Callback = Callable[[Future[Any]], object]


class ParallelCalls:
    """`limit`: batches that are with the executor at a time; infinity lets it decide.  `sharing`: of large arrays."""

    def __init__(
        self, executor: Executor, limit: float, callbacks: ThreadPoolExecutor, sharing: ArraySharing | None
    ) -> None:
        self._executor = executor
        self._limit = limit
        self._callbacks = callbacks
        self._sharing = sharing
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Batch, Callback]] = deque()
        self._given: set[Future[Any]] = set()

    def submit(self, batch: Batch, callback: Callback) -> Future[Any] | None:
        """Returns the future if the executor has got the batch at once."""
        with self._lock:
            self._waiting.append((batch, callback))
        return self._give()

    def begin(self) -> None:
        """The `Parallel` is called, perhaps not for the first time: arrays may have changed."""
        if self._sharing is not None:
            self._sharing.forget()

    def abort(self) -> None:
        """Ends what runs and forgets what waits."""
        with self._lock:
            self._waiting.clear()
            given = list(self._given)
        for future in given:
            future.cancel()

    def _give(self) -> Future[Any] | None:
        future = None
        while True:
            with self._lock:
                if not self._waiting or len(self._given) >= self._limit:
                    return future
                batch, callback = self._waiting.popleft()
                future = self._start(batch)
                self._given.add(future)
            future.add_done_callback(_Landing(self, callback))

    def _start(self, batch: Batch) -> Future[Any]:
        try:
            if self._sharing is None:
                return self._executor.submit(operator.call, batch)
            return self._executor.submit_sharing(self._sharing, operator.call, batch)
        except Exception as error:
            failed: Future[Any] = Future()
            failed.set_exception(error)
            return failed

    def land(self, future: Future[Any], callback: Callback) -> None:
        """A batch is done."""
        self._callbacks.submit(self._follow, future, callback)

    def _follow(self, future: Future[Any], callback: Callback) -> None:
        with self._lock:
            self._given.discard(future)
        self._give()
        callback(future)


class _Landing:
    """What a future calls when it is done.  It keeps nothing then, because joblib keeps the future."""

    def __init__(self, calls: ParallelCalls, callback: Callback) -> None:
        self._do: Callable[[Future[Any]], None] | None = lambda future: calls.land(future, callback)

    def __call__(self, future: Future[Any]) -> None:
        do, self._do = self._do, None
        if do is not None:
            do(future)
