"""A job of the Python API on its way through its attempts, until it has a result or an error.

Contract: an `Errand` is submitted to a `Dispatcher`, which asks it for a `LeaseJob` for each attempt and tells it what
happens.  The errand decides, by the rules of `cexec`, if another attempt may follow: `withdrawn`, `refused` and `lost`
return True then, and otherwise it has failed.  Each errand ends once, by `finish` or `fail`, and then calls `ended`.
"""

from __future__ import annotations

from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from cexec.client.aio.lease_job import STANDARD_STREAMS, LeaseJob
from cexec.client.attempt.repetition import Repetitions
from cexec.errors import CexecError, LocalError, StalledError
from cexec.protocol.connection.frames import FIRST_FILE
from cexec.python.completed import Circumstances, returncode_of, usage_of
from cexec.system.io.fds import Sink

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import TypeAlias

    from cexec.client.aio.lease import Lease
    from cexec.errors import RefusedError, WithdrawnError
    from cexec.protocol.connection.frames import Exit, Stream
    from cexec.python.job_plan import JobPlan
    from cexec.system.io.fds import Source

    Ended: TypeAlias = Callable[["Errand"], None]

AVOIDED_FOR = 2.0  # seconds (ours) that other workers have before one that has failed with this job


class MemorySink(Sink):
    """Keeps all bytes in memory."""

    def __init__(self) -> None:
        super().__init__(-1, shared=True)
        self.data = bytearray()

    def write(self, view: memoryview) -> int:
        self.data += view
        self.count += len(view)
        return len(view)


