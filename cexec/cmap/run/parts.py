"""Holds the parts of which a coordinator is made.

Contract: a value, which `setup` makes of the options; tests put their own workers and their own clock into it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, TypeAlias

from cexec.client.aio.worker_search import find_worker

if TYPE_CHECKING:
    from cexec.client.aio.lease import Lease
    from cexec.client.aio.worker_search import Choose, Terms
    from cexec.client.attempt.program_plan import ProgramPlan
    from cexec.cmap.inputs.tasks import Task
    from cexec.cmap.results.attempt_files import AttemptFiles
    from cexec.cmap.results.collect import Live
    from cexec.cmap.results.journal import Journal
    from cexec.cmap.results.saver import Saver
    from cexec.cmap.results.validate import Validator
    from cexec.cmap.run.observer import Observer
    from cexec.cmap.run.scheduler import Scheduler
    from cexec.cmap.run.worklist import Worklist

    FindWorker: TypeAlias = Callable[[Terms, Choose], Awaitable[Lease]]


def say_nothing(text: str) -> None:
    """Stands for somebody who reads lines, where there is nobody."""


@dataclass(slots=True, kw_only=True)
class Parts:
    """`files` makes the outputs of an attempt, `live` what hears them as they come; `sequence` is that of --term-seq,
    `program` that of --program; `total` is the number of all rows, None if nobody knows; `tell` gets lines for people.
    `clock` is monotonic and the same as that of asyncio's loop.
    """

    terms: Terms
    scheduler: Scheduler
    worklist: Worklist
    saver: Saver
    total: int | None
    files: Callable[[Task], AttemptFiles]
    live: Callable[[Task], Live] | None
    sequence: Sequence[tuple[int, float]]
    program: ProgramPlan | None = None
    validator: Validator | None = None
    journal: Journal | None = None
    observers: Sequence[Observer] = ()
    tell: Callable[[str], None] = say_nothing
    find_worker: FindWorker = find_worker
    clock: Callable[[], float] = monotonic
