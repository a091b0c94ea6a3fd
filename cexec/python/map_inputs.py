"""The inputs of `AsyncClient.map`, one at a time.

Contract: `take` returns the next input, or None if there is none now; `ended` is True once there will be none.  An
async iterable is asked for one input in advance, and `arrived` is called when that has come.  What the iterable raises
is raised by `take`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from cexec.python.keywords import Input

    JobInputs: TypeAlias = Iterable[Input | Mapping[str, Any]]
    Inputs: TypeAlias = JobInputs | AsyncIterable[Input | Mapping[str, Any]]


class Item(NamedTuple):
    """One input."""

    value: Input | Mapping[str, Any]


class InputSource:
    """The inputs of one map."""

    def __init__(self, inputs: Inputs, arrived: Callable[[], None]) -> None:
        self.ended = False
        self._arrived = arrived
        self._iterator: Iterator[Any] | None = None
        self._later: AsyncIterator[Any] | None = None
        self._coming: asyncio.Task[Item | None] | None = None
        if isinstance(inputs, AsyncIterable):
            self._later = aiter(inputs)
        else:
            self._iterator = iter(inputs)

    def take(self) -> Item | None:
        """Returns the next input."""
        if self.ended:
            return None
        if self._iterator is not None:
            found = next((Item(one) for one in self._iterator), None)
        elif (coming := self._arrival()) is None:
            return None
        else:
            found = coming.result()
        self.ended = found is None
        return found

    def _arrival(self) -> asyncio.Task[Item | None] | None:
        """Returns the task of the next input, once that has come."""
        if self._coming is None:
            self._coming = asyncio.ensure_future(self._next())
            self._coming.add_done_callback(lambda _: self._arrived())
        if not self._coming.done():
            return None
        coming, self._coming = self._coming, None
        return coming

    async def _next(self) -> Item | None:
        assert self._later is not None
        try:
            return Item(await anext(self._later))
        except StopAsyncIteration:
            return None

    def close(self) -> None:
        """Asks for no more."""
        if self._coming is not None:
            self._coming.cancel()
            self._coming = None
