"""A job that is not over: its errand, its outputs, its input, and those who wait for it.

Contract: `record` is what clients are told: it changes only when the change is on the disk, and `changed` returns then.
`output` is a log while the job runs, and what is kept of it afterwards.  A job whose input is streamed has one writer
at a time, who says from which byte on he writes; if nobody does for INPUT_GRACE seconds, the job is cancelled, because
the program would wait for ever.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cexec.gate.problem import Problem
from cexec.gate.store.bell import Bell
from cexec.gate.store.job_records import TRANSITIONS

if TYPE_CHECKING:
    from collections.abc import Callable

    from cexec.client.aio.job_streams import Buffer
    from cexec.gate.jobs.stored_errand import StoredErrand
    from cexec.gate.store.job_records import JobRecord, JobState
    from cexec.gate.store.output_log import KeptOutput, OutputLog
    from cexec.python.dispatcher import Dispatcher

INPUT_GRACE = 60.0  # seconds (ours)


class LiveJob:
    """One job.  `token`: the id of the token that has started it."""

    def __init__(self, record: JobRecord, token: int, give_up: Callable[[LiveJob], None]) -> None:
        """`give_up` ends a job whose input nobody writes."""
        self.record = record
        self.latest = record  # as it will be told when it is on the disk
        self.token = token
        self.outputs: dict[int, OutputLog | KeptOutput] = {}
        self.dispatcher: Dispatcher | None = None
        self.ending: tuple[JobState, str] | None = None  # state and reason that the caller has decided on
        self._errand: StoredErrand | None = None
        self._bell = Bell()
        self._give_up = give_up
        self._writer = False
        self._received = 0
        self._input_timer: asyncio.TimerHandle | None = None

    @property
    def errand(self) -> StoredErrand:
        assert self._errand is not None
        return self._errand

    def begin(self, errand: StoredErrand, dispatcher: Dispatcher) -> None:
        """Gives the job to the cluster."""
        self._errand, self.dispatcher = errand, dispatcher
        self.outputs.update(errand.logs)
        if errand.stdin is not None:
            self._expect_input()
        dispatcher.submit(errand)

    def move(self, to: JobRecord) -> bool:
        """Changes the state, as the table allows; False if it is over, or in that state already."""
        if to.state not in TRANSITIONS[self.latest.state]:
            return False
        self.latest = to
        if to.over and self._input_timer is not None:
            self._input_timer.cancel()
            self._input_timer = None
        return True

    def tell(self, record: JobRecord) -> None:
        """Tells those who wait that this is on the disk."""
        self.record = record
        self._bell.ring()

    async def changed(self, seconds: float | None = None) -> bool:
        """Waits for the next change; False after `seconds`."""
        return await self._bell.wait(seconds)

    async def wait(self, seconds: float | None = None) -> bool:
        """Waits until it is over and that is on the disk; False after `seconds`."""
        loop = asyncio.get_running_loop()
        until = None if seconds is None else loop.time() + seconds
        while not self.record.over:
            if not await self._bell.wait(None if until is None else until - loop.time()):
                return False
        return True

    # input

    @property
    def received(self) -> int:
        """The number of bytes of a streamed input that have come."""
        return self._received

    def input_document(self) -> dict[str, object]:
        """Returns how much of a streamed input has come, and if more is taken."""
        stdin = self.errand.stdin
        return {"received": self._received, "open": stdin is not None and not stdin.closed}

    def take_input(self, offset: int | None) -> InputWriter:
        """Returns the writer of the input from this byte on; `Problem` 409 if that is not possible."""
        stdin = self.errand.stdin
        if stdin is None:
            raise Problem(409, 'the job has all of its input: it was not started with stdin {"stream": true}')
        if self._writer:
            raise Problem(409, "another request writes the input of this job")
        if stdin.closed:
            raise Problem(409, "the input of this job has been closed", received=self._received)
        if offset is not None and offset != self._received:
            raise Problem(409, f"the input has come up to byte {self._received}; go on with offset={self._received}",
                          received=self._received)  # fmt: skip
        self._writer = True
        if self._input_timer is not None:
            self._input_timer.cancel()
            self._input_timer = None
        return InputWriter(self)

    async def write_input(self, data: Buffer) -> None:
        """For the writer: returns when the worker has taken the bytes."""
        assert self.errand.stdin is not None
        self._received += len(data)
        await self.errand.stdin.write(data)

    def end_input(self, complete: bool) -> None:
        """For the writer: there is no more of it, or he has gone before its end."""
        self._writer = False
        stdin = self.errand.stdin
        if stdin is None or self.latest.over:
            return
        if complete:
            stdin.close()
        elif not stdin.closed:
            self._expect_input()

    def _expect_input(self) -> None:
        self._input_timer = asyncio.get_running_loop().call_later(INPUT_GRACE, self._give_up, self)


class InputWriter:
    """Who writes a job's input.  `broken` is True when the program reads no more: what is written then is dropped.

    Leaving its `with` block without `close` means that the input is not complete: another writer may go on.
    """

    def __init__(self, job: LiveJob) -> None:
        self.broken = False
        self._job = job
        self._closed = False

    def __enter__(self) -> InputWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._closed:
            self._closed = True
            self._job.end_input(False)

    async def write(self, data: Buffer) -> None:
        """Returns when the worker has taken the bytes."""
        try:
            if not self.broken:
                await self._job.write_input(data)
        except BrokenPipeError:  # as with a pipe: the program may go on, or end, without reading all
            self.broken = True

    def close(self) -> None:
        """That was all of it."""
        if not self._closed:
            self._closed = True
            self._job.end_input(True)
