"""One attempt of a task as a job of `client.aio`: streams, and where their bytes come from and go.

Contract: `make_job` opens what the task reads (`LocalError` names what cannot be) and joins the program's outputs to
the attempt's `AttemptFiles`.  No descriptor here is ever waited for: inputs are regular files or memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cexec.client.aio.data_sources import DataSource, PathSource
from cexec.client.aio.lease_job import STANDARD_STREAMS, LeaseJob
from cexec.cmap.inputs.tasks import FILE, PATH, SHARED, STDERR, STDOUT
from cexec.protocol.connection.frames import FIRST_FILE, Stream
from cexec.protocol.connection.options import FETCH_ON_FAILURE, NO, READS, WRITES
from cexec.protocol.connection.options import FILE as FILE_KIND
from cexec.system.io.fds import FEW, Sink, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cexec.client.attempt.program_plan import ProgramPlan
    from cexec.cmap.inputs.store import Spool
    from cexec.cmap.inputs.tasks import Task
    from cexec.cmap.results.attempt_files import AttemptFiles, Output

STANDARD_INPUT, STANDARD_OUTPUT, STANDARD_ERROR = 0, 1, 2
KINDS = {STANDARD_OUTPUT: STDOUT, STANDARD_ERROR: STDERR}


class SharedSpoolSource(Source):
    """A spool that many tasks read, each from its beginning."""

    def __init__(self, spool: Spool) -> None:
        super().__init__(-1, shared=True)
        self._spool = spool
        self._position = 0
        self.few = spool.size <= FEW

    def read_into(self, view: memoryview) -> int | None:
        data = self._spool.read(self._position, len(view))
        view[: len(data)] = data
        self._position += len(data)
        self.few = self._spool.size - self._position <= FEW
        return len(data)


class OutputSink(Sink):
    """Takes everything.  `listener` hears it too, as it comes."""

    def __init__(self, output: Output, listener: Callable[[bytes], None] | None = None) -> None:
        super().__init__(-1, shared=True)
        self._output = output
        self._listener = listener

    def write(self, view: memoryview) -> int:
        self._output.append(view)
        if self._listener is not None:
            self._listener(bytes(view))
        self.count += len(view)
        return len(view)


def make_job(
    task: Task,
    files: AttemptFiles,
    listeners: Mapping[str, Callable[[bytes], None]] | None = None,
    program: ProgramPlan | None = None,
) -> LeaseJob:
    """`listeners` hear what comes on STDOUT and STDERR at once, for --line-buffer; `program` is that of --program."""
    heard = listeners or {}
    streams: list[Stream] = [*STANDARD_STREAMS]
    sinks: dict[int, Sink] = {n: OutputSink(files.outputs[kind], heard.get(kind)) for n, kind in KINDS.items()}
    sources: dict[int, Source] = {STANDARD_INPUT: _standard_input(task)}
    options: dict[str, str] = {}
    if task.sends or task.texts or task.results:
        options = _join_files(task, files, streams, sources, sinks)
    return LeaseJob(
        streams=streams,
        sources=sources,
        sinks=sinks,
        arguments=task.arguments,
        environment=task.environment,
        options=options,
        program=None if program is None else program.at(FIRST_FILE + len(streams) - len(STANDARD_STREAMS)),
    )


def _join_files(
    task: Task,
    files: AttemptFiles,
    streams: list[Stream],
    sources: dict[int, Source],
    sinks: dict[int, Sink],
) -> dict[str, str]:
    """Adds the files that the job is given, and those that come back; returns what its options say of them.

    All sources are closed if one cannot be read.
    """
    given = [name for name, _ in (*task.sends, *task.texts)]
    fetched = [result.name for result in task.results if result.kind == FILE]
    try:
        for number, (_, path) in enumerate(task.sends, FIRST_FILE):
            sources[number] = PathSource(path)
        for number, (_, text) in enumerate(task.texts, FIRST_FILE + len(task.sends)):
            sources[number] = DataSource(text)
    except BaseException:
        for source in sources.values():
            source.close()
        raise
    streams += [Stream(number, READS, FILE_KIND, name=name) for number, name in enumerate(given, FIRST_FILE)]
    for number, name in enumerate(fetched, FIRST_FILE + len(given)):
        sinks[number] = OutputSink(files.outputs[name])
        streams.append(Stream(number, WRITES, FILE_KIND, name=name))
    return {FETCH_ON_FAILURE: NO} if fetched else {}


def _standard_input(task: Task) -> Source:
    stdin = task.stdin
    if stdin.kind == PATH:
        return PathSource(stdin.path)
    if stdin.kind == SHARED and stdin.spool is not None:
        return SharedSpoolSource(stdin.spool)
    return DataSource(stdin.data)