class Errand:
    """One job.  `owner` is the task that carries it out now, `lease` what it runs on."""

    attempt_type: type[LeaseJob] = LeaseJob  # each attempt is one of these
    may_wait = False  # True if a worker can be given it in advance
    on_wanted: Callable[[], None] | None = None  # is called when another client waits for the slot, if that is of use

    def __init__(self, plan: JobPlan, ended: Ended) -> None:
        """`ended` is called once, when there is a result or an error."""
        self.plan = plan
        self.attempts = 0
        self.began_at = 0.0  # monotonic seconds of the last attempt's begin; 0 if its program does not run
        self.submitted = monotonic()
        self.job: LeaseJob | None = None
        self.lease: Lease | None = None
        self.owner: asyncio.Task[None] | None = None
        self.once = False
        self.over = False
        self.unwanted: BaseException | None = None  # the error with which another attempt is to be replaced
        self.result: Exit | None = None
        self.error: BaseException | None = None
        self.files: dict[str, bytes | Path] = {}
        self.worker = ""
        self.duration = 0.0
        self._ended = ended
        self._repetitions = Repetitions(plan.retries)
        self._avoided: dict[bytes, float] = {}  # instances, and until when
        self._kept: list[MemorySink] = []  # the files of the attempt that come back as bytes
        self._lost_by = b""

    def avoids(self, instance: bytes, now: float) -> bool:
        """Returns True if other workers are to have the job rather than this one."""
        return now < self._avoided.get(instance, 0.0)

    # attempts

    def prepare(self) -> LeaseJob:
        """Begins an attempt: returns its streams; raises `LocalError` for a file that cannot be opened."""
        self.discard()
        self.attempts += 1
        self.once = False
        self.began_at = 0.0
        sources: dict[int, Source] = {}
        try:
            self.add_sources(sources)
            for number, (_, opened) in enumerate(self.plan.files, FIRST_FILE):
                sources[number] = opened()
            self._kept = [MemorySink() for _ in self.plan.fetch]
            sinks = {
                **self.make_sinks(),
                **dict(enumerate(self._kept, self.plan.first_fetched)),
                **self.plan.placed.sinks(),
            }
        except BaseException:
            for source in sources.values():
                source.close()
            raise
        self.job = self.make_job([*self.streams(), *self.plan.file_streams()], sources, sinks)
        return self.job

    def make_job(self, streams: list[Stream], sources: dict[int, Source], sinks: dict[int, Sink]) -> LeaseJob:
        return self.attempt_type(
            streams=streams,
            sources=sources,
            sinks=sinks,
            arguments=self.plan.invocation.arguments,
            environment=self.plan.invocation.environment,
            options=self.plan.invocation.options,
        )

    def streams(self) -> list[Stream]:
        """Returns the streams of the program's descriptors."""
        return [*STANDARD_STREAMS]

    def add_sources(self, sources: dict[int, Source]) -> None:
        """Adds the sources of what the program reads."""
        sources[0] = self.plan.input()

    def make_sinks(self) -> dict[int, Sink]:
        """Returns the sinks for what the program writes, which are made anew."""
        raise NotImplementedError

    # what the dispatcher tells

    def began(self, lease: Lease, once: bool) -> None:
        """The program runs."""
        self.once = once
        self.began_at = monotonic()
        self.worker = lease.worker

    def finish(self, result: Exit) -> None:
        """The program has ended, and everything that it wrote is here."""
        self.duration = monotonic() - self.began_at
        self.result = result
        try:
            self._bring_files(result)
        except LocalError as error:
            self.fail(error)
            return
        self._end()

    def fail(self, error: BaseException) -> None:
        """There will be no result."""
        self.error = error
        self._end()

    def withdrawn(self, lease: Lease, error: WithdrawnError) -> bool:
        """The worker has taken its offer back, or returned the job."""
        return self._goes_on(*self._repetitions.withdrawn(name_of(lease), error))

    def refused(self, lease: Lease, error: RefusedError) -> bool:
        """The worker has not started the program."""
        self._avoided[lease.hello.instance] = monotonic() + AVOIDED_FOR
        return self._goes_on(*self._repetitions.refused(name_of(lease), error))

    def lost(self, lease: Lease, error: CexecError) -> bool:
        """The worker has failed, and the program may have run."""
        instance = lease.hello.instance
        if isinstance(error, StalledError) or self._lost_by == instance:
            self._avoided[instance] = monotonic() + AVOIDED_FOR
        self._lost_by = instance
        once = self.once or lease.once
        goes_on = self._goes_on(*self._repetitions.lost(name_of(lease), error, once=once, obstacle=self.obstacle))
        if goes_on:
            self.start_again()
        return goes_on

    def obstacle(self) -> str:
        """Returns why another attempt would be noticed; empty if it would not."""
        return ""

    def start_again(self) -> None:
        """Forgets what a lost attempt has left."""

    def _goes_on(self, _: str, final: CexecError | None) -> bool:
        self.discard()
        if final is not None:
            self.fail(final)
        return final is None

    def discard(self) -> None:
        """Throws away what the last attempt has opened and written."""
        if self.job is not None:
            self.job.close()
            self.job = None
        self.plan.placed.discard()
        self._kept = []

    def _bring_files(self, result: Exit) -> None:
        """Takes over the files that have come; raises `LocalError` if the program has succeeded without one of them."""
        missing = {} if self.job is None else self.job.missing
        for number, (name, kept) in enumerate(zip(self.plan.fetch, self._kept, strict=True), self.plan.first_fetched):
            if number not in missing:
                self.files[name] = bytes(kept.data)
            elif result.exit_status == 0:
                raise LocalError(f"cannot fetch {name}: the program has succeeded, but {missing[number]}")
        first = self.plan.first_fetched + len(self.plan.fetch)
        for number, (name, path) in enumerate(self.plan.paths.items(), first):
            if number in missing:
                self.plan.placed.failed(number, missing[number])
            else:
                self.files[name] = Path(path)
        self.plan.placed.commit(result.exit_status)

    def _end(self) -> None:
        if not self.over:
            self.over = True
            self.discard()
            self.plan.close()
            self._ended(self)

    # results

    def circumstances(self) -> Circumstances:
        """Returns how the job came to its end."""
        assert self.result is not None
        return Circumstances(self.worker, self.attempts, self.duration, usage_of(self.result), self.result.message)

    @property
    def returncode(self) -> int:
        assert self.result is not None
        return returncode_of(self.result)


def name_of(lease: Lease) -> str:
    """Returns the worker's name in the words of `cexec`."""
    return f"worker {lease.hello.name} at {lease.address}"
