"""The tasks of a run, one after the other: those that are to be run, and the content of each.

Contract: `numbers()` gives the numbers of the tasks that are to be run, in the order in which they are to be started,
and claims each in the journal when it is asked for; `task(number)` is one of those until it is closed by `close`.
NOTHING_YET among the numbers says that the next one has not come; `on_arrival` names the function that is called when
it has.  A fault in between ends the numbers and is then `failure`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cexec.cmap.inputs.notation import format_ranges
from cexec.cmap.inputs.shell_commands import short_command
from cexec.cmap.results.journal import RESUME, TaskIdentity
from cexec.cmap.results.journal_format import DONE, FAILED
from cexec.cmap.run.scheduler import NOTHING_YET
from cexec.errors import CexecError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cexec.cmap.inputs.arriving import ArrivingLines
    from cexec.cmap.inputs.blocks import BlockReader
    from cexec.cmap.inputs.task_plan import Plan
    from cexec.cmap.inputs.tasks import Task
    from cexec.cmap.results.journal import Journal, TaskClaim


class Worklist:
    """`numbers` are rows of the plan's table; where there is none, each of `blocks` is a task (--pipe)."""

    def __init__(
        self,
        plan: Plan,
        numbers: Iterable[int | None],
        *,
        blocks: BlockReader | None = None,
        arriving: ArrivingLines | None = None,
        journal: Journal | None = None,
        application: str,
        fingerprint: str,
        skip: Callable[[int], None] = lambda number: None,
        check: Callable[[Task], None] = lambda task: None,
        numbered: bool = False,
    ) -> None:
        """`skip` is told the tasks that need not be run, and `check` looks at a block or line that is to be run.

        `arriving`: `numbers` are of rows that come one after the other, with None where the next one has not come.
        `application` is the name that a person uses.  `numbered`: each task has a result that is called by its number.
        """
        self._numbered = numbered
        self.skipped = 0  # so many of those
        self.failure: CexecError | None = None
        self._application = application
        self._fingerprint = fingerprint.encode()
        self._plan = plan
        self._numbers = numbers
        self._blocks = blocks
        self._arriving = arriving
        self._journal = journal
        self._skip = skip
        self._check = check
        self._claims: dict[int, TaskClaim] = {}
        self._tasks: dict[int, Task] = {}  # those of blocks, which cannot be made again

    def numbers(self) -> Iterator[int]:
        """Yields the numbers of those that are to be run."""
        if self._blocks is None and self._journal is None and self._arriving is None:
            yield from filter(None, self._numbers)  # all of them; each is made when it begins
            return
        try:
            for task in self._all():
                if task is None:
                    yield NOTHING_YET
                elif self._claim(task):
                    if self._blocks is not None or self._arriving is not None:
                        self._check(task)
                    if self._blocks is not None:
                        self._tasks[task.number] = task
                    yield task.number
                else:
                    self.skipped += 1
                    self._skip(task.number)
        except CexecError as error:
            self.failure = error

    @property
    def done(self) -> int:
        """Counts the tasks that are not to be run, whatever became of them in an earlier run."""
        return self.skipped - len(self.left)

    @property
    def succeeded_before(self) -> int:
        """Counts the tasks that are not run because they have succeeded in an earlier run."""
        return 0 if self._journal is None else self._journal.passed_over[DONE]

    @property
    def failed_before(self) -> int:
        """Counts the tasks that are not run because they have failed in an earlier run."""
        return 0 if self._journal is None else self._journal.passed_over[FAILED]

    @property
    def come(self) -> int | None:
        """Counts the rows that have come so far; None unless rows come while tasks run."""
        return None if self._arriving is None else self._arriving.come

    @property
    def left(self) -> list[int]:
        """The numbers of tasks that a worker which must not repeat them may have begun in an earlier run."""
        return [] if self._journal is None else self._journal.left

    def on_arrival(self, tell: Callable[[], None]) -> None:
        """`tell` is called, from another thread, when there is more after NOTHING_YET."""
        if self._blocks is not None:
            self._blocks.arrived = tell
        if self._arriving is not None:
            self._arriving.on_arrival(tell)

    def task(self, number: int) -> Task:
        return self._tasks.get(number) or self._plan.task(number)

    @property
    def has_slots(self) -> bool:
        """True if the numbers of slots are wanted."""
        return self._plan.has_slot

    def in_slot(self, task: Task, slot: int) -> Task:
        """Returns the task with the number of the slot in which it is run."""
        return self._plan.with_slot(task, slot)

    def claim(self, number: int) -> TaskClaim | None:
        """Returns the journal's claim, if there is a journal."""
        return self._claims.get(number)

    def command(self, task: Task) -> str:
        """Returns the command that does the same, for people."""
        return short_command(task, self._application)

    def close(self, number: int) -> None:
        """Forgets a task that is over."""
        self._claims.pop(number, None)
        self._tasks.pop(number, None)

    def is_done(self, task: Task) -> bool:
        """Returns True if the journal knows that the task has succeeded with the inputs that it has now."""
        return self._journal is not None and self._journal.is_done(self._identity(task))

    def left_undone(self, *, all_rows: bool) -> list[str]:
        """Says in words which tasks of the journal a user may expect to have been run, and why they were not.

        `all_rows`: no row was left out because the user has said so.
        """
        if self._journal is None:
            return []
        told = []
        if self.left:
            told.append(
                f"not run again: {_named(self.left)}, which a worker whose jobs must not be repeated (cservice --once) "
                "may have begun; --repeat-once runs them"
            )
        if all_rows and (failed := self._journal.failed_and_not_claimed()):
            told.append(
                f"not run again: {_named(failed)}, which failed, because no row is the same task now: an argument, a "
                f"template or the program has changed; {RESUME} runs what is new"
            )
        return told

    def _all(self) -> Iterator[Task | None]:
        if self._blocks is not None:
            return self._block_tasks(self._blocks)
        return (None if number is None else self._plan.task(number) for number in self._numbers)

    def _block_tasks(self, blocks: BlockReader) -> Iterator[Task | None]:
        number = 1
        while (block := blocks.take()) != b"":
            yield None if block is None else self._plan.block_task(number, block)
            number += block is not None

    def _claim(self, task: Task) -> bool:
        if self._journal is None:
            return True
        claim = self._journal.claim(self._identity(task), self.command(task))
        if claim is not None:
            self._claims[task.number] = claim
        return claim is not None

    def _identity(self, task: Task) -> TaskIdentity:
        key = task.key(self._fingerprint)
        place = task.place(numbered=self._numbered)
        return TaskIdentity(key, task.number, task.stamp(), place, partial(task.old_key, self._fingerprint))


def _named(numbers: Sequence[int]) -> str:
    return f"{'task' if len(numbers) == 1 else 'tasks'} {format_ranges(sorted(numbers))}"
