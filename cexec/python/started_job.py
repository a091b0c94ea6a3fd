"""A job whose caller writes its input and reads its output while it runs: `AsyncClient.start`.

Contract: a `Job` belongs to one event loop.  Its streams are a `JobInput` or a `JobOutput`; outputs have to be read,
because the program waits when nobody does.  A job is repeated after the loss of its worker only if it was started with
`retries` and nobody could notice: nothing was written to it, no signal was sent, and nothing was read of it.
`wait` gives its `Completed`, without the outputs, or raises what ended it.
"""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, TypeVar

from cexec.client.aio.job_streams import JobInput, JobOutput, StreamedLeaseJob
from cexec.errors import JobCancelledError, UsageError
from cexec.protocol.connection.frames import Stream
from cexec.protocol.connection.options import READS, SIGNALS, WRITES
from cexec.python.completed import Completed
from cexec.python.errand import Errand

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType

    from cexec.client.aio.job_streams import Buffer
    from cexec.client.aio.lease import Lease
    from cexec.python.dispatcher import Dispatcher
    from cexec.python.job_plan import JobPlan, OpenSource
    from cexec.system.io.fds import Sink, Source

T = TypeVar("T")

FIRST_EXTRA, LAST_EXTRA = 3, 255  # descriptors besides the standard ones
NUMBERS = {getattr(signal, name): number for number, name in SIGNALS.items()}  # this machine's: the protocol's


class StreamedErrand(Errand):
    """The errand of a `Job`: by descriptor, what the program reads (`inputs`, `opened`) and writes (`outputs`)."""

    attempt_type = StreamedLeaseJob

    def __init__(self, plan: JobPlan, owner: Job, opened: Mapping[int, OpenSource], outputs: Iterable[int]) -> None:
        super().__init__(plan, owner.ended)
        self._owner = owner
        self.on_wanted = owner.slot_wanted.set
        self.opened = dict(opened)
        self.inputs: dict[int, JobInput] = {}
        self.outputs = {number: JobOutput(self._step_again) for number in (1, 2, *outputs)}
        self.signals: list[int] = []  # of the protocol, until the program runs
        self.signalled = False

    def add_input(self, number: int) -> None:
        """Lets the caller write what the program reads from this descriptor."""
        self.inputs[number] = JobInput(self._step_again)

    def send(self, number: int) -> None:
        """Sends a signal to the program, as soon as it runs."""
        if not self.began_at or self.lease is None or self.job is None:
            self.signals.append(number)
            return
        self.signalled = True
        self.lease.signal(number, self.job)

    def _step_again(self) -> None:
        if self.lease is not None and self.job is not None:
            self.lease.step_again(self.job)

    # as `Errand`

    def streams(self) -> list[Stream]:
        ways = dict.fromkeys((*self.inputs, *self.opened), READS) | dict.fromkeys(self.outputs, WRITES)
        return [Stream(number, ways[number]) for number in sorted(ways)]

    def add_sources(self, sources: dict[int, Source]) -> None:
        for number, opened in self.opened.items():
            sources[number] = opened()
        for number, one in self.inputs.items():
            sources[number] = one.source()

    def make_sinks(self) -> dict[int, Sink]:
        return {number: one.sink() for number, one in self.outputs.items()}

    def began(self, lease: Lease, once: bool) -> None:
        super().began(lease, once)
        self._owner.program_began(lease)
        for one in self.inputs.values():
            one.held = False
        self._step_again()
        waiting, self.signals = self.signals, []
        for number in waiting:
            self.send(number)

    def obstacle(self) -> str:
        if self.signalled:
            return "it was sent a signal"
        if any(one.given for one in self.inputs.values()):
            return "it was given input that is not kept"
        if any(one.seen for one in self.outputs.values()):
            return "its output has been read"
        return ""

    def start_again(self) -> None:
        self._owner.program_lost()
        for given in self.inputs.values():
            given.held = True
        for output in self.outputs.values():
            output.clear()


