"""Many jobs at once in an asyncio program: one job, and the lease of a worker that runs one job after the other.

Contract: a `Lease` runs the job that its worker has been given and, each time that the worker confirms again, another
one.  Its owner ends it by `release` or `close`.  It uses the machines of `cexec` (`Attempt`, `Pump`, `Session`); here
asyncio's loop waits for them.  Sources and sinks must not need waiting: a source has no descriptor (`fd` is -1), and a
sink takes all bytes that it is given.  A failure of the worker during a job is a `CexecError`; after it the lease can
only be closed.  docs/protocol.md section 4.4.
"""

from __future__ import annotations

import asyncio
from math import inf
from time import monotonic

from cexec.client.attempt import attempt as meaning
from cexec.client.attempt.attempt import LOST, Attempt
from cexec.client.attempt.program_plan import asked
from cexec.client.attempt.stepping import advance, next_timeout, take_turn
from cexec.client.search.failure_alert import FailedAttempt, send_alert
from cexec.errors import CexecError, DisconnectedError, LocalError, WithdrawnError
from cexec.net.liveness import hurry
from cexec.net.pump import LEAST_CREDIT, Pump
from cexec.protocol.base import sodium
from cexec.protocol.base.limits import IDENTITY_SIZE
from cexec.protocol.connection.frames import Go
from cexec.protocol.connection.options import LEASE, YES
from cexec.protocol.connection.session import OFFERED, OFFERING, OVER, RUNNING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cexec.client.attempt.attempt import AttemptEvent
    from cexec.client.attempt.program_plan import ProgramPlan
    from cexec.client.search.candidate import Winner
    from cexec.net.announcer import Announcer
    from cexec.protocol.base.keys import ClientKey
    from cexec.protocol.connection.frames import Exit, Stream
    from cexec.system.io.fds import Sink, Source


MOST_UNREAD = 64  # steps (ours) in which all is read that can wait in the kernel: a peer may go on sending for ever


class LeaseJob:
    """A job for one attempt.  `sources` and `sinks` carry its bytes, by stream number."""

    def __init__(
        self,
        *,
        streams: list[Stream],
        sources: dict[int, Source],
        sinks: dict[int, Sink],
        arguments: list[bytes] | None = None,
        environment: dict[str, bytes] | None = None,
        options: dict[str, str] | None = None,
        program: ProgramPlan | None = None,
    ) -> None:
        """`program`: the program itself, if the worker is sent that, too; its stream and options are added here."""
        self.job_id = sodium.random_bytes(IDENTITY_SIZE)
        self.streams = streams
        self.sources = sources
        self.sinks = sinks
        self.arguments = arguments or []
        self.environment = environment or {}
        self.options = options or {}
        self.program = program
        if program is not None:
            self.streams = [*streams, program.stream()]
            self.options = {**self.options, **program.options()}
        self.missing: dict[int, str] = {}  # files that did not come, by stream, with the reasons

    def go(self, attempt: int = 1, *, lease: bool = True) -> Go:
        """Returns the frame that gives the job to a worker.  Without `lease` no other job can follow it."""
        return Go(
            job_id=self.job_id,
            attempt=attempt,
            streams=self.streams,
            arguments=self.arguments,
            environment=self.environment,
            options={**self.options, LEASE: YES} if lease else self.options,
        )

    def close(self) -> None:
        for source in self.sources.values():
            source.close()
        for sink in self.sinks.values():
            sink.close()


