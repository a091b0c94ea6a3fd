"""The workers that an executor does not use: those that cannot run its calls, and those whose slots never get ready.

Contract: `WorkersPassedOver` is told of each slot that has ended before it was ready.  Once it is known who is there,
it calls `nobody_left` with an error that names each worker, if all of them are passed over and no slot is held.  Until
then the search goes on.  After that the workers are tried again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from math import inf
from time import monotonic
from typing import TYPE_CHECKING

from cexec.errors import CexecError
from cexec.python.calls.pool_errors import NoPoolError, NotThisWorkerError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from typing import Any

    Who = Callable[[], Coroutine[Any, Any, set[bytes]]]

CENSUS_LASTS = 5.0  # seconds (ours) for which it is taken as known who is there
MOST_FAILURES = 3  # slots of one worker (ours) in a row that end before they are ready
ADVICE = "serve it by: cservice pool python3 -m cexec.pool"


class WorkersPassedOver:
    """One executor's."""

    def __init__(
        self,
        who: Who,
        opening: Callable[[], Iterable[asyncio.Task[None]] | None],
        nobody_left: Callable[[CexecError], None],
    ) -> None:
        """`who` asks which instances are there.  `opening` returns the slots that may get ready; None if one is."""
        self._who = who
        self._opening = opening
        self._nobody_left = nobody_left
        self._errors: dict[bytes, NotThisWorkerError] = {}  # by instance
        self._failures: Counter[str] = Counter()
        self._census: asyncio.Task[set[bytes]] | None = None
        self._census_at = -inf
        self._judging: asyncio.Task[None] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the workers."""
        return tuple(one.worker for one in self._errors.values())

    @property
    def tasks(self) -> list[asyncio.Task[Any]]:
        """What goes on, for the one that ends everything."""
        return [one for one in (self._census, self._judging) if one is not None]

    def ready(self, worker: str) -> None:
        """A slot of this worker is ready."""
        self._failures[worker] = 0

    def ask_who_is_there(self) -> asyncio.Task[set[bytes]]:
        """Asks unless that has just been done.  To be called early: the answers take a second."""
        if self._census is None or monotonic() > self._census_at + CENSUS_LASTS:
            self._census_at = monotonic()
            self._census = asyncio.get_running_loop().create_task(self._who())
        return self._census

    def add(self, instance: bytes, error: NotThisWorkerError) -> None:
        """This worker cannot be used."""
        self._errors[instance] = error
        if self._judging is None or self._judging.done():
            self._judging = asyncio.get_running_loop().create_task(self._judge())

    def failed(self, worker: str, instance: bytes, error: CexecError) -> None:
        """A slot has ended before it was ready; `worker` is empty if it had not begun."""
        self._failures[worker] += 1
        if self._failures[worker] < MOST_FAILURES:
            return
        self._failures[worker] = 0
        if worker:
            self.add(instance, NotThisWorkerError(worker, f"fails: {error}", is_pool=True))
        else:
            self._nobody_left(error)

    def nobody(self) -> NoPoolError | None:
        """Returns an error that names the workers, if there are any, and forgets them."""
        if not self._errors:
            return None
        told = "; ".join(map(str, self._errors.values()))
        advice = "" if any(one.is_pool for one in self._errors.values()) else f"; {ADVICE}"
        self._errors.clear()
        return NoPoolError(f"no worker can run calls of this Python: {told}{advice}")

    async def _judge(self) -> None:
        there = await self.ask_who_is_there()
        while (opening := self._opening()) is not None and there <= {*self._errors}:
            tasks = list(opening)
            if not tasks:
                if (error := self.nobody()) is not None:
                    self._nobody_left(error)
                break
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
