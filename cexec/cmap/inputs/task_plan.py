"""Makes a task of a row, as the options say.

Contract: `Plan(work, table)` raises `UsageError` for a column that the table has not and for options that contradict
one another; `task(number)` is then one `Task`, made when it is asked for.  Where neither --stdin nor --stdin-text is
given and nothing that the worker gets has a placeholder, the input itself with its line end is the job's standard
input.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cexec.client.request import check_variable
from cexec.cmap.inputs.shell_commands import shell_command
from cexec.cmap.inputs.tables import UNKNOWN_SLOT, Row, encode
from cexec.cmap.inputs.tasks import BLOCK, DATA, FILE, NOTHING, PATH, SHARED, STDERR, STDOUT, Result, Task, TaskInput
from cexec.cmap.inputs.templates import SLOT, Template
from cexec.errors import UsageError
from cexec.system.reason import reason_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cexec.cmap.inputs.shell_commands import Call
    from cexec.cmap.inputs.store import Spool
    from cexec.cmap.inputs.tables import Table
    from cexec.cmap.inputs.templates import Changes

Pair = tuple[Template, Template]
LARGEST_TEXT = 1 << 24  # bytes (ours) of a template file


class Work:
    """The options that say what a task is, as the user wrote them."""

    def __init__(
        self,
        *,
        arguments: Sequence[str] = (),
        stdin: str | None = None,
        stdin_text: str | None = None,
        stdout: str | None = None,
        stderr: str | None = None,
        peers: Sequence[str] = (),
        sends: Sequence[str] = (),
        inputs: Sequence[str] = (),
        fetches: Sequence[str] = (),
        tag: str | None = None,
        changes: Changes | None = None,
    ) -> None:
        """`peers` are KEY=TEXT, `inputs` NAME=TEMPLATE-FILE, `fetches` NAME=FILE; `changes` are those of --rpl."""
        self.arguments = arguments
        self.stdin = stdin
        self.stdin_text = stdin_text
        self.stdout = stdout
        self.stderr = stderr
        self.peers = peers
        self.sends = sends
        self.inputs = inputs
        self.fetches = fetches
        self.tag = tag
        self.changes = changes


class Plan:
    """All tasks.  `table` is None for --pipe, whose tasks are blocks; `shared` is the standard input of all (--tee)."""

    def __init__(
        self, work: Work, table: Table | None, *, shared: Spool | None = None, shared_hash: bytes = b""
    ) -> None:
        self.table = table
        self._columns: Sequence[str] = () if table is None else table.columns
        self._changes = work.changes
        self._shared = None if shared is None else TaskInput(SHARED, data=shared_hash, spool=shared)
        self.arguments = [self._template(text) for text in work.arguments]
        self._peers = [(_peer_name(text), self._template(text.partition("=")[2])) for text in work.peers]
        self.sends = [self._template(text) for text in work.sends]
        self._texts = [self._text_file(text) for text in work.inputs]
        self.stdin = None if work.stdin is None else self._template(work.stdin)
        self._stdin_text = None if work.stdin_text is None else self._template(work.stdin_text)
        self._fetches = [self._pair(text, "--fetch") for text in work.fetches]
        outputs = ((STDOUT, work.stdout), (STDERR, work.stderr))
        self._outputs = [(kind, self._template(text)) for kind, text in outputs if text is not None]
        self._tag = None if work.tag is None else self._template(work.tag)
        self.result_templates = [template for _, template in self._outputs] + [path for _, path in self._fetches]
        self._has_files = bool(self.sends or self._texts or self.result_templates)
        self._check_stdin()
        self.has_slot = self._find_slot()
        nothing = table is not None and not table.columns  # -n0
        self.lines_are_stdin = (
            table is not None and self._shared is None and not nothing and not self._worker_sees_row()
        )

    def task(self, number: int, slot: str = UNKNOWN_SLOT) -> Task:
        """Returns the task of one row; `slot` is what `{%}` stands for."""
        assert self.table is not None
        row = self.table.row(number)
        row.slot = slot
        parameters = dict(zip(self._columns, row.cells, strict=True))
        return self._task(row, self._stdin(row), parameters, " ".join(row.inputs))

    def block_task(self, number: int, block: bytes, slot: str = UNKNOWN_SLOT) -> Task:
        """Returns the task of one block of --pipe."""
        row = Row(number, ())
        row.slot = slot
        return self._task(row, TaskInput(BLOCK, data=block), {}, str(number))

    def with_slot(self, task: Task, slot: int) -> Task:
        """Returns the task as it is run in this slot."""
        if not self.has_slot:
            return task
        if task.stdin.kind == BLOCK:
            return self.block_task(task.number, task.stdin.data, str(slot))
        return self.task(task.number, str(slot))

    def results(self, row: Row) -> list[Result]:
        """Returns what comes back into files of its own."""
        results = [Result(kind, template.render(row)) for kind, template in self._outputs]
        return results + [Result(FILE, path.render(row), name.render(row)) for name, path in self._fetches]

    def result_names(self, row: Row) -> list[str]:
        return [template.render(row) for template in self.result_templates]

    def longest_arguments(self, longest_row: int) -> int:
        """Bytes that arguments and environment take at most."""
        templates = (*self.arguments, *(template for _, template in self._peers))
        return sum(4 + 4 * len(t.text) + t.text.count("{") * longest_row for t in templates)

    @property
    def names_on_worker(self) -> list[Template]:
        """Raises `UsageError` for a wrong name of a file that is made from a template or comes back."""
        return [name for name, _ in (*self._texts, *self._fetches)]

    @property
    def read_templates(self) -> list[Template]:
        """The names of the files that the tasks read here."""
        return [template for template in (self.stdin, *self.sends) if template is not None]

    def read_files(self, row: Row) -> list[str]:
        return [path for template in self.read_templates for path in template.render_each(row)]

    def sent_files(self, row: Row) -> list[str]:
        return [path for template in self.sends for path in template.render_each(row)]

    def _task(self, row: Row, stdin: TaskInput, parameters: dict[str, str], label: str) -> Task:
        task = Task(
            row.number,
            stdin=stdin,
            parameters=parameters,
            label=label,
            tag=None if self._tag is None else self._tag.render(row),
        )
        if self.arguments or self._peers:
            task.arguments = [encode(text) for template in self.arguments for text in template.render_each(row)]
            task.environment = {name: encode(template.render(row)) for name, template in self._peers}
        if self._has_files:
            task.sends = [(os.path.basename(path), path) for path in self.sent_files(row)]
            task.texts = [(name.render(row), encode(text.render(row))) for name, text in self._texts]
            task.results = self.results(row)
        return task

    def _stdin(self, row: Row) -> TaskInput:
        if self._shared is not None:
            return self._shared
        if self.stdin is not None:
            return TaskInput(PATH, path=self.stdin.render(row))
        if self._stdin_text is not None:
            return TaskInput(DATA, data=encode(self._stdin_text.render(row)))
        if self.lines_are_stdin and self.table is not None:
            return TaskInput(DATA, data=encode(row.line + self.table.terminator))
        return TaskInput(NOTHING)

    def _worker_sees_row(self) -> bool:
        """True if anything that the worker is given depends on the row."""
        given = [*self.arguments, *self.sends, *(value for _, value in self._peers)]
        given += [template for pair in self._texts for template in pair]
        given += [name for name, _ in self._fetches]
        sees = any(template.used - {SLOT} for template in given)
        return self.stdin is not None or self._stdin_text is not None or sees

    def _find_slot(self) -> bool:
        """Returns True if a text that the worker gets has `{%}`; refuses it elsewhere."""
        texts = [*self.arguments, *(value for _, value in self._peers), *filter(None, [self._stdin_text])]
        others = [*self.sends, *self.result_templates, *filter(None, [self.stdin, self._tag])]
        others += [template for pair in (*self._texts, *self._fetches) for template in pair]
        wrong = next((template.text for template in others if SLOT in template.used), None)
        if wrong is not None:
            raise UsageError(
                f"{wrong!r}: the slot of {{%}} is known when a worker gets the task, so it can stand in "
                "arguments, --peer and --stdin-text only"
            )
        return any(SLOT in template.used for template in texts)

    def _check_stdin(self) -> None:
        sources = {
            "--stdin": self.stdin is not None,
            "--stdin-text": self._stdin_text is not None,
            "--tee": self._shared is not None,
            "--pipe": self.table is None,
        }
        given = [option for option, is_given in sources.items() if is_given]
        if len(given) > 1:
            raise UsageError(f"{given[0]} and {given[1]} cannot be used together: a job has one standard input")

    # templates

    def _template(self, text: str) -> Template:
        template = Template(text, self._columns, self._changes)
        if self.table is None and "{}" in template.used:
            raise UsageError(f"{text!r}: with --pipe a task is a block of standard input; only {{#}} has a meaning")
        return template

    def _pair(self, text: str, option: str) -> Pair:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise UsageError(f"{option} is {text!r}, but must be NAME=FILE")
        return self._template(name), self._template(value)

    def _text_file(self, text: str) -> Pair:
        """Returns the name on the worker, and the content of the template file."""
        name, equals, path = text.partition("=")
        if not (name and equals and path):
            raise UsageError(f"--input is {text!r}, but must be NAME=TEMPLATE-FILE")
        try:
            with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
                content = file.read(LARGEST_TEXT + 1)
        except OSError as error:
            raise UsageError(f"cannot read {path}: {reason_of(error)}") from None
        if len(content) > LARGEST_TEXT:
            raise UsageError(f"{path} is too long for a template; give it with --send")
        try:
            return self._template(name), self._template(content)
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from None


def _peer_name(text: str) -> str:
    name, equals, _ = text.partition("=")
    if not equals:
        raise UsageError(f"--peer is {text!r}, but must be KEY=TEXT")
    try:
        check_variable(name)
    except UsageError as error:
        raise UsageError(f"--peer is {text!r}, but {error}") from None
    return name


def dry_run(plan: Plan, numbers: Iterable[int], call: Call) -> Iterator[str]:
    """Yields for each task the command that would run it."""
    return (shell_command(plan.task(number), call) for number in numbers)