class Lease:
    """A worker that has been given a job, and may take more.  One coroutine owns it; any may call `signal`."""

    def __init__(self, winner: Winner, announcer: Announcer) -> None:
        """`announcer` has found the worker, and may be closed; complaints go to its group."""
        self.hello = winner.hello
        self.address = winner.address
        self._winner = winner
        self._announcer = announcer
        self._pump = Pump(winner.connection, winner.records, winner.session)
        self._session = winner.session
        self._fd = winner.connection.fileno()
        self._loop = asyncio.get_running_loop()
        self._attempt: Attempt | None = None  # while a job runs
        self._failed = False  # True once the connection has failed
        self._error: Exception | None = None  # an error of this program, which the waiting coroutine raises
        self._waiter: asyncio.Future[None] | None = None
        self._writing = False  # True while the loop waits until more can be sent
        self._timer = self._loop.call_at(self._session.next_timeout(), self._look)
        self._loop.add_reader(self._fd, self._step, True)
        hurry(winner.connection)

    @property
    def once(self) -> bool:
        """True if the worker says that a job which it may have started must never be repeated."""
        return self.hello.once

    @property
    def worker(self) -> str:
        """The worker's name and address, for messages."""
        return f"{self.hello.name}@{self.address}"

    async def offered(self, patience: float) -> bool:
        """Returns True if the worker confirms again within `patience` seconds; `give` must then follow within one.

        A worker that has not confirmed may do so later, as long as the lease is not `over`.
        """
        until = monotonic() + patience
        while self._session.state == OFFERING and not self.over and monotonic() < until:
            await self._wait(until)
        return not self.over and bool(self._session.state == OFFERED)

    @property
    def over(self) -> bool:
        """True if no job can be given any more: the worker has hung up, for example because it stops."""
        return self._failed or self._session.state == OVER

    def give(self, go: Go) -> None:
        """Gives another job to a worker that has confirmed; it is sent when the job is `run`."""
        if not self.over:  # else it has withdrawn while the job was chosen, and `run` raises that
            self._session.go(go)

    async def run(self, job: LeaseJob, began: Callable[[bool], None]) -> Exit:
        """Runs the job that the worker has been given, to its end.

        When the program starts, `began` is called with True if the job must never be repeated.  Raises `RefusedError`
        if the program was not started, `WithdrawnError` if the worker took its offer back before, `LocalError` if a
        sink or a source fails.  Sources are read at once.
        """
        if self.over:
            job.close()
            raise WithdrawnError("the worker has hung up")
        attempt = self._attempt = Attempt(once=self.once)
        self._pump.sinks.update(job.sinks)
        self._pump.sources.update(job.sources)
        result = None
        try:
            self._pump.hold_back()  # GO and a short input travel together
            self._step(False)
            self._pump.let_go()
            while result is None:
                while result is None and (event := attempt.next_event()) is not None:
                    result = self._handle(event, job, began)
                if result is None:
                    await self._progress()
            return result
        finally:
            self._attempt = None
            for stream in list(self._pump.sources):
                self._pump.close_source(stream)
            self._pump.sinks.clear()
            job.close()

    def conclude(self) -> bool:
        """Reads all that has come; returns True if the job is over with it, so that `run` returns or raises."""
        attempt = self._attempt
        for _ in range(MOST_UNREAD):
            if attempt is None or attempt.over or self._failed:
                break
            self._step(None)
            if self._pump.read_all:
                break
        return attempt is not None and attempt.over

    def signal(self, number: int) -> None:
        """Passes a signal on to the program, if it runs."""
        if self._session.state == RUNNING:
            self._session.signal(number)
            self._step(False)

    def complain(
        self, key: ClientKey, job: LeaseJob, attempt: int, error: CexecError, duration: float, *, blame: bool = True
    ) -> None:
        """Tells the loggers, and unless it is not to `blame` the worker, that the job has failed there.

        `duration`: seconds that it took to fail.
        """
        failed = FailedAttempt(job.job_id, attempt, self._winner, duration, blame=blame)
        send_alert(key, self._announcer, failed, error, final=False)

    def release(self) -> None:
        """Ends the lease in peace: the worker is free for others."""
        self._forget()
        self._session.release()
        self._pump.say_goodbye()

    def close(self) -> None:
        """Hangs up; the worker ends a job that still runs."""
        self._forget()
        self._pump.connection.close()

    def _handle(self, event: AttemptEvent, job: LeaseJob, began: Callable[[bool], None]) -> Exit | None:
        if isinstance(event, meaning.OutputEnded):
            return None  # the most frequent one; a sink of ours has no reader that waits for its end
        if isinstance(event, meaning.Ended):
            return event.exit
        if isinstance(event, meaning.Began):
            assert self._attempt is not None
            began(self._attempt.once)
        elif isinstance(event, meaning.ProgramAsked):
            self._pump.sources.update(asked(job.program, event.platform))
        elif isinstance(event, meaning.FileMissing):
            job.missing[event.stream] = event.reason
        elif isinstance(event, meaning.FailedHere):
            verb = "write" if event.writing else "read"
            raise event.error or LocalError(f"cannot {verb} stream {event.stream} of a job: {event.reason}")
        else:
            raise event.error
        return None

    # waiting

    async def _progress(self) -> None:
        """Waits until a step has been made."""
        if self._error is not None:
            raise self._error
        if self._failed:
            raise DisconnectedError("the connection has ended")
        if self._eager:
            await asyncio.sleep(0)  # more could be sent at once, but others wait too
            self._step(False)
        else:
            await self._wait(inf)

    @property
    def _eager(self) -> bool:
        if not self._pump.sources:
            return False
        room = self._pump.records.has_room
        return room and any(self._session.sendable(stream) >= LEAST_CREDIT for stream in self._pump.sources)

    async def _wait(self, until: float) -> None:
        """Waits until a step has been made, or the time has come."""
        waiter = self._waiter = self._loop.create_future()
        timer = None if until == inf else self._loop.call_at(until, self._wake)
        try:
            await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _step(self, readable: bool | None) -> None:
        """Moves bytes without waiting.  The loop calls it, too, when the connection is ready.

        `readable` is None if that is not known: then it is looked at, and what is due by the time is done.
        """
        if self._failed:
            return
        try:
            self._move(readable)
            if self._attempt is not None:
                if self._pump.failed:
                    advance(self._attempt, self._pump, 0.0)  # the first step may have had events to tell before
                # A job that was refused, or has failed here, says nothing about the connection.
                self._failed = self._attempt.state == LOST or self._pump.failed
                self._arm(next_timeout(self._attempt, self._winner.watch))
            self._arm(self._session.next_timeout())
        except CexecError:
            self._failed = True
        except Exception as error:  # asyncio would only print it, and the job would wait for ever
            self._failed, self._error = True, error
        writing = not self._failed and self._pump.wants_out
        if self._failed:
            self._forget()
        elif writing and not self._writing:
            self._loop.add_writer(self._fd, self._step, False)
        elif self._writing and not writing:
            self._loop.remove_writer(self._fd)
        self._writing = writing
        self._wake()

    def _move(self, readable: bool | None) -> None:
        attempt, pump = self._attempt, self._pump
        if attempt is None:  # between two jobs a worker's frames only change the session's state
            _ = pump.step(0.0) if readable is None else pump.turn(readable)
        elif readable is None:
            advance(attempt, pump, 0.0, self._winner.watch)
        else:
            take_turn(attempt, pump, readable)

    def _arm(self, due: float | None) -> None:
        """Lets `_look` come earlier if that is due; a timer that comes too early does no harm."""
        if due is not None and due < self._timer.when():
            self._timer.cancel()
            self._timer = self._loop.call_at(due, self._look)

    def _look(self) -> None:
        """Steps because a timeout of the session or of the attempt is due."""
        self._step(None)
        if not self._failed:
            self._timer = self._loop.call_at(self._session.next_timeout(), self._look)
            if self._attempt is not None:
                self._arm(next_timeout(self._attempt, self._winner.watch))

    def _forget(self) -> None:
        """Removes the connection and the timer from the loop."""
        self._timer.cancel()
        if self._pump.connection.fileno() >= 0:
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)
