"""Makes ready what a command line asks for: tasks, rules, files, journal.  It is here that mistakes are reported.

Contract: `Setup(options, ...)` raises `UsageError` or another `CexecError` before anything runs; `parts(terms)` is then
what a coordinator needs, and `close` ends what was opened.
"""

from __future__ import annotations

import os
import time
from itertools import count
from typing import TYPE_CHECKING

from cexec.client.attempt.program_plan import plan_programs
from cexec.cmap.inputs.arriving import ArrivingLines, check_readable, comes_bit_by_bit
from cexec.cmap.inputs.blocks import BlockReader
from cexec.cmap.inputs.checks import (
    arrival_check,
    check_block_task,
    check_blocks,
    check_lines_are_no_files,
    check_rows,
    check_templates_differ,
)
from cexec.cmap.inputs.result_checks import ResultRules
from cexec.cmap.inputs.sources import LINEAR, Reading, Selection, arriving_table, table_from, with_header
from cexec.cmap.inputs.store import spool_stream
from cexec.cmap.inputs.task_plan import Plan, Work
from cexec.cmap.results.attempt_files import AttemptFiles, make_results_directory, sweep
from cexec.cmap.results.commit import Committer
from cexec.cmap.results.journal import NEW, RESUME, RESUME_FAILED, RETRY_FAILED, Journal
from cexec.cmap.results.journal_copy import copied
from cexec.cmap.results.saver import Saver
from cexec.cmap.results.syncing import Syncer
from cexec.cmap.results.validate import Validator
from cexec.cmap.run.parts import Parts
from cexec.cmap.run.scheduler import Scheduler
from cexec.cmap.run.worklist import Worklist
from cexec.cmap.run_files import named_files, results_directory
from cexec.cmap.run_options import check_combinations, mode_of, policy_of
from cexec.cmap.shared_files import SharedFiles, names_a_command
from cexec.errors import UsageError
from cexec.protocol.connection.frames import FIRST_FILE

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
    from typing import BinaryIO

    from cexec.client.aio.worker_search import Terms
    from cexec.cmap.inputs.tables import Table
    from cexec.cmap.inputs.tasks import Task
    from cexec.cmap.run.observer import Observer
    from cexec.cmap.run_options import Options

DEFAULT_BLOCK = 1 << 20  # bytes (GNU parallel) --block
DEFAULT_END = b"\n"  # (GNU parallel) --recend
# A list that is written without pauses is read to its end, so that all of it can be checked beforehand.
PAUSE, LONGEST_WAIT = 0.5, 3.0  # seconds (ours): then tasks begin although the end has not come
TOKEN_SIZE = 8  # bytes (ours), for results of a run without a journal


