"""Saves tasks that are over in groups, in the order that the user wants: --collect CMD, files, journal, names.

Contract: `put` takes a task that is over and `skip` a number for which nothing will come; `run`, a coroutine, saves
what has its turn and raises `LocalError` when something cannot be saved, after which nothing more is.  `unsaved` are
the numbers of the tasks that are over and not saved.  Where saving waits for a disk, a thread does it, for all tasks
that ended meanwhile: at most `LARGEST_GROUP`, or those of `GATHER` seconds.  What only writes to pipes and terminals is
saved by `put` itself, as long as `run` runs and saves nothing else.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from cexec.cmap.results.collect import CommitOrder
from cexec.cmap.results.commit import Saved
from cexec.errors import LocalError
from cexec.system.call_threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cexec.cmap.results.collect import EndedTask
    from cexec.cmap.results.commit import Committer, FinishedTask
    from cexec.cmap.results.journal import Journal
    from cexec.cmap.results.validate import Validator

LARGEST_GROUP = 256  # tasks (ours)
GATHER = 0.2  # seconds (ours) that a task that has ended waits for others
MOST_WAITING = 2 * LARGEST_GROUP  # tasks (ours), each of which may have open files
TELL = 1.0  # seconds (ours) until those who read the journal see what it was told


class Saver:
    """`order`: the numbers in the order in which they are to be saved; None: as they come."""

    def __init__(
        self,
        committer: Committer,
        *,
        journal: Journal | None = None,
        order: Iterable[int] | None = None,
        collector: Validator | None = None,
    ) -> None:
        self.saved: Callable[[EndedTask], None] = lambda ended: None  # is told of each
        self._committer = committer
        self._journal = journal
        self._order: CommitOrder[FinishedTask] = CommitOrder(order)
        self._collector = collector
        self._ready: deque[FinishedTask] = deque()
        self._unsaved: dict[int, FinishedTask] = {}
        self._closed = False
        self._waits = False  # `run` waits for tasks
        self._failure: LocalError | None = None  # of `put`, to be raised by `run`
        self._enough = 1  # so many tasks wake `run`
        self._woken = asyncio.Event()
        self._emptied = asyncio.Event()  # set while it is not `full`
        self._emptied.set()

    @property
    def full(self) -> bool:
        """True if so much waits for its turn, or for the disk, that nothing new should begin."""
        return self._order.full or len(self._ready) >= MOST_WAITING

    @property
    def unsaved(self) -> Iterator[int]:
        return iter(self._unsaved)

    async def room(self, patience: float) -> bool:
        """Waits for at most so many seconds until it is not `full`; returns False if it still is."""
        try:
            async with asyncio.timeout(patience):
                await self._emptied.wait()
        except TimeoutError:
            return False
        return True

    def put(self, finished: FinishedTask) -> None:
        number = finished.ended.task.number
        self._unsaved[number] = finished
        self._take(self._order.put(number, finished))

    def skip(self, number: int) -> None:
        self._take(self._order.skip(number))

    def close(self) -> None:
        """Says that nothing more comes; `run` ends when all is saved, also the tasks that wait for their turn."""
        self._take(self._order.rest())
        self._closed = True
        self._woken.set()

    async def run(self) -> None:
        try:
            while await self._await_group():
                await self._save_group()
            if self._failure is not None:
                raise self._failure
        except LocalError:
            for task in self._unsaved.values():
                if not task.committed:
                    task.files.discard()
            raise

    def _take(self, finished: list[FinishedTask]) -> None:
        if self._may_save_now and self._committer.only_prints(finished):
            self._failure = self._finish(self._committer.print_out(finished))
        else:
            self._ready += finished
            self._note_room()
        if len(self._ready) >= self._enough or self._failure is not None:
            self._woken.set()

    @property
    def _may_save_now(self) -> bool:
        """True if `run` has nothing to save, so that nothing is overtaken."""
        return self._waits and not self._ready and self._collector is None and self._failure is None

    async def _await_group(self) -> bool:
        """Waits for a task, and for those that end soon after it; returns False when there will be none."""
        while not self._ready and not self._closed and self._failure is None:
            await self._wait(1, None if self._journal is None else TELL)
            if self._journal is not None and self._journal.unwritten and not self._ready:
                await in_thread(self._journal.flush)
        if self._ready and self._committer.takes_time(self._ready):
            await self._wait(LARGEST_GROUP, GATHER)
        return bool(self._ready) and self._failure is None

    async def _wait(self, enough: int, patience: float | None) -> None:
        """Waits until so many tasks are ready, nothing more will come, or so many seconds have passed."""
        if len(self._ready) >= enough or self._closed:
            return
        self._enough = enough
        self._woken.clear()
        self._waits = True
        try:
            async with asyncio.timeout(patience):
                await self._woken.wait()
        except TimeoutError:
            pass
        finally:
            self._waits = False

    async def _save_group(self) -> None:
        group: list[FinishedTask] = []
        failure: LocalError | None = None
        while self._ready and len(group) < LARGEST_GROUP and failure is None:
            failure = await self._collect(self._ready[0].ended)
            if failure is None:
                group.append(self._ready.popleft())
        saved = Saved()
        if group and self._committer.takes_time(group):
            saved = await in_thread(self._committer.save, group)
        elif group:
            saved = self._committer.save(group)
        if (error := self._finish(saved) or failure) is not None:
            raise error

    def _finish(self, saved: Saved) -> LocalError | None:
        """Lets go of the tasks that are saved; returns the error that kept others from it."""
        for task in saved.tasks:
            self._let_go(task)
        self._note_room()
        return saved.error

    def _note_room(self) -> None:
        if self.full:
            self._emptied.clear()
        else:
            self._emptied.set()

    def _let_go(self, task: FinishedTask) -> None:
        """Forgets a task that is saved, and says so."""
        if task.ended.outcome.succeeded:
            task.files.close()
        else:
            task.files.discard()
        if task.ended.collected is not None:
            task.ended.collected.close()
        del self._unsaved[task.ended.task.number]
        self.saved(task.ended)

    async def _collect(self, ended: EndedTask) -> LocalError | None:
        """--collect CMD; returns what is wrong."""
        if self._collector is None or not ended.outcome.succeeded:
            return None
        try:
            verdict = await in_thread(self._collector.check, ended.task, ended.outputs)
        except LocalError as error:
            return error
        if not verdict.accepted:
            verdict.output.close()
            return LocalError(f"row {ended.task.number}: {verdict.reason}")
        ended.collected = verdict.output
        return None
