"""One of many jobs at once in an asyncio program: what it is, and the lease of a worker that runs it and others.

Contract: a `Lease` runs the job that its worker has been given and, each time that the worker confirms again, another
one, until it is released or closed; one of the two always comes.  The machines are those of `cexec`, `Pump` and
`Session`; here they only wait in asyncio's loop.  Sources and sinks must not need waiting: a source has no descriptor
that is polled (`fd` is -1), a sink takes all that it is given.  Whatever goes wrong with a worker while it runs a job
is a `CexecError`; its lease is then good for nothing but `close`.  docs/protocol.md section 4.4.
"""

from __future__ import annotations

import _socket
import asyncio
import os
from time import monotonic

from cexec.client.attempt.program_plan import asked
from cexec.client.search.failure_alert import send_alert
from cexec.errors import CexecError, DisconnectedError, LocalError, RefusedError
from cexec.net.pump import LEAST_CREDIT, Pump, Trouble
from cexec.protocol.base import sodium
from cexec.protocol.base.limits import IDENTITY_SIZE
from cexec.protocol.connection import frames
from cexec.protocol.connection.frames import FIRST_FILE, Go
from cexec.protocol.connection.options import LEASE, YES
from cexec.protocol.connection.session import OFFERED, OFFERING, OVER, RUNNING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cexec.client.attempt.program_plan import ProgramPlan
    from cexec.client.search.candidate import Winner
    from cexec.net.announcer import Announcer
    from cexec.protocol.base.keys import ClientKey
    from cexec.protocol.connection.frames import Exit, Stream
    from cexec.protocol.connection.session import Event
    from cexec.system.io.fds import Sink, Source


_CORK: int | None = getattr(_socket, "TCP_CORK", None)


