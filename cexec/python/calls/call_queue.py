"""The calls that wait for a slot, in the order in which they get one.

Contract: pure.  No method takes longer if more calls wait: a `map` that is closed drops all of its calls.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cexec.python.calls.call import PoolCall


class CallQueue:
    """Calls, each once."""

    def __init__(self) -> None:
        self._calls: OrderedDict[PoolCall, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Iterator[PoolCall]:
        return iter(self._calls)

    @property
    def first(self) -> PoolCall:
        """The one that is next; there has to be one."""
        return next(iter(self._calls))

    def append(self, call: PoolCall) -> None:
        self._calls[call] = None

    def appendleft(self, call: PoolCall) -> None:
        """Puts one before all others."""
        self._calls[call] = None
        self._calls.move_to_end(call, last=False)

    def popleft(self) -> PoolCall:
        return self._calls.popitem(last=False)[0]

    def discard(self, call: PoolCall) -> None:
        """Removes a call, if it is here."""
        self._calls.pop(call, None)

    def clear(self) -> None:
        self._calls.clear()
