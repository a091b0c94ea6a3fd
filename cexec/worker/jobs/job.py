"""One job: the program, its descriptors, the pump, and the end.

Contract: `Job(...).run()` returns when the exit frame has been said, or raises `CexecError` when the client or the
parent is lost; either way everything that the program started has ended and its directory is gone.  What the parent has
to know is told to it: `started`, `refused`, `finished`.  docs/protocol.md sections 4.2 to 4.4.
"""

from __future__ import annotations

import os
import re
import signal
from time import monotonic

from cexec.errors import CexecError, DisconnectedError, LocalError
from cexec.net.pump import Trouble
from cexec.protocol.connection import frames, options
from cexec.protocol.connection.frames import EXITED, FIRST_FILE, HERE, LIMITED, PERMANENT, SIGNALLED, Exit, Go, Refusal
from cexec.protocol.connection.program_offer import is_option
from cexec.protocol.connection.streams import OPEN
from cexec.system.process import process, process_tree, resource_limits
from cexec.system.process.memory_group import MemoryGroup
from cexec.system.process.orphans import Record
from cexec.system.process.resource_limits import Limits
from cexec.system.storage.program_cache import CacheProblem
from cexec.worker.jobs.assignment import is_leased
from cexec.worker.jobs.private_directory import PrivateDirectory, receive_files, send_files
from cexec.worker.jobs.program_streams import AbandonedOutputs, PipeSink, close_ends, open_streams
from cexec.worker.jobs.sent_programs import PLACE, check_program, files_of, fill, obtain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cexec.protocol.connection.session import Event
    from cexec.system.storage.program_cache import HeldProgram
    from cexec.worker.jobs.carrier import Carrier
    from cexec.worker.jobs.program import Program

GRACE = 2.0  # seconds (ours) between TERM and KILL for what is left of a job
RELEASE_PATIENCE = 30.0  # seconds (ours) that a client has to take the exit frame and let go
SIGNALS = {number: getattr(signal, name) for number, name in options.SIGNALS.items()}  # this machine's numbers
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}\Z")  # a peer variable's name, docs/protocol.md section 4.2
KNOWN_OPTIONS = {*options.LIMITS, options.FETCH_ON_FAILURE, options.LEASE}
HELD_BACK = 0.002  # seconds (ours) that frames of a leased job wait for others, so that they wake the client once


