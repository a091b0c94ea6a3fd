"""One call of an `Executor`: what is sent of it, who waits for it, and what has become of it.

Contract: a `PoolCall` is made in the thread that submits, which also pickles, so that what is wrong with an argument is
found there.  From then on it belongs to the pool's thread.

A `CallFuture` is as `concurrent.futures.Future`, but `cancel` succeeds until there is an outcome, and ends a call that
runs.  For that the base class sees the future as pending until then; `running` says if a worker has the call.  Exactly
one of `cancel` and `settle` takes effect, from whatever threads they are called.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cexec.pool.call_messages import Part
    from cexec.python.calls.array_sharing import SentArray
    from cexec.python.calls.functions import SentFunction


T = TypeVar("T")

_lock = threading.Lock()  # one for all: it is held for an instant


class PoolCall:
    """`kind`, `function` and `parts` make its message; `size` is that of the parts in bytes."""

    __slots__ = (
        "arrays",
        "crashes",
        "dropped",
        "function",
        "future",
        "kind",
        "lacked",
        "parts",
        "size",
        "slot",
        "wire_id",
    )

    def __init__(
        self,
        kind: int,
        function: SentFunction,
        parts: list[Part],
        size: int,
        future: CallFuture[Any],
        arrays: Sequence[SentArray] = (),
    ) -> None:
        self.kind = kind
        self.function = function
        self.parts = parts
        self.size = size
        self.future = future
        self.arrays = arrays  # that it names and does not carry
        self.lacked = 0  # how often it came to a worker without them
        self.slot: object = None  # that has it now
        self.wire_id = 0  # its number there; another one each time that it is sent
        self.crashes: list[tuple[str, str]] = []  # the ends of processes in which it ran: worker, and reason in words
        self.dropped = False  # nobody wants its outcome


class CallFuture(Future[T]):
    """`call` is what it stands for, once that is submitted."""

    def __init__(self, drop: Callable[[PoolCall], None]) -> None:
        """`drop` is told of a call that was cancelled."""
        super().__init__()
        self.call: PoolCall | None = None
        self._drop = drop
        self._settled = False

    def running(self) -> bool:
        """True if a worker has the call: it runs, or is the next one there."""
        call = self.call
        return not self._settled and call is not None and call.slot is not None

    def cancel(self) -> bool:
        """Cancels the call; if it runs, its process is ended.  False if its outcome is there."""
        if not self._claim():
            return self.cancelled()
        super().cancel()
        self.set_running_or_notify_cancel()
        call, self.call = self.call, None
        if call is not None:
            self._drop(call)
        return True

    def settle(self, good: bool, value: Any) -> None:
        """Sets the outcome: a result, or an exception."""
        if not self._claim():
            return
        self.call = None  # which refers to this future
        self.set_running_or_notify_cancel()
        if good:
            self.set_result(value)
        else:
            self.set_exception(value)

    def _claim(self) -> bool:
        with _lock:
            if self._settled:
                return False
            self._settled = True
            return True
