"""One job: the program, its descriptors, the pump, and the end.

Contract: `JobRun(...).run()` returns when the exit frame has been said, or raises `CexecError` when the client or the
parent is lost; either way everything that the program started has ended and its directory is gone.  The parent is told
of it by `ProgramStarted`, `JobRefused` and `JobFinished`.  docs/protocol.md sections 4.2 to 4.4.
"""

from __future__ import annotations

import enum
import errno
import os
import signal
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

from cexec.errors import CexecError, DisconnectedError
from cexec.net.pump import Trouble
from cexec.protocol.connection import frames, options
from cexec.protocol.connection.frames import FIRST_FILE, HERE, PERMANENT, Refusal
from cexec.system.process import process_tree
from cexec.system.process.executable import problem_of
from cexec.system.process.resource_limits import Hit
from cexec.system.reason import reason_of
from cexec.system.storage.program_cache import CacheProblem
from cexec.worker.jobs import job_tree
from cexec.worker.jobs.assignment import is_leased
from cexec.worker.jobs.check import check, terminal_of
from cexec.worker.jobs.command import name_of
from cexec.worker.jobs.disk_quota import DiskQuota
from cexec.worker.jobs.job_exit import exit_of
from cexec.worker.jobs.job_tree import SIGNALS, JobTree
from cexec.worker.jobs.private_directory import directory_of_all
from cexec.worker.jobs.program_start import spawn
from cexec.worker.jobs.program_streams import ProgramStreams
from cexec.worker.jobs.reports import JobFinished, JobRefused, ProgramStarted, Starting
from cexec.worker.jobs.sent_programs import files_of
from cexec.worker.jobs.workplace import Workplace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cexec.protocol.connection.session import Event
    from cexec.system.process.orphans import Record
    from cexec.worker.jobs.carrier import Carrier
    from cexec.worker.jobs.program_start import Order

RELEASE_PATIENCE = 30.0  # seconds (ours) that a client has to take the exit frame and let go
LONGEST_LINGER = 600.0  # seconds (ours) that the exit frame may wait for a client that is alive and takes nothing
HANG_UP_PATIENCE = 1.0  # seconds (ours) that programs have between SIGHUP and SIGTERM: editors save their work then
HELD_BACK = 0.002  # seconds (ours) that frames of a leased job wait for others, so that they wake the client once
# What only a client can have caused, by its arguments and by the names of its files: this worker is not to blame.
TOO_LONG = (errno.E2BIG,)
UNSTARTABLE = (errno.ENOENT, errno.ENOEXEC, errno.EACCES)  # for which the program's own file may tell a better reason
IMPOSSIBLE_FILES = (errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EFBIG)


class _TooLate(Exception):
    """The time limit has passed before the program could be started."""


class Phase(enum.Enum):
    PREPARING = enum.auto()  # from GO to the start of the program: files come, streams are opened
    RUNNING = enum.auto()  # from there to the exit frame
    OVER = enum.auto()  # the last frame, an exit or a refusal, has been said
    RELEASED = enum.auto()  # the client has let go, and wants no further job on this connection


PHASES = {
    Phase.PREPARING: (Phase.RUNNING, Phase.OVER),
    Phase.RUNNING: (Phase.OVER,),
    Phase.OVER: (Phase.RELEASED,),
    Phase.RELEASED: (),
}


class NextJob(enum.Enum):
    """Says what `JobFinished` has told the parent of the next job."""

    NOTHING = enum.auto()
    IDLE = enum.auto()  # it may be offered
    AHEAD = enum.auto()  # it is offered, without waiting for a word


@dataclass(slots=True)
class JobTimes:
    """The moments at which a job has to do something, of monotonic(); None if there is nothing to be done."""

    held_until: float | None = None  # the first frames are held back
    limit: float | None = None  # of the time limit
    latest: float | None = None  # after the time limit: the slot is needed, whatever the client does

    def expire(self) -> None:
        """The time limit counts no more, but a while after it the job is over in any case."""
        assert self.limit is not None
        self.latest, self.limit = self.limit + job_tree.GRACE + RELEASE_PATIENCE, None


