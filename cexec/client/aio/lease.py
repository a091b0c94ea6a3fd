"""Many jobs at once in an asyncio program: the lease of a worker that runs one job after the other.

Contract: a `Lease` runs the job that its worker has been given and, each time that the worker confirms again, another
one.  While a job runs, `give_ahead` gives the worker the next one, which waits there for its turn.  The lease's owner
ends it by `release` or `close`.  It uses the machines of `cexec` (`Attempt`, `Pump`, `Session`); here
asyncio's loop waits for them.  Sources and sinks have no descriptor (`fd` is -1).  One that is `idle`, or takes fewer
bytes than it is given, calls `step_again` when that has changed; meanwhile credit is withheld, so that no more than one
window waits here.  A job with such sources or sinks is neither given in advance nor has another one behind it.  A
failure of the worker during a job is a `CexecError`; after it the lease can only be closed.  `on_wanted` is called when
another client waits for the slot of the job that runs, at most once for each job, and only if its GO has asked for that
(`LeaseJob.go`).  docs/protocol.md section 4.4.
"""

from __future__ import annotations

import asyncio
from math import inf
from time import monotonic

from cexec.client.aio.connection_watch import ConnectionWatch
from cexec.client.attempt import attempt as meaning
from cexec.client.attempt import rare_events
from cexec.client.attempt.attempt import WITHDRAWN, Attempt
from cexec.client.attempt.in_turn import AttemptsInTurn
from cexec.client.attempt.patience import make_patience
from cexec.client.attempt.program_plan import asked
from cexec.client.attempt.stepping import advance, take_turn
from cexec.client.search.failure_alert import FailedAttempt, send_alert
from cexec.errors import CexecError, DisconnectedError, LocalError, RevokedError, WithdrawnError
from cexec.net.pump import LEAST_CREDIT, Pump
from cexec.net.sockets import hurry
from cexec.protocol.connection.frames import Go
from cexec.protocol.connection.session import OFFERED, OFFERING, OVER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cexec.client.aio.lease_job import LeaseJob
    from cexec.client.attempt.attempt import AttemptEvent
    from cexec.client.search.reception import Winner
    from cexec.client.search.trust import RevocationWatch
    from cexec.net.announcer import Announcer
    from cexec.protocol.base.keys import ClientKey
    from cexec.protocol.connection.frames import Exit


LATER = 1.0  # seconds (ours) between two looks while a job is given and not run
MOST_UNREAD = 64  # steps (ours) in which all is read that can wait in the kernel: a peer may go on sending for ever