class Setup:
    """`arguments` stood after `--`, `inputs` after `:::`.

    `application` is what the user calls the key, and `key` is the path of its file.
    """

    def __init__(
        self,
        options: Options,
        *,
        application: str,
        key: str,
        fingerprint: str,
        arguments: Sequence[str],
        inputs: Sequence[tuple[str, list[str]]],
        stdin: BinaryIO,
    ) -> None:
        self._options = options
        self._stdin = stdin
        self._shared: SharedFiles | None = None
        self._syncer = Syncer(on=not options.no_sync)
        self.journal: Journal | None = None
        self._mode = mode_of(options)
        check_combinations(options, inputs)
        if options.pipe or options.tee or not self._has_sources(inputs):
            check_readable(stdin)
        self._rules = ResultRules(
            files=named_files(options, key),
            kept_in=results_directory(options),
            overwrite=options.overwrite,
            resumed=self._mode != NEW,
        )
        self.policy = policy_of(options)
        self._validator = Validator(options.validate, "--validate") if options.validate else None
        self._collector = None
        if names_a_command(options.collect):
            self._collector = Validator(options.collect, "--collect")
        self._arriving: ArrivingLines | None = None  # lines of standard input that come while tasks run
        self._complete: Callable[[], int] = lambda: 0  # counts the rows of these
        self._table = None if options.pipe else self._read_table(inputs)
        self.plan = self._make_plan(arguments)
        self._selection = self._select()
        self.total = None if self._selection is None else len(self._selection)
        self.program = plan_programs(options.program, FIRST_FILE)
        hashes = "" if self.program is None else f" {self.program.options()}"  # another program, another task
        self._application, self._fingerprint = application, fingerprint + hashes
        self._token = os.urandom(TOKEN_SIZE).hex()

    @property
    def columns(self) -> Sequence[str]:
        """The names of what the tasks are made of; empty for blocks of standard input."""
        return () if self._table is None else self._table.columns

    def dry_run(self) -> Iterator[int]:
        """Yields the rows that would be run, in their order; the journal stays as it is."""
        selection, state = self._selection, self._options.state
        if selection is None:
            raise UsageError("--dry-run cannot be used with --pipe: the tasks are not known before")
        if self._mode == NEW:
            self._check_rows(selection)
            yield from selection
            return
        if self._mode == RETRY_FAILED and not os.path.exists(state):
            raise UsageError(f"{RETRY_FAILED} needs the journal of an earlier run, but there is no {state}")
        with copied(state) as path:
            self.journal = self._open_journal(path)
            try:
                worklist = self._make_worklist(skip=lambda number: None)
                self._rules.finished = worklist.is_done
                self._check_rows(selection)
                for number in worklist.numbers():
                    yield number
                    worklist.close(number)
            finally:
                self.journal.close()
                self.journal = None
            if worklist.failure is not None:
                raise worklist.failure

    def open(self) -> None:
        """Looks at every row, and opens what results go to."""
        options = self._options
        if options.state:
            self.journal = self._open_journal(options.state)
            self._token = self.journal.token
        self._worklist = self._make_worklist(skip=lambda number: self.saver.skip(number))
        self._rules.finished, self._rules.may_write = self._worklist.is_done, True
        if self._mode != NEW:
            self._sweep()
        if self._arriving is not None:
            self._check_first_rows()
        elif self._selection is None:
            check_blocks(self.plan)
        else:
            self._check_rows(self._selection)
        if self._rules.kept_in:
            self._make_results_directory()
        rules = self._rules
        columns = () if self._table is None else self._table.columns
        self._shared = SharedFiles(options, columns, overwrite=rules.overwrite, resumed=rules.resumed)

    def parts(self, terms: Terms, observers: Sequence[Observer], tell: Callable[[str], None]) -> Parts:
        """`tell` gets lines that the user should read at once."""
        options = self._options
        ordered = options.keep_order or options.collect
        order = None
        if ordered:
            order = count(1) if self._selection is None else self._selection.ascending()
        shared = self._shared
        assert shared is not None, "open() comes first"
        committer = Committer(self.journal, shared.writers, self._syncer)
        self.saver = Saver(committer, journal=self.journal, order=order, collector=self._collector)
        scheduler = Scheduler(self.policy, self._worklist.numbers(), self.total)
        return Parts(
            terms=terms,
            scheduler=scheduler,
            worklist=self._worklist,
            saver=self.saver,
            total=self.total,
            files=lambda task: AttemptFiles(task, self._token, self._rules.kept_in, replace=self._rules.overwrite),
            live=shared.live,
            sequence=options.term_seq,
            program=self.program,
            validator=self._validator,
            journal=self.journal,
            observers=observers,
            tell=tell,
        )

    @property
    def advice(self) -> str:
        """Tells the user how the rest can be done later, if it can."""
        return f"; go on with --state {self._options.state} {RESUME}" if self._options.state else ""

    @property
    def halt(self) -> str:
        """The rule of --halt, as the user wrote it."""
        halt = self._options.halt
        return "never" if halt is None else halt.text

    @property
    def why_nothing(self) -> str:
        """The reason why no task was begun although nothing went wrong."""
        done = self._worklist.done
        if not done:
            return "there is no input"
        failed = self._worklist.failed_before
        retry = f"; {failed} failed, which {RESUME_FAILED} runs again" if failed else ""
        return f"of {done} task{'' if done == 1 else 's'} none is left for {self._mode}{retry}"

    @property
    def left_undone(self) -> list[str]:
        """Says in words which tasks of the journal the user may expect to have been run, and why they were not."""
        return self._worklist.left_undone(all_rows=not self._options.rows)

    def end_validators(self) -> None:
        """Kills the commands of --validate and --collect that run."""
        for validator in (self._validator, self._collector):
            if validator is not None:
                validator.end()

    def close(self) -> None:
        if self._shared is not None:
            self._shared.close()
        self._syncer.close()
        if self.journal is not None:
            self.journal.close()

    # tasks

    def _read_table(self, inputs: Sequence[tuple[str, list[str]]]) -> Table:
        options = self._options
        reading = Reading(
            null=options.null, group=options.max_args, separator=options.colsep, headed=options.header is not None
        )
        if not (options.tee or self._has_sources(inputs)) and comes_bit_by_bit(self._stdin):
            return self._read_arriving(reading)
        return table_from(
            inputs=inputs,
            files=options.arg_file,
            params=options.params,
            array_members=options.array,
            slices=options.slices,
            stdin=None if options.tee else self._stdin,
            reading=reading,
        )

    def _has_sources(self, inputs: Sequence[tuple[str, list[str]]]) -> bool:
        """Returns True if the tasks come from somewhere else than standard input."""
        options = self._options
        return bool(inputs or options.arg_file or options.params or options.array or options.slices)

    def _read_arriving(self, reading: Reading) -> Table:
        """Reads a pipe or a terminal: to its end if that comes soon, or if the options need it."""
        options = self._options
        whole = options.dry_run or options.rows or options.order != LINEAR
        percent = options.halt is not None and options.halt.fraction is not None
        lines = ArrivingLines(self._stdin, reading.end)
        lines.wait(None if whole or percent else PAUSE, LONGEST_WAIT)
        table, complete = arriving_table(lines, reading)
        if not lines.ended:
            self._arriving, self._complete = lines, complete
        return table

    def _check_first_rows(self) -> None:
        """Looks at what can be judged before all rows have come."""
        check_templates_differ(self.plan)
        if self.plan.lines_are_stdin and self._table is not None:
            check_lines_are_no_files(self._table)

    def _make_plan(self, arguments: Sequence[str]) -> Plan:
        options = self._options
        work = Work(
            arguments=arguments,
            stdin=options.stdin,
            stdin_text=options.stdin_text,
            stdout=options.stdout,
            stderr=options.stderr,
            peers=options.peer,
            sends=options.send,
            inputs=options.input,
            fetches=options.fetch,
            tag=options.tagstring,
            changes=dict(options.rpl),
        )
        if not options.tee:
            return Plan(work, self._table)
        spool, digest = spool_stream(self._stdin)
        return Plan(work, self._table, shared=spool, shared_hash=digest)

    def _select(self) -> Selection | None:
        options = self._options
        if self._table is None or self._arriving is not None:
            return None
        seed = int.from_bytes(os.urandom(8), "big")
        return Selection(len(self._table), chosen=options.rows, order=options.order, seed=seed)

    def _open_journal(self, path: str) -> Journal:
        options = self._options
        numbered = bool(self._rules.kept_in) or any("#" in t.used for t in self.plan.result_templates)
        return Journal(
            path,
            self._mode,
            now=time.time(),
            sync=not options.no_sync,
            numbered=numbered,
            repeat_once=options.repeat_once,
        )

    def _make_worklist(self, skip: Callable[[int], None]) -> Worklist:
        options, blocks = self._options, None
        numbers: Iterable[int | None] = () if self._selection is None else self._selection
        if self._arriving is not None:
            numbers = self._arriving.numbers(self._complete)
        elif self._selection is None:
            end = DEFAULT_END if options.recend is None else options.recend
            size = options.block or DEFAULT_BLOCK
            blocks = BlockReader(with_header(self._stdin, options.header or 0, size, end))
        return Worklist(
            self.plan,
            numbers,
            blocks=blocks,
            arriving=self._arriving,
            journal=self.journal,
            application=self._application,
            fingerprint=self._fingerprint,
            skip=skip,
            check=self._arrival_check(),
            numbered=bool(self._rules.kept_in),
        )

    def _arrival_check(self) -> Callable[[Task], None]:
        """Returns the check of a task that has come while others ran."""
        if self._arriving is None:
            return lambda task: check_block_task(task, self._rules)
        check_row = arrival_check(self.plan, self._rules, has_variables=self._has_variables)
        return lambda task: check_row(task.number)

    # results

    def _check_rows(self, selection: Selection) -> None:
        check_rows(self.plan, selection.ascending(), self._rules, has_variables=self._has_variables)

    @property
    def _has_variables(self) -> bool:
        """True if a program here gets each row as variables."""
        return any(one is not None and one.is_command for one in (self._validator, self._collector))

    def _make_results_directory(self) -> None:
        numbers: Collection[int] | None = None if self._mode == NEW else ()  # those of --pipe are not known
        if self._selection is not None:
            numbers = self._selection.ascending()
        rules = self._rules
        make_results_directory(
            rules.kept_in,
            numbers,
            lambda number: rules.finished(self.plan.task(number)),
            overwrite=rules.overwrite,
            advice=rules.advice,
        )

    def _sweep(self) -> None:
        """Removes what a killed run has left in the directories of this one's results."""
        directories = {self._rules.kept_in} if self._rules.kept_in else set()
        table, templates = self.plan.table, self.plan.result_templates
        if self._selection is None or table is None:  # --pipe
            directories.update(os.path.dirname(template.text) or "." for template in templates)
        else:
            for number in self._selection.ascending() if templates else ():
                names = self.plan.result_names(table.row(number))
                places = (os.path.realpath(name) if os.path.islink(name) else name for name in names)
                directories.update(os.path.dirname(place) or "." for place in places)
        sweep(filter(os.path.isdir, directories), self._token)