class Job:
    """A job that was started.  `slot_wanted` is set when another client waits for its slot.

    Leaving its `with` block ends the job there, if it still runs.
    """

    def __init__(
        self,
        plan: JobPlan,
        dispatcher: Dispatcher,
        *,
        opened: Mapping[int, OpenSource],
        inputs: Iterable[int],
        outputs: Iterable[int],
    ) -> None:
        """For `AsyncClient.start`.  `opened` and `inputs`: what the program reads; `outputs`: descriptors above 2."""
        self.slot_wanted = asyncio.Event()
        self.instance = b""
        self._dispatcher = dispatcher
        self._begun = asyncio.Event()
        self._over = asyncio.Event()
        self._plan = plan
        self._errand = StreamedErrand(plan, self, opened, outputs)
        for number in inputs:
            self._errand.add_input(number)
        dispatcher.submit(self._errand)

    # facts

    @property
    def worker(self) -> str:
        """The worker that runs the program, as name@address; empty before it has begun."""
        return self._errand.worker

    @property
    def returncode(self) -> int | None:
        """The exit status, -n for signal n; None while the job is not over, or if it has no status."""
        return None if self._errand.result is None else self._errand.returncode

    @property
    def over(self) -> bool:
        """True if the job has ended in any way."""
        return self._errand.over

    # streams

    @property
    def stdin(self) -> JobInput:
        """What the program reads; `UsageError` if `start` was given all of it."""
        return self.write_to(0)

    @property
    def stdout(self) -> JobOutput:
        """What the program writes."""
        return self._errand.outputs[1]

    @property
    def stderr(self) -> JobOutput:
        """What the program writes as its errors."""
        return self._errand.outputs[2]

    def write_to(self, number: int) -> JobInput:
        """Returns the input that the program has as this descriptor."""
        if number not in self._errand.inputs:
            raise UsageError(f"descriptor {number} of the job cannot be written to: start was not told so")
        return self._errand.inputs[number]

    def read_from(self, number: int) -> JobOutput:
        """Returns the output that the program has as this descriptor."""
        if number not in self._errand.outputs:
            raise UsageError(f"descriptor {number} of the job cannot be read from: start was not told so")
        return self._errand.outputs[number]

    # its course

    async def begun(self) -> None:
        """Waits until the program runs; raises what has ended the job before."""
        await self._begun.wait()
        if self._errand.error is not None and not self._errand.began_at:
            raise self._errand.error

    async def wait(self) -> Completed[None]:
        """Waits until the job is over; raises the error if the cluster, or the caller, has ended it.

        The outputs have to be read meanwhile, and the input to be closed if the program reads it to its end.
        """
        await self._over.wait()
        if self._errand.error is not None:
            raise self._errand.error
        return self._completed(None, None)

    async def communicate(self, input: Buffer | None = None) -> Completed[bytes]:
        """Writes the input, closes it, reads all output, and waits until the job is over."""
        writing = self._write_all(input or b"") if 0 in self._errand.inputs else asyncio.sleep(0)
        out, err, _, _ = await asyncio.gather(self.stdout.read(), self.stderr.read(), writing, self.wait())
        return self._completed(out, err)

    def send_signal(self, number: int) -> None:
        """Sends a signal to the program, as soon as it runs; nothing if it has ended.

        `UsageError` for a signal that no program can be sent over the network: SIGKILL, for example, is `cancel`.
        """
        if number not in NUMBERS:
            names = ", ".join(SIGNALS.values())
            raise UsageError(f"signal {number} cannot be sent to a job: {names} can, and cancel() ends it for certain")
        if not self._errand.over:
            self._errand.send(NUMBERS[number])

    async def cancel(self) -> None:
        """Ends the job: its worker ends the program and everything that it has started."""
        self._dispatcher.cancel(self._errand, JobCancelledError("the job has been cancelled"))
        await self._over.wait()

    async def __aenter__(self) -> Job:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.cancel()

    async def _write_all(self, data: Buffer) -> None:
        try:
            await self.stdin.write(data)
            self.stdin.close()
        except BrokenPipeError:
            pass  # as in subprocess: the program may end without reading all

    def _completed(self, stdout: T, stderr: T) -> Completed[T]:
        errand = self._errand
        return Completed(
            self._plan.args, errand.returncode, stdout, stderr, files=errand.files, circumstances=errand.circumstances()
        )

    # for the errand

    def program_began(self, lease: Lease) -> None:
        """The program runs at this lease's worker."""
        self.instance = lease.hello.instance
        self._begun.set()

    def program_lost(self) -> None:
        """Its worker was lost, and another attempt follows."""
        self._begun.clear()

    def ended(self, errand: Errand) -> None:
        """The job is over."""
        for output in self._errand.outputs.values():
            output.end(errand.error)
        for one in self._errand.inputs.values():
            one.refuse("the job has ended" if errand.error is None else str(errand.error))
        self._begun.set()
        self._over.set()