class Lease:
    """A worker that has been given a job, and may take more.  One coroutine owns it; any may call `signal`."""

    def __init__(self, winner: Winner, announcer: Announcer, progress: float = 0.0) -> None:
        """`announcer` has found the worker, and may be closed; complaints go to its group.

        `progress`: seconds in which some byte must come or go while a job runs, 0 for any time.
        """
        self.on_wanted: Callable[[], None] | None = None
        self._progress_timeout = progress
        self.hello = winner.hello
        self.once = winner.hello.once  # a job that the worker may have started must never be repeated
        self.address = winner.address
        self._winner = winner
        self._announcer = announcer
        self._pump = Pump(winner.connection, winner.records, winner.session)
        self._session = winner.session
        self._attempts = AttemptsInTurn()
        self._ahead: dict[LeaseJob, Attempt] = {}  # the job that was given in advance, until it is `run`
        self._running: tuple[LeaseJob, Attempt] | None = None  # that `run` waits for
        # True while a job is given and not `run`: nothing is read then, because nobody would take what it says.
        self._given = winner.session.state not in (OFFERING, OFFERED)
        self._failed = False  # True once the connection has failed
        self._revoked = ""  # the worker, in words, since a look between two jobs
        self._error: Exception | None = None  # an error of this program, which the waiting coroutine raises
        self._watch = ConnectionWatch(winner.connection, self._step, self._look, self._next_timeout())
        hurry(winner.connection)
        if not self._given:
            self._watch.read()

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
            await self._watch.wait(until)
        return not self.over and bool(self._session.state == OFFERED)

    @property
    def over(self) -> bool:
        """True if no job can be given any more: the worker has hung up, for example because it stops."""
        return self._failed or self._session.state == OVER

    def give(self, go: Go) -> None:
        """Gives another job to a worker that has confirmed; it is sent when the job is `run`."""
        if not self.over:  # else it has withdrawn while the job was chosen, and `run` raises that
            self._given = True
            self._session.go(go)

    @property
    def may_give_ahead(self) -> bool:
        """True if the worker could be given a job in advance now."""
        return not self._failed and not self.once and self._session.may_go_ahead

    def give_ahead(self, job: LeaseJob, attempt: int) -> bool:
        """Gives the worker the job behind the one that runs; `run` must follow when that is over.

        Returns False if that is not possible: its input is not in memory, or too long.
        """
        inputs = job.whole_inputs()
        if inputs is None or not self.may_give_ahead:
            return False
        try:
            self._session.go_ahead(job.go(attempt), inputs)
        except ValueError:
            return False
        self._pump.sinks.prepared = dict(job.sinks)
        self._ahead[job] = self._attempts.following = Attempt(once=False)
        self._send()
        return True

    def has(self, job: LeaseJob) -> bool:
        """Returns True if the worker was given this job in advance, and it has not been `run` yet."""
        return job in self._ahead

    def was_returned(self, job: LeaseJob) -> bool:
        """Returns True if the worker has returned this job, so that it has not begun and never will."""
        return job in self._ahead and self._ahead[job].state == WITHDRAWN

    def take_back(self, job: LeaseJob) -> bool:
        """Asks for a job that was given in advance; False if it was not, or has begun."""
        attempt = self._ahead.get(job)
        if attempt is None or attempt is not self._attempts.following or self._failed:
            return False
        self._session.take_back()
        self._step(False)
        return True

    async def run(
        self,
        job: LeaseJob,
        began: Callable[[bool], None],
        *,
        beside: Callable[[], None] = lambda: None,
        patience: float = inf,
    ) -> Exit:
        """Runs the job that the worker has been given, to its end.

        `beside` is called while another job may be given in advance.  A job that was given so is taken back if it has
        not begun after `patience` seconds, unless it begins meanwhile.  When the program starts, `began` is called with
        True if the job must never be repeated.  Raises `RefusedError` if the program was not started, `WithdrawnError`
        if the worker took its offer back before, `LocalError` if a sink or a source fails.  Sources are read at once.
        """
        given = self._ahead.pop(job, None)
        if given is None and self.over:
            job.close()
            raise WithdrawnError(self._revoked or "the worker has hung up")
        until = inf if given is None else monotonic() + patience
        attempt = self._begin(job) if given is None else given
        if self._progress_timeout:
            attempt.patience = make_patience(progress=self._progress_timeout, time_limit=0.0, began=monotonic())
        self._running = job, attempt
        result = None
        try:
            while result is None:
                while result is None and (event := attempt.next_event()) is not None:
                    result = self._handle(event, job, attempt, began)
                if result is None and attempt is self._attempts.following and monotonic() >= until:
                    until = inf
                    self._session.take_back()
                    self._step(False)
                elif result is None:
                    if attempt is self._attempts.current and not attempt.over and self.may_give_ahead:
                        beside()
                    await self._progress(until if attempt is self._attempts.following else inf)
            if self._pump.sinks.pending:
                job.take_rest()
                attempt.receive(self._pump.write_rest())
            return result
        finally:
            self._end(job, attempt)

    def _begin(self, job: LeaseJob) -> Attempt:
        """Sends GO and what the job reads, as far as that goes without waiting."""
        attempt = self._attempts.current = Attempt(once=self.once)
        self._given = False
        if not self._failed:
            self._watch.read()
        self._pump.sinks.update(job.sinks)
        self._pump.sources.update(job.sources)
        self._pump.hold_back()  # GO and a short input travel together
        self._step(False)
        self._pump.let_go()
        return attempt

    def _end(self, job: LeaseJob, attempt: Attempt) -> None:
        """Forgets a job.  The one behind it may have begun: then the pump has the sinks of that one."""
        self._running = None
        if self._attempts.current is attempt:
            self._pump.sinks.forget()
        elif self._attempts.following is attempt:
            self._pump.sinks.prepared.clear()
        self._attempts.drop(attempt)
        for stream in list(self._pump.sources):
            self._pump.close_source(stream)
        job.close()

    def step_again(self, job: LeaseJob) -> None:
        """Says that a source of the job that runs has bytes again, or that a sink has room."""
        if self._running is not None and self._running[0] is job:
            self._step(False)

    def conclude(self, job: LeaseJob) -> bool:
        """Reads all that has come; returns True if the job is over with it, so that `run` returns or raises."""
        if self._running is None or self._running[0] is not job:
            return False
        attempt = self._running[1]
        for _ in range(MOST_UNREAD):
            if attempt.over or self._failed:
                break
            self._step(None)
            if self._pump.read_all:
                break
        return attempt.over

    def signal(self, number: int, job: LeaseJob) -> None:
        """Passes a signal on to the program of a job, if that runs."""
        attempt = self._attempts.current
        if self._running == (job, attempt) and attempt is not None and not attempt.over:
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
        self._watch.forget()
        self._session.release()
        self._pump.say_goodbye()

    def close(self) -> None:
        """Hangs up; the worker ends a job that still runs."""
        self._watch.forget()
        self._pump.connection.close()

    def abandon(self) -> None:
        """Closes the copy of the connection that a child process has after fork; the loop is the parent's."""
        self._pump.connection.close()

    def _handle(
        self, event: AttemptEvent, job: LeaseJob, attempt: Attempt, began: Callable[[bool], None]
    ) -> Exit | None:
        if isinstance(event, meaning.Ended):
            return event.exit
        if isinstance(event, meaning.Began):
            assert self._attempts.current is not None
            began(self._attempts.current.once)
        elif isinstance(event, rare_events.ProgramAsked):
            self._pump.sources.update(asked(job.program, event.platform))
        elif isinstance(event, rare_events.FileMissing):
            job.missing[event.stream] = event.reason
        elif isinstance(event, rare_events.SlotWanted):
            if self.on_wanted is not None:
                self.on_wanted()
        elif isinstance(event, rare_events.FailedHere):
            verb = "write" if event.writing else "read"
            raise event.error or LocalError(f"cannot {verb} stream {event.stream} of a job: {event.reason}")
        elif not isinstance(event, meaning.OutputEnded):  # the attempts of a lease do not tell that
            raise event.error
        return None

    # waiting

    async def _progress(self, until: float) -> None:
        """Waits until a step has been made, or the time has come."""
        if self._error is not None:
            raise self._error
        if self._failed:
            raise DisconnectedError("the connection has ended")
        if self._pump.sources and self._eager:
            await asyncio.sleep(0)  # more could be sent at once, but others wait too
            self._step(False)
        else:
            await self._watch.wait(until)

    @property
    def _eager(self) -> bool:
        sources = self._pump.sources.items()
        return self._pump.records.has_room and any(
            not source.idle and self._session.sendable(stream) >= LEAST_CREDIT for stream, source in sources
        )

    def _step(self, readable: bool | None) -> None:
        """Moves bytes without waiting.  The loop calls it, too, when the connection is ready.

        `readable` is None if that is not known: then it is looked at, and what is due by the time is done.
        """
        if self._failed or self._given:
            return
        attempts, pump = self._attempts, self._pump
        try:
            if attempts.over:  # between two jobs a worker's frames only change the session's state
                _ = pump.step(0.0) if readable is None else pump.turn(readable)
            else:
                if readable is None:
                    advance(attempts, pump, 0.0, self._winner.watch)
                else:
                    take_turn(attempts, pump, readable)
                if pump.failed:
                    advance(attempts, pump, 0.0)  # the first step may have had events to tell before
                # A job that was refused, or has failed here, says nothing about the connection.
                self._failed = pump.failed or attempts.lost
                self._hasten()
            if readable is None and attempts.over and self._winner.watch is not None:
                self._look_at_revocations(self._winner.watch)  # else `advance` has looked
            self._watch.hasten(self._session.next_timeout())
        except CexecError:
            self._failed = True
        except Exception as error:  # asyncio would only print it, and the job would wait for ever
            self._failed, self._error = True, error
        if self._failed:
            self._watch.forget()
        else:
            self._watch.write(pump.wants_out)
        self._watch.wake()

    def _look_at_revocations(self, watch: RevocationWatch) -> None:
        """Gives the worker up if it has been revoked."""
        try:
            watch.look(monotonic())
        except RevokedError as error:
            self._failed, self._revoked = True, str(error)

    def _send(self) -> None:
        """Sends what waits: a part of a step, which changes nothing that the owner of the lease waits for."""
        self._pump.flush()
        self._attempts.stepped(monotonic())
        self._hasten()
        self._watch.write(self._pump.wants_out)

    def _hasten(self) -> None:
        """Lets the timer come as early as the attempt that waits needs it."""
        live = self._attempts.live
        if live is not None:
            self._watch.hasten(live.next_timeout())

    def _look(self) -> None:
        """Steps because a timeout of the session or of the attempt is due."""
        self._step(None)
        if not self._failed:
            self._watch.set_timer(monotonic() + LATER if self._given else self._next_timeout())
            self._hasten()

    def _next_timeout(self) -> float:
        """Returns when to look at the worker, be it at work or between two jobs."""
        due = self._session.next_timeout()
        return due if self._winner.watch is None else min(due, self._winner.watch.next_timeout())