class JobRun:
    """One run of the program."""

    def __init__(self, carrier: Carrier, order: Order, record: Record | None) -> None:
        """`record` is written, not closed."""
        self.phase = Phase.PREPARING
        self.announced = NextJob.NOTHING
        self.leased = is_leased(order.go)  # the client may want another job
        self._carrier = carrier
        self._order = order
        self._record = record
        self._began = monotonic()
        self._limits = order.program.limits
        self._hit: Hit | None = None  # the time limit has ended the program
        self._times = JobTimes()
        self._tree = JobTree(carrier.group)
        self._streams = ProgramStreams(carrier.pump)
        self._workplace = Workplace(carrier.pump, record, DiskQuota(carrier, order.program.disk))
        self._unfit = True  # if it is refused, that says nothing about this worker

    def run(self) -> bool:
        """Starts the program, pumps until it is over, sends the exit frame and ends what is left.

        Returns True if the worker is ready for the client's next job.
        """
        try:
            accepted = self._run()
            self._follow_up(self._end_tree)
            return accepted and self._wants_more and self._tree.alone
        finally:
            self._tree.finish(HANG_UP_PATIENCE if self._streams.hang_up() else 0.0)
            self._workplace.leave()

    @property
    def released(self) -> bool:
        """The client wants no further job."""
        return self.phase is Phase.RELEASED

    def hang_up(self) -> None:
        """Tells the client that no further job is wanted."""
        self._follow_up(self._carrier.hang_up)

    def linger(self) -> None:
        """Waits until the kernel has our last frame and the client lets go; not for ever, because it may be stopped."""
        self._follow_up(self._wait_for_release)

    @property
    def _wants_more(self) -> bool:
        """Another job is to follow this one."""
        return self.leased and not self._carrier.orders.last

    def _move(self, phase: Phase) -> None:
        assert phase in PHASES[self.phase], f"{self.phase} does not lead to {phase}"
        self.phase = phase

    # starting

    def _run(self) -> bool:
        """Returns False if the job has been refused."""
        refusal = self._start()
        if refusal is not None:
            self._carrier.tell(JobRefused(refusal.reason, unfit=self._unfit))
            self._carrier.pump.session.refuse(refusal)
            self._move(Phase.OVER)
            return False
        self._carrier.tell(ProgramStarted(self._tree.pid))
        if self.leased:
            self._carrier.pump.hold_back()
            self._times.held_until = monotonic() + HELD_BACK
        self._carrier.pump.session.started(once=self._order.program.once)
        self._run_program()
        return True

    def _start(self) -> Refusal | None:
        checked = check(self._order.go, self._order.program)
        if isinstance(checked, Refusal):
            return checked
        self._limits = checked
        if self._limits.time:
            self._times.limit = self._began + self._limits.time  # files that come slowly take a slot, too
        refusal = self._prepare()
        if refusal is not None:
            self._carrier.clean = False  # some of what had been opened for it is open still
            return refusal
        self._move(Phase.RUNNING)
        if not self.leased:
            self._name_leader()  # for a lease only later: a program that ends at once needs no name
        return None

    def _prepare(self) -> Refusal | None:
        go, program = self._order.go, self._order.program
        start = doing = f"start {name_of(program)}"
        try:
            terminal = terminal_of(go)
            if terminal is not None:
                doing = "make a terminal"
            ends = self._streams.open(go.streams, terminal)
            doing, self._tree.terminal = start, self._streams.terminal
            try:
                files = files_of(go)
                if files or program.programs is not None:
                    self._carrier.wake_parent()  # the client may take its time to send them
                if program.private or files:
                    doing = f"put the job's files into a directory of its own in {directory_of_all()}"
                    self._workplace.enter(files, self._step)
                elif program.shell is not None:
                    self._workplace.enter_home(program.shell)
                if program.programs is not None:
                    doing = "keep the program"
                    self._workplace.obtain(go, program.programs, self._step)
                doing = start
                if terminal is None:
                    self._take_input()
                self._carrier.tell(Starting(), quiet=True)
                self._tree.started(self._spawn(ends), wrapped=program.sandbox is not None)
            finally:
                self._streams.release(ends)
        except _TooLate:
            return Refusal(PERMANENT, f"{self._time_limit()} passed before all its files had come")
        except CacheProblem as error:
            return Refusal(HERE, str(error))
        except OSError as error:
            if self._workplace.quota.problem:
                return Refusal(HERE, self._workplace.quota.problem)
            self._unfit = error.errno in (TOO_LONG if doing == start else IMPOSSIBLE_FILES)
            problem = self._problem() if doing == start and error.errno in UNSTARTABLE else ""
            return Refusal(HERE, f"cannot {doing}: {problem or reason_of(error)}")
        self._workplace.watch_directory()
        return None

    def _take_input(self) -> None:
        """Writes input that came with the job before the program starts: it finds all of it at once."""
        for event in self._carrier.pump.take():
            self._handle(event)

    def _problem(self) -> str:
        """Returns why the program's file cannot be started, if its first bytes tell."""
        path = self._workplace.command([self._order.program.executable])[0]
        return problem_of(path, os.fsdecode(self._order.program.environment.get(b"PATH", b"")))

    def _spawn(self, ends: Mapping[int, int]) -> int:
        limits, workplace = self._limits, self._workplace
        if limits.memory:
            workplace.limit_memory(f"{os.getpid()}-{self._order.go.job_id.hex()[:8]}", limits.memory)
            self._tree.groups += [] if workplace.group is None else [workplace.group]
        return spawn(self._order, limits, workplace, ends, self._streams.terminal)

    def _name_leader(self) -> None:
        """Adds the program's number to the record; without it its environment is all that it can be found by."""
        if self._record is not None:
            self._record.add(leader=self._tree.pid, start=process_tree.start_time(self._tree.pid))

    # running

    def _run_program(self) -> None:
        while self._tree.status is None or self._streams.outputs_open():
            self._step()
        if self._times.limit is not None:
            self._times.expire()  # its files have to be fetched as well
        if self._workplace.private:
            go = self._order.go
            if files_of(go):
                self._end_tree()  # nobody writes any more to what is fetched
            failed = self._tree.status != 0 or self._hit is not None
            skip = failed and go.options.get(options.FETCH_ON_FAILURE) == options.NO
            self._workplace.send_files(go.streams, self._step, skip=skip)
        self._finish()

    def _step(self, until: float | None = None) -> None:
        """Pumps once, and does what time, the parent and the children ask for; waits no longer than `until`."""
        times = self._times
        timeouts = (
            until,
            times.limit,
            times.latest,
            times.held_until,
            self._streams.next_timeout(),
            self._tree.next_timeout(),
            self._workplace.quota.next_timeout(),
        )
        due = [timeout for timeout in timeouts if timeout is not None]
        carries = self.phase is Phase.RUNNING and self._streams.terminal is None
        for event in self._carrier.step(min(due) if due else None, carries=carries):
            self._handle(event)
        if self._carrier.orders.wanted and self.phase is Phase.RUNNING:
            self._tell_wanted()
        self._tree.pass_signals_on()
        self._streams.advance(monotonic())
        if self._carrier.children_ended:
            self._tree.reap()
            if self._tree.status is not None:
                self._streams.program_ended()
        now = monotonic()
        if times.held_until is not None and now >= times.held_until:
            times.held_until = None
            self._name_leader()
            self._carrier.pump.let_go()
        if times.limit is not None and now >= times.limit:
            if self.phase is Phase.PREPARING:
                raise _TooLate
            times.expire()
            self._end(Hit(f"ended after {self._time_limit()}", signal.SIGTERM), now)
        if (excess := self._workplace.quota.measure(now)) and self._tree.status is None:
            self._end(Hit(excess, signal.SIGXFSZ), now)
        self._tree.handle_timeout(now)
        if times.latest is not None and now >= times.latest:
            times.latest = None
            raise DisconnectedError("client does not take the output, or the program cannot be ended")

    def _tell_wanted(self) -> None:
        """Tells the client that another one waits for the slot; perhaps that was about the job before this one."""
        self._carrier.orders.wanted = False
        if self._carrier.pump.session.wants_to_hear:
            self._carrier.pump.session.slot_wanted()

    def _end(self, hit: Hit, now: float) -> None:
        """A limit ends the program."""
        self._hit = self._hit or hit
        self._tree.end(now)

    def _time_limit(self) -> str:
        return f"its time limit of {self._limits.time:g} s"

    def _handle(self, event: Event | Trouble) -> None:
        if isinstance(event, Trouble):
            if event.stream >= FIRST_FILE and event.writing:
                raise OSError(event.error, os.strerror(event.error))
            return  # the program closed its end, or its pipe failed: the session has been told
        if event.kind == frames.SIGNAL and event.number in SIGNALS:
            self._tree.signal(event.number)
        elif event.kind == frames.WINDOW and self._streams.terminal is not None:
            self._streams.terminal.resize(*frames.parse_window(event.number))
        elif event.kind in (frames.CANCEL, frames.RELEASE):
            if self.phase in (Phase.PREPARING, Phase.RUNNING):
                raise DisconnectedError("client gave up")
            if self.phase is Phase.OVER:
                self._move(Phase.RELEASED)
                self._carrier.released = event.kind == frames.RELEASE
        elif event.kind == frames.BROKEN:
            raise DisconnectedError(f"client lost its input: {event.text}")

    # the end

    def _finish(self) -> None:
        """Sends the exit frame."""
        result = exit_of(self._tree, self._limits, self._hit, self._workplace.group)
        session = self._carrier.pump.session
        self._streams.settle()
        session.exit(result)
        sent, received = (sum(half.count for half in session.outgoing.values()),
                          sum(half.consumed for half in session.incoming.values()))  # fmt: skip
        if not self._tree.alone:
            self._tree.reap()
        if self._wants_more and self._tree.alone and not self._workplace.private:
            self.announced = NextJob.AHEAD if self._carrier.goes_ahead() else NextJob.IDLE
        report = JobFinished(
            status=result.exit_status,
            sent=sent,
            received=received,
            cpu=(result.user_time + result.system_time) / 1e6,
            reason=result.message,
            duration=monotonic() - self._began,
            idle=self.announced is not NextJob.NOTHING,
            ahead=self.announced is NextJob.AHEAD,
        )
        # The frame is held back for a moment if perhaps another job can be offered with the same segment.  Else the
        # client gets it now, because it need not wait for our tidying up.
        self._carrier.send_behind(report, held=report.idle)
        self._times.latest = None
        self._move(Phase.OVER)

    def _end_tree(self) -> None:
        """Ends what the program has left behind; pumps on, so that nobody waits for it."""
        self._tree.reap()
        if not self._tree.alone:
            self._streams.hang_up()
            self._tree.end(monotonic())
        while not self._tree.alone and not self._tree.given_up:
            self._step()

    def _wait_for_release(self) -> None:
        self._carrier.pump.let_go()
        deadline, taken = monotonic() + LONGEST_LINGER, False
        while not self.released and monotonic() < deadline:
            if not taken and self._carrier.pump.flushed:
                deadline, taken = min(deadline, monotonic() + RELEASE_PATIENCE), True
            self._step(deadline)

    def _follow_up(self, what: Callable[[], None]) -> None:
        """Does what comes after the last frame: if the client is lost then, the job has not failed."""
        try:
            what()
        except CexecError:
            pass
