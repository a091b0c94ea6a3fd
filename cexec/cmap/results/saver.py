"""Saves tasks that are over, one by one in the order that the user wants: --collect CMD, files, journal, names.

Contract: `put` takes a task that is over and `skip` a number for which nothing will come; `run`, a coroutine, saves
what has its turn and raises `LocalError` when something cannot be saved, after which nothing more is.  `unsaved` are
the numbers of the tasks that are over and not saved.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cexec.cmap.results.collect import CommitOrder, EndedTask
from cexec.cmap.results.commit import commit
from cexec.errors import LocalError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Protocol

    from cexec.cmap.results.appending import AppendFile
    from cexec.cmap.results.attempt_files import AttemptFiles
    from cexec.cmap.results.journal import Journal, TaskClaim
    from cexec.cmap.results.validate import Validator

    class ResultWriter(Protocol):
        """One of those in `collect`."""

        file: AppendFile

        def additions(self, ended: EndedTask) -> Iterable[bytes]: ...


@dataclass(slots=True)
class FinishedTask:
    """A task that is over: how it ended, what it wrote, and the journal's claim."""

    ended: EndedTask
    files: AttemptFiles
    claim: TaskClaim | None


class Saver:
    """`order`: the numbers in the order in which they are to be saved; None: as they come."""

    def __init__(
        self,
        *,
        journal: Journal | None,
        order: Iterable[int] | None,
        writers: Sequence[ResultWriter],
        collector: Validator | None = None,
    ) -> None:
        self.saved: Callable[[EndedTask], None] = lambda ended: None  # is told of each
        self._journal = journal
        self._order: CommitOrder[FinishedTask] = CommitOrder(order)
        self._writers = writers
        self._collector = collector
        self._ready: deque[FinishedTask] = deque()
        self._unsaved: set[int] = set()
        self._closed = False
        self._woken = asyncio.Event()

    @property
    def full(self) -> bool:
        """True if so much waits for its turn that nothing new should begin."""
        return self._order.full

    @property
    def unsaved(self) -> Iterator[int]:
        return iter(self._unsaved)

    def put(self, finished: FinishedTask) -> None:
        number = finished.ended.task.number
        self._unsaved.add(number)
        self._take(self._order.put(number, finished))

    def skip(self, number: int) -> None:
        self._take(self._order.skip(number))

    def close(self) -> None:
        """Says that nothing more comes; `run` ends when all is saved, also the tasks that wait for their turn."""
        self._take(self._order.rest())
        self._closed = True
        self._woken.set()

    async def run(self) -> None:
        while self._ready or not self._closed:
            while self._ready:
                await self._save(self._ready.popleft())
            if not self._closed:
                self._woken.clear()
                await self._woken.wait()

    def _take(self, finished: list[FinishedTask]) -> None:
        if finished:
            self._ready += finished
            self._woken.set()

    async def _save(self, finished: FinishedTask) -> None:
        ended, files = finished.ended, finished.files
        succeeded = ended.outcome.succeeded
        if self._collector is not None and succeeded:
            await self._collect(ended, self._collector)
        renames = files.finish() if succeeded else []
        appends = [(writer.file, writer.additions(ended)) for writer in self._writers]
        commit(self._journal, finished.claim, ended.outcome, appends=appends, renames=renames)
        if succeeded:
            files.close()
        else:
            files.discard()
        if ended.collected is not None:
            ended.collected.close()
        self._unsaved.discard(ended.task.number)
        self.saved(ended)

    async def _collect(self, ended: EndedTask, collector: Validator) -> None:
        verdict = await asyncio.to_thread(collector.check, ended.task, ended.outputs)
        if not verdict.accepted:
            verdict.output.close()
            raise LocalError(f"row {ended.task.number}: {verdict.reason}")
        ended.collected = verdict.output
