"""Keeps the first failure that ends a run before its tasks are done.

Contract: `fail` keeps the first error and wakes the coordinator, which raises it; those that carry out tasks look at
`error` and begin nothing more.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cexec.errors import CexecError

if TYPE_CHECKING:
    from collections.abc import Callable


class Stopper:
    """One coordinator's."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self.error: CexecError | None = None
        self._wake = wake

    def fail(self, error: CexecError) -> None:
        self.error = self.error or error
        self._wake()

    def watch(self, task: asyncio.Task[None]) -> None:
        """Takes an exception that the task does not handle for a failure of the run; wakes when the task ends."""
        task.add_done_callback(self._note_end)

    def _note_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error if isinstance(error, CexecError) else CexecError(f"internal error: {error!r}"))
        self._wake()
