"""The errand of a job whose outputs are logs that many may read.

Contract: what the program writes goes to an `OutputLog`.  While somebody `reads along` (the client of a pipe), the log
takes no more than WINDOW bytes that he has not read, and the program waits; everybody else reads what is kept.  A job
is repeated after the loss of its worker only if nobody could notice: its input is kept, no signal was sent, and nothing
of its outputs was read.  An output of which more than `limit` bytes would be kept ends its job.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from cexec.client.aio.job_streams import JobInput
from cexec.client.aio.lease_job import LeaseJob
from cexec.gate.store.output_files import FULL, SEGMENT
from cexec.python.errand import Errand
from cexec.system.io.fds import Sink
from cexec.system.reason import reason_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from cexec.client.aio.lease import Lease
    from cexec.gate.store.output_log import OutputLog
    from cexec.python.errand import Ended
    from cexec.python.job_plan import JobPlan
    from cexec.system.io.fds import Source

WINDOW = 1024 * 1024  # bytes (ours) that wait for the client of a pipe before its program does
LEAST_ALONG = (
    2 * SEGMENT + WINDOW
)  # bytes that are kept of an output while somebody reads along: files are dropped whole


class LogSink(Sink):
    """The end of one attempt's output.  `read_up_to` is where the reader is who reads along; None without one."""

    def __init__(self, log: OutputLog, limit: int) -> None:
        super().__init__(-1, shared=True)
        self.log: OutputLog | None = log
        self.read_up_to: int | None = None
        self.full = False  # it has refused bytes
        self.trouble = ""  # why bytes could not be kept
        self.no_room = False  # because the disk is full
        self._limit = limit
        self._rest = False

    def write(self, view: memoryview) -> int:
        log = self.log
        if log is None:
            return len(view)
        limit = self._limit
        if self.read_up_to is not None:
            limit = max(limit, LEAST_ALONG)
            if not self._rest:
                view = view[: max(0, WINDOW - (log.end - self.read_up_to))]
            if log.end + len(view) - log.began > limit:
                log.drop_before(self.read_up_to)
        if not len(view):
            self.full = True
            return 0
        if log.end + len(view) - log.began > limit:
            self.trouble = "the output is longer than cgate keeps (--max-output)"
            raise OSError(errno.EFBIG, self.trouble)
        try:
            log.append(view)
        except OSError as error:
            self.trouble = f"the output cannot be kept: {reason_of(error)}"
            self.no_room = error.errno in FULL
            raise
        self.count += len(view)
        return len(view)

    def take_rest(self) -> None:
        """The job is over: what has come is taken now."""
        self._rest = True

    def detach(self) -> None:
        """The attempt is over, which says nothing about the end of the output."""
        self.log = None

    def close(self) -> None:
        """The program has closed this output."""
        if self.log is not None:
            self.log.close()
            self.log = None


class StoredLeaseJob(LeaseJob):
    """One attempt of such a job."""

    def take_rest(self) -> None:
        for sink in self.sinks.values():
            if isinstance(sink, LogSink):
                sink.take_rest()

    def whole_inputs(self) -> dict[int, bytes] | None:
        """A job with streams that may wait is not given in advance."""
        waits = any(isinstance(one, LogSink) and one.read_up_to is not None for one in self.sinks.values())
        return None if waits else super().whole_inputs()

    def close(self) -> None:
        for sink in self.sinks.values():
            if isinstance(sink, LogSink):
                sink.detach()
        super().close()


class StoredErrand(Errand):
    """One job.  `logs`: by stream; `stdin`: what the client writes, None if the input is known."""

    attempt_type = StoredLeaseJob

    def __init__(
        self,
        plan: JobPlan,
        ended: Ended,
        *,
        logs: dict[int, OutputLog],
        streamed: bool,
        limit: int,
        moved: Callable[[bool], None],
    ) -> None:
        """`moved` is told that the program runs, or waits again."""
        super().__init__(plan, ended)
        self.logs = logs
        self.stdin = JobInput(self.step_again) if streamed else None
        self.signalled = False
        self.may_wait = not streamed
        self._along = dict.fromkeys(logs, -1)  # where those are who read along, -1 for nobody
        self._signals: list[int] = []  # until the program runs
        self._limit = limit
        self._moved = moved
        self._sinks: dict[int, LogSink] = {}

    @property
    def trouble(self) -> str:
        """Why an output could not be kept; empty if it could."""
        return next((one.trouble for one in self._sinks.values() if one.trouble), "")

    @property
    def no_room(self) -> bool:
        """True if that is because the disk is full."""
        return any(one.no_room for one in self._sinks.values())

    def send(self, number: int) -> None:
        """Sends a signal (the protocol's number) to the program, as soon as it runs."""
        if not self.began_at or self.lease is None or self.job is None:
            self._signals.append(number)
            return
        self.signalled = True
        self.lease.signal(number, self.job)

    def read_along(self, stream: int, offset: int | None) -> None:
        """Says that the client of a pipe has read up to here; None: he has gone, or reads no more."""
        self._along[stream] = -1 if offset is None else offset
        sink = self._sinks.get(stream)
        if sink is None:
            return
        sink.read_up_to = offset
        if sink.full and (offset is None or sink.log is None or sink.log.end - offset < WINDOW // 2):
            sink.full = False
            self.step_again()

    def step_again(self) -> None:
        """Lets the lease move bytes."""
        if self.lease is not None and self.job is not None:
            self.lease.step_again(self.job)

    # as `Errand`

    def add_sources(self, sources: dict[int, Source]) -> None:
        if self.stdin is not None:
            sources[0] = self.stdin.source()
        else:
            super().add_sources(sources)

    def make_sinks(self) -> dict[int, Sink]:
        self._sinks = {number: LogSink(log, self._limit) for number, log in self.logs.items()}
        for number, sink in self._sinks.items():
            sink.read_up_to = None if self._along[number] < 0 else self._along[number]
        return {**self._sinks}

    def began(self, lease: Lease, once: bool) -> None:
        super().began(lease, once)
        self._moved(True)
        if self.stdin is not None:
            self.stdin.held = False
            self.step_again()
        waiting, self._signals = self._signals, []
        for number in waiting:
            self.send(number)

    def obstacle(self) -> str:
        if self.signalled:
            return "it was sent a signal"
        if self.stdin is not None and self.stdin.given:
            return "it was given input that is not kept"
        if any(log.seen for log in self.logs.values()):
            return "its output has been read"
        return ""

    def start_again(self) -> None:
        if self.stdin is not None:
            self.stdin.held = True
        for log in self.logs.values():
            log.clear()
        self._moved(False)
