"""What a coordinator is made of.

Contract: a value, which `setup` makes of the options.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cexec.client.aio.worker_search import Terms
    from cexec.client.attempt.program_plan import ProgramPlan
    from cexec.cmap.inputs.tasks import Task
    from cexec.cmap.results.attempt_files import AttemptFiles
    from cexec.cmap.results.collect import Live
    from cexec.cmap.results.journal import Journal
    from cexec.cmap.results.saver import Saver
    from cexec.cmap.results.validate import Validator
    from cexec.cmap.run.events import Observer
    from cexec.cmap.run.scheduler import Scheduler
    from cexec.cmap.run.worklist import Worklist


class Parts:
    """`files` makes the outputs of an attempt, `live` what hears them as they come; `sequence` is that of --term-seq,
    `program` that of --program; `total` is the number of all rows, None if nobody knows; `tell` gets lines for people.
    """

    def __init__(
        self,
        *,
        terms: Terms,
        scheduler: Scheduler,
        worklist: Worklist,
        saver: Saver,
        total: int | None,
        files: Callable[[Task], AttemptFiles],
        live: Callable[[Task], Live] | None,
        sequence: Sequence[tuple[int, float]],
        program: ProgramPlan | None = None,
        judge: Validator | None = None,
        journal: Journal | None = None,
        observers: Sequence[Observer] = (),
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.terms = terms
        self.scheduler = scheduler
        self.worklist = worklist
        self.saver = saver
        self.total = total
        self.files = files
        self.live = live
        self.sequence = sequence
        self.program = program
        self.judge = judge
        self.journal = journal
        self.observers = observers
        self.tell = tell