class Job:
    """One run of the program.  `leased`: the client may want another one, unless it has `released` the worker.

    `offers`: after `run`, whether the worker is ready for that.
    """

    def __init__(
        self, carrier: Carrier, go: Go, program: Program, extra: Mapping[bytes, bytes], record: Record | None
    ) -> None:
        """`extra` is the part of the environment that is this job's own; `record` is written, not closed."""
        self.leased = is_leased(go)
        self.released = False
        self.offers = False
        self.announced_idle = False  # `finished` has told the parent that another job may follow at once
        self.goes_ahead = False  # and that it is offered without a word
        self._carrier = carrier
        self._pump = carrier.pump
        self._session = carrier.pump.session
        self._go = go
        self._program = program
        self._extra = extra
        self._record = record
        self._limits = program.limits
        self._began = monotonic()
        self._early: list[int] = []  # signals that came before the program was there
        self._pid = 0
        self._status: int | None = None
        self._usage = (0, 0, 0)
        self._alone = True  # no child is left
        self._over = False  # the last frame has been said
        self._held_until: float | None = None  # the first frames are held back
        self._deadline: float | None = None  # of the time limit
        self._latest: float | None = None  # when at last the slot is needed, after the time limit
        self._ending: process_tree.TreeEnd | None = None
        self._hit: resource_limits.Hit | None = None
        self._inputs: dict[int, PipeSink] = {}
        self._abandoned = AbandonedOutputs(carrier.pump)
        self._directory: PrivateDirectory | None = None
        self._origin = -1  # the working directory before that
        self._group: MemoryGroup | None = None
        self._files = files_of(go)
        self._sent: HeldProgram | None = None  # the program that the client has brought

    def run(self) -> None:
        """Starts the program, pumps until it is over, sends the exit frame and ends what is left."""
        try:
            refusal = self._check()
            if refusal is None:
                refusal = self._start()
                self._carrier.clean = refusal is None  # else some of what had been opened for it is open still
            if refusal is not None:
                self._carrier.tell("refused", reason=refusal.reason, everywhere=refusal.kind == PERMANENT)
                self._session.refuse(refusal)
            else:
                self._carrier.tell("started", pid=self._pid)
                if self.leased:
                    self._carrier.hold_back()
                    self._held_until = monotonic() + HELD_BACK
                self._session.started(once=self._program.once)
                self._run_program()
            self._over = True
            self.follow_up(self._end_tree)
            self.offers = refusal is None and self._wants_more and self._alone
        finally:
            self._clean_up()

    @property
    def _wants_more(self) -> bool:
        """Whether another job is to follow this one."""
        return self.leased and not self._carrier.last

    # starting

    def _check(self) -> Refusal | None:
        """Why no worker, or not this one, will do what GO asks for."""
        if self._go.arguments and not self._program.allow_arguments:
            return Refusal(
                PERMANENT, "arguments are not allowed here; the owner can allow them with: cservice --allow-args"
            )
        bad = next((name for name in self._go.environment if not VARIABLE.match(name)), None)
        if bad is not None:
            return Refusal(PERMANENT, f"{bad[:80]!r} cannot be a variable's name")
        unknown = {name for name in self._go.options.keys() - KNOWN_OPTIONS if not is_option(name)}
        if unknown:
            return Refusal(HERE, f"option {min(unknown)} is not known here; update cexec on this worker")
        try:
            self._limits = self._program.limits.stricter(Limits.from_options(self._go.options))
        except ValueError as error:
            return Refusal(PERMANENT, str(error))
        return check_program(self._go, self._program.programs)

    def _start(self) -> Refusal | None:
        name = os.path.basename(self._program.executable).replace(PLACE, "program")
        doing = f"start {name}"
        try:
            ends = open_streams(self._pump, self._go.streams, self._abandoned)
            self._inputs = {number: sink for number, sink in self._pump.sinks.items() if isinstance(sink, PipeSink)}
            try:
                if self._program.private or self._files:
                    doing = "put the job's files into a directory of its own"
                    self._enter_directory()
                if self._program.programs is not None:
                    doing = "keep the program"
                    self._sent = obtain(self._pump, self._go, self._program.programs, self._step)
                doing = f"start {name}"
                self._pid = self._spawn(name, ends)
            finally:
                close_ends(ends)
        except CacheProblem as error:
            return Refusal(HERE, str(error))
        except OSError as error:
            return Refusal(HERE, f"cannot {doing}: {os.strerror(error.errno or 0).lower()}")
        self._alone = False
        if not self.leased:
            self._name_leader()
        if self._limits.time:
            self._deadline = monotonic() + self._limits.time
        for number in self._early:
            self._signal(number)
        return None

    def _enter_directory(self) -> None:
        """The files that the program is to find are complete before it starts."""
        self._origin = os.open(".", getattr(os, "O_PATH", os.O_RDONLY) | os.O_CLOEXEC)
        self._directory = PrivateDirectory()
        if self._record is not None:
            self._record.add(directory=self._directory.path)
        self._directory.enter()
        receive_files(self._pump, self._files, self._directory, self._step)

    def _spawn(self, name: str, ends: Mapping[int, int]) -> int:
        executable, *given = self._command()
        arguments: list[bytes | str] = [name, *given, *self._go.arguments]
        environment = {**self._program.environment, **self._extra}
        if not self._limits.inherited:
            return process.spawn(executable, arguments, environment, ends)
        if self._limits.memory:
            self._group = MemoryGroup.create(f"{os.getpid()}-{self._go.job_id.hex()[:8]}", self._limits.memory)
            if self._group is not None and self._record is not None:
                self._record.add(group=self._group.path)
        return process.spawn(executable, arguments, environment, ends, prepare=lambda: self._limits.apply(self._group))

    def _command(self) -> list[str]:
        command = [self._program.executable, *self._program.arguments]
        return command if self._sent is None else fill(command, self._sent.path)

    # running

    def _run_program(self) -> None:
        while self._status is None or self._outputs_open():
            self._step(self._latest)
            if self._latest is not None and monotonic() >= self._latest:
                raise DisconnectedError("client does not take the output, or the program cannot be ended")
        self._deadline = None
        if self._directory is not None:
            if self._files:
                self._end_tree()  # nobody writes any more to what is fetched
            failed = self._status != 0 or self._hit is not None
            skip = failed and self._go.options.get(options.FETCH_ON_FAILURE) == options.NO
            send_files(self._pump, self._go.streams, self._directory, self._step, skip=skip)
        self._finish()

    def _outputs_open(self) -> bool:
        return any(half.state == OPEN for number, half in self._session.outgoing.items() if number < FIRST_FILE)

    def _step(self, until: float | None = None) -> None:
        """Pumps once, and does what time, the parent and the children ask for; waits no longer than `until`."""
        timeouts = [until, self._deadline, self._held_until, self._abandoned.next_timeout()]
        timeouts.append(None if self._ending is None or self._alone else self._ending.next_timeout())
        due = [timeout for timeout in timeouts if timeout is not None]
        for event in self._carrier.step(min(due) if due else None):
            self._handle(event)
        self._abandoned.advance(monotonic())
        if self._carrier.children_ended:
            self._reap()
        now = monotonic()
        if self._held_until is not None and now >= self._held_until:
            self._held_until = None
            self._name_leader()  # only now: a program that ends at once needs none
            self._carrier.let_go()
        if self._deadline is not None and now >= self._deadline:
            self._deadline = None
            self._hit = resource_limits.Hit(f"ended after its time limit of {self._limits.time:g} s", signal.SIGTERM)
            self._ending = process_tree.TreeEnd(self._pid, GRACE, now)
            self._latest = now + GRACE + RELEASE_PATIENCE
        if self._ending is not None and not self._alone:
            self._ending.handle_timeout(now)

    def _handle(self, event: Event | Trouble) -> None:
        if isinstance(event, Trouble):
            if event.stream >= FIRST_FILE and event.writing:
                raise OSError(event.error, os.strerror(event.error))
            return  # the program closed its end, or its pipe failed: the session has been told
        if event.kind == frames.SIGNAL and event.number in SIGNALS:
            if self._pid:
                self._signal(event.number)
            else:
                self._early.append(event.number)
        elif event.kind in (frames.CANCEL, frames.RELEASE):
            if not self._over:
                raise DisconnectedError("client gave up")
            self.released = True
        elif event.kind == frames.BROKEN:
            raise DisconnectedError(f"client lost its input: {event.text}")

    def _signal(self, number: int) -> None:
        """The whole tree is stopped and continued, other signals go to the group as from a terminal."""
        if SIGNALS[number] == signal.SIGTSTP:
            process_tree.stop_tree()
        elif SIGNALS[number] == signal.SIGCONT:
            process_tree.signal_tree(self._pid, signal.SIGCONT)
        else:
            process_tree.signal_program(self._pid, SIGNALS[number], reaped=self._status is not None)

    def _name_leader(self) -> None:
        """The record has the program's number, too; without it its environment is all that it can be found by."""
        if self._record is not None:
            self._record.add(leader=self._pid, start=process_tree.start_time(self._pid))

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                self._alone = True
                if self._pid and self._status is None:  # it must not count as a success, or be waited for
                    raise LocalError("the program has ended, and its exit status is lost") from None
                return
            if pid == 0:
                return
            if pid == self._pid:
                self._status = status
                self._usage = (round(usage.ru_utime * 1e6), round(usage.ru_stime * 1e6), usage.ru_maxrss)

    # the end

    def _finish(self) -> None:
        """Sends the exit frame."""
        status = self._status or 0
        user, system, memory = self._usage
        killed = 0 if self._group is None else self._group.killed()
        hit = self._hit or resource_limits.find_hit(self._limits, status, (user + system) / 1e6, killed)
        message = hit.message if hit else resource_limits.remark(self._limits, status, killed, self._group is not None)
        kind, number = (SIGNALLED, os.WTERMSIG(status)) if os.WIFSIGNALED(status) else (EXITED, os.WEXITSTATUS(status))
        if hit is not None:
            kind, number = LIMITED, number if kind == SIGNALLED else hit.signal
        result = Exit(
            kind=kind, status=number, endings=[], user_time=user, system_time=system, memory=memory, message=message
        )
        for stream in list(self._pump.sinks):
            self._pump.close_sink(stream)
        for stream, sink in self._inputs.items():
            self._session.left_unread(stream, sink.unread())
        self._abandoned.settle()
        self._session.exit(result)
        sent, received = (sum(half.count for half in self._session.outgoing.values()),
                          sum(half.consumed for half in self._session.incoming.values()))  # fmt: skip
        cpu = (user + system) / 1e6
        if not self._alone:
            self._reap()
        self.announced_idle = self._wants_more and self._alone and self._directory is None
        if self.announced_idle:
            self.goes_ahead = self._carrier.goes_ahead()
            self._carrier.hold_back()  # for a moment: perhaps another job can be offered with the same segment
        else:
            self._carrier.let_go()
        self._pump.flush()  # the client need not wait for our tidying up
        self._carrier.tell(
            "finished",
            status=result.exit_status,
            sent=sent,
            received=received,
            cpu=cpu,
            reason=message,
            duration=monotonic() - self._began,
            idle=self.announced_idle,
            ahead=self.goes_ahead,
        )

    def _end_tree(self) -> None:
        """Ends what the program has left behind; pumps on, so that nobody waits for it."""
        self._reap()
        if not self._alone and self._ending is None:
            self._ending = process_tree.TreeEnd(self._pid, GRACE, monotonic())
        while not self._alone and self._ending is not None and not self._ending.given_up:
            self._step()

    def linger(self) -> None:
        """Until the kernel has our last frame and the client lets go, but then not for ever: it may be stopped."""
        deadline = None
        while not self.released and (deadline is None or monotonic() < deadline):
            if deadline is None and self._pump.flushed:
                deadline = monotonic() + RELEASE_PATIENCE
            self._step(deadline)

    def follow_up(self, what: Callable[[], None]) -> None:
        """What comes after the last frame: what becomes of the client is no failure of the job any more."""
        try:
            what()
        except CexecError:
            pass

    def _clean_up(self) -> None:
        process_tree.end_tree(self._pid, GRACE)
        if self._directory is not None:
            self._directory.remove()
            os.fchdir(self._origin)
            os.close(self._origin)
        if self._sent is not None:
            self._sent.release()
        if self._group is not None:
            self._group.remove()