class LeaseJob:
    """What a worker is to do and where its bytes come from and go, by stream number; for one attempt."""

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
        """`program`: what is to be run, if the worker is sent that too; its stream and options are not named."""
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
        self.missing: dict[int, str] = {}  # files that did not come, by stream, and why

    def go(self, attempt: int = 1, *, lease: bool = True) -> Go:
        """The frame that gives it to a worker; without `lease` the worker is told that no other job follows it."""
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
    """A worker that has been given a job, and may take more.  Belongs to one coroutine, `signal` to any."""

    def __init__(self, winner: Winner, announcer: Announcer) -> None:
        """`announcer` found the worker, and may be closed; complaints go where it sent to."""
        self.hello = winner.hello
        self.address = winner.address
        self._winner = winner
        self._announcer = announcer
        self._pump = Pump(winner.connection, winner.records, winner.session)
        self._session = winner.session
        self._fd = winner.connection.fileno()
        self._loop = asyncio.get_running_loop()
        self._found: list[Event | Trouble] = []
        self._failure: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._writing = False  # the loop tells us when more can be sent
        self._timer = self._loop.call_at(self._session.next_timeout(), self._look)
        self._loop.add_reader(self._fd, self._step)

    @property
    def once(self) -> bool:
        """True if the worker says that a job which it may have started must never be repeated."""
        return self.hello.once

    @property
    def worker(self) -> str:
        """What it is called."""
        return f"{self.hello.name}@{self.address}"

    async def offered(self, patience: float) -> bool:
        """Whether the worker confirms again within `patience` seconds; `give` must then follow within one.

        One that does not may do so later, as long as the lease is not `over`.
        """
        until = monotonic() + patience
        while self._session.state == OFFERING and not self.over and monotonic() < until:
            try:
                await self._events(until)
            except DisconnectedError:
                break
        return not self.over and bool(self._session.state == OFFERED)

    @property
    def over(self) -> bool:
        """Whether no job can be given any more: the worker has hung up, for example because it stops."""
        return self._failure is not None or self._session.state == OVER

    def give(self, go: Go) -> None:
        """Another job for a worker that has confirmed; it is sent when the job is `run`."""
        self._session.go(go)

    async def run(self, job: LeaseJob, began: Callable[[bool], None]) -> Exit:
        """The job that the worker has been given, to its end.  `began` hears whether it must never be repeated.

        `RefusedError` when it was not begun; `LocalError` when a sink or a source fails.  Sources are read at once.
        """
        self._pump.sinks.update(job.sinks)
        self._pump.sources.update(job.sources)
        result = None
        try:
            self._hold_back(True)  # GO and a short input travel together
            self._step()
            if self._eager:
                self._step()  # and its end, which is seen only now
            self._hold_back(False)
            while result is None:
                for event in await self._events():
                    if result is None:  # what follows an EXIT is not about this job
                        result = self._handle(event, job, began)
            return result
        finally:
            for stream in list(self._pump.sources):
                self._pump.close_source(stream)
            self._pump.sinks.clear()
            job.close()

    def signal(self, number: int) -> None:
        """Passes a signal on to the program, if it runs."""
        if self._session.state == RUNNING:
            self._session.signal(number)
            self._step()

    def complain(self, key: ClientKey, job: LeaseJob, attempt: int, error: CexecError, duration: float) -> None:
        """Tells the loggers, and the worker, that the job has failed there; after `duration` seconds."""
        send_alert(
            key=key,
            announcer=self._announcer,
            job_id=job.job_id,
            attempt=attempt,
            error=error,
            final=False,
            winner=self._winner,
            duration=duration,
        )

    def release(self) -> None:
        """The worker is free: nothing of ours runs there."""
        self._forget()
        self._session.release()
        self._pump.say_goodbye()

    def close(self) -> None:
        """Hangs up; the worker ends what runs for us."""
        self._forget()
        self._pump.connection.close()

    def _handle(self, event: Event | Trouble, job: LeaseJob, began: Callable[[bool], None]) -> Exit | None:
        if isinstance(event, Trouble):
            verb = "write" if event.writing else "read"
            raise LocalError(f"cannot {verb} stream {event.stream} of a job: {os.strerror(event.error).lower()}")
        if event.kind == frames.STARTED:
            began(bool(event.number & frames.ONCE) or self.once)
        elif event.kind == frames.PROGRAM:
            self._pump.sources.update(asked(job.program, event.text))
        elif event.kind == frames.REFUSED and event.refusal is not None:
            raise RefusedError(event.refusal.reason, permanent=event.refusal.kind == frames.PERMANENT)
        elif event.kind == frames.WITHDRAW:
            raise RefusedError(event.text, permanent=False)
        elif event.kind == frames.BROKEN and event.stream >= FIRST_FILE:
            job.missing[event.stream] = event.text
        elif event.kind == frames.BROKEN:
            raise DisconnectedError(f"lost stream {event.stream} of the program: {event.text}")
        return event.exit

    # waiting

    async def _events(self, until: float = float("inf")) -> list[Event | Trouble]:
        """What has happened, as soon as something has; nothing when the time has come."""
        while not self._found:
            if self._failure is not None:
                raise self._failure
            if monotonic() >= until:
                break
            if self._eager:
                await asyncio.sleep(0)  # more could be sent at once, but others wait too
                self._step()
            else:
                await self._wait(until)
        found, self._found = self._found, []
        return found

    @property
    def _eager(self) -> bool:
        room = self._pump.records.has_room
        return room and any(self._session.sendable(stream) >= LEAST_CREDIT for stream in self._pump.sources)

    async def _wait(self, until: float) -> None:
        """Until a step has been made, or the time has come."""
        waiter = self._waiter = self._loop.create_future()
        timer = None if until == float("inf") else self._loop.call_at(until, self._wake)
        try:
            await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    def _hold_back(self, held: bool) -> None:
        if _CORK is not None:
            try:
                self._pump.connection.setsockopt(_socket.IPPROTO_TCP, _CORK, held)
            except OSError:
                pass  # it has gone, or is no TCP connection

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _step(self) -> None:
        """Moves what can be moved; called by the loop too, when the connection is ready.  Failures are kept."""
        if self._failure is None:
            try:
                self._found += self._pump.step(0.0)
            except Exception as error:
                self._failure = error
        writing = self._failure is None and not self._pump.flushed
        if self._failure is not None:
            self._forget()
        elif writing and not self._writing:
            self._loop.add_writer(self._fd, self._step)
        elif self._writing and not writing:
            self._loop.remove_writer(self._fd)
        self._writing = writing
        self._wake()

    def _look(self) -> None:
        """The session wants to be asked now and then."""
        self._step()
        if self._failure is None:
            self._timer = self._loop.call_at(self._session.next_timeout(), self._look)

    def _forget(self) -> None:
        """The loop is to know nothing more of the connection."""
        self._timer.cancel()
        if self._pump.connection.fileno() >= 0:
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)
