"""A `Job` for programs that block: `Client.start`.

Contract: the methods are those of `Job`, `JobInput` and `JobOutput`; each waits for its result, in any thread.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType

    from cexec.client.aio.job_streams import Buffer, JobInput, JobOutput
    from cexec.python.completed import Completed
    from cexec.python.loop_thread import LoopThread
    from cexec.python.started_job import Job

CHUNK = 1 << 62  # bytes (ours): no chunk is longer


class BlockingJob:
    """A `Job` whose methods block."""

    def __init__(self, job: Job, thread: LoopThread, client: object) -> None:
        """For `Client.start`.  `client` has to live as long as its job."""
        self._job = job
        self._thread = thread
        self._client = client

    def __enter__(self) -> BlockingJob:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    @property
    def worker(self) -> str:
        """The worker that runs the program, as name@address; empty before it has begun."""
        return self._job.worker

    @property
    def returncode(self) -> int | None:
        """The exit status, -n for signal n; None while the job is not over, or if it has no status."""
        return self._job.returncode

    @property
    def stdin(self) -> BlockingInput:
        """What the program reads; `UsageError` if `start` was given all of it."""
        return self.write_to(0)

    @property
    def stdout(self) -> BlockingOutput:
        """What the program writes."""
        return self.read_from(1)

    @property
    def stderr(self) -> BlockingOutput:
        """What the program writes as its errors."""
        return self.read_from(2)

    def write_to(self, number: int) -> BlockingInput:
        """Returns the input that the program has as this descriptor."""
        return BlockingInput(self._job.write_to(number), self._thread)

    def read_from(self, number: int) -> BlockingOutput:
        """Returns the output that the program has as this descriptor."""
        return BlockingOutput(self._job.read_from(number), self._thread)

    def begun(self) -> None:
        """Waits until the program runs; raises what has ended the job before."""
        self._thread.call(self._job.begun)

    def wait(self) -> Completed[None]:
        """Waits until the job is over; raises the error if the cluster, or the caller, has ended it."""
        return self._thread.call(self._job.wait)

    def communicate(self, input: Buffer | None = None) -> Completed[bytes]:
        """Writes the input, closes it, reads all output, and waits until the job is over."""
        return self._thread.call(partial(self._job.communicate, input))

    def send_signal(self, number: int) -> None:
        """Sends a signal to the program, as soon as it runs; nothing if it has ended."""

        async def send() -> None:
            self._job.send_signal(number)

        self._thread.call(send)

    def cancel(self) -> None:
        """Ends the job: its worker ends the program and everything that it has started."""
        if not self._job.over:
            self._thread.call(self._job.cancel)


class BlockingInput:
    """A `JobInput` whose methods block."""

    def __init__(self, input: JobInput, thread: LoopThread) -> None:
        self._input = input
        self._thread = thread

    def write(self, data: Buffer | Iterable[Buffer]) -> None:
        """Writes bytes, or several pieces; `BrokenPipeError` when the program reads no more."""
        self._thread.call(partial(self._input.write, data))

    def close(self) -> None:
        """Lets the program find the end of its input."""
        self._thread.call_soon(self._input.close)


class BlockingOutput:
    """A `JobOutput` whose methods block."""

    def __init__(self, output: JobOutput, thread: LoopThread) -> None:
        self._output = output
        self._thread = thread

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self.read(CHUNK):
            yield chunk

    def read(self, size: int = -1) -> bytes:
        """Returns up to `size` bytes as soon as there are some, or without a size all up to the end; b"" at the end."""
        return self._thread.call(partial(self._output.read, size))

    def readexactly(self, size: int) -> bytes:
        """Returns `size` bytes; `asyncio.IncompleteReadError` if the output ends before."""
        return self._thread.call(partial(self._output.readexactly, size))
