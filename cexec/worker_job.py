"""One job, in a process of its own: the program, its descriptors, the pump, and the end.

Contract: `run_job` is called in a forked child that owns the connection and nothing else of the parent's; it returns
when the client has released the connection or gone, and everything that the program started has ended.  What the parent
has to know goes over `parent` as JSON texts: `started`, `refused`, `finished`, `broken`.  The parent going away, or its
word `terminate`, ends the job.  docs/protocol.md sections 4.2 to 4.4.
"""

from __future__ import annotations

import json
import os
import re
import signal
from time import monotonic

from cexec.errors import CexecError, DisconnectedError
from cexec.protocol import frames
from cexec.protocol.frames import EXITED, FIRST_FILE, HERE, LIMITED, PERMANENT, SIGNALLED, Exit, Go, Refusal
from cexec.protocol.streams import OPEN
from cexec.system import limits, process, process_tree
from cexec.system.leftovers import MARK, Record
from cexec.system.limits import Limits
from cexec.system.liveness import Liveness
from cexec.system.memory_group import MemoryGroup
from cexec.system.pump import Pump, Trouble
from cexec.worker_files import PrivateDirectory, receive_files, send_files
from cexec.worker_streams import AbandonedOutputs, PipeSink, close_ends, open_streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable, Mapping

    from cexec.protocol.session import Event

GRACE = 2.0  # seconds (ours) between TERM and KILL for what is left of a job
RELEASE_PATIENCE = 30.0  # seconds (ours) that a client has to take the exit frame and let go
SIGNALS = {  # (protocol) the signals that a client may send
    number: getattr(signal, name)
    for number, name in {1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 10: "SIGUSR1", 12: "SIGUSR2", 15: "SIGTERM",
                         18: "SIGCONT", 20: "SIGTSTP"}.items()
}  # fmt: skip
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}\Z")  # a peer variable's name, docs/protocol.md section 4.2
FETCH_ON_FAILURE = "fetch-on-failure"  # (protocol) the option of GO that, set to "no", fetches after success only
KNOWN_OPTIONS = {*limits.OPTIONS, FETCH_ON_FAILURE}


class Program:
    """What a worker serves; the same for all of its jobs.  `environment` lacks what belongs to one job.

    `private`: every job has a directory of its own.  `once`: no job may ever be repeated.  `records`: the directory
    for the records of `leftovers`, if there is one.
    """

    __slots__ = ("allow_arguments", "arguments", "environment", "executable", "limits", "once", "private", "records")

    def __init__(
        self,
        executable: str,
        arguments: list[str],
        environment: Mapping[bytes, bytes],
        allow_arguments: bool,
        *,
        limits: Limits | None = None,
        private: bool = False,
        once: bool = False,
        records: str | None = None,
    ) -> None:
        self.executable = executable
        self.arguments = arguments
        self.environment = environment
        self.allow_arguments = allow_arguments
        self.limits = limits or Limits()
        self.private = private
        self.once = once
        self.records = records


class Job:
    """One run of the program."""

    def __init__(
        self, pump: Pump, go: Go, program: Program, extra: Mapping[bytes, bytes], parent: _socket.socket
    ) -> None:
        self._pump = pump
        self._session = pump.session
        self._go = go
        self._program = program
        self._extra = extra
        self._parent = parent
        self._limits = program.limits
        self._liveness = Liveness(pump.connection)
        self._early: list[int] = []  # signals that came before the program was there
        self._pid = 0
        self._status: int | None = None
        self._usage = (0, 0, 0)
        self._alone = True  # no child is left
        self._over = False  # the last frame has been said
        self._released = False
        self._deadline: float | None = None  # of the time limit
        self._latest: float | None = None  # when at last the slot is needed, after the time limit
        self._ending: process_tree.TreeEnd | None = None
        self._hit: limits.Hit | None = None
        self._inputs: dict[int, PipeSink] = {}
        self._abandoned = AbandonedOutputs(pump)
        self._directory: PrivateDirectory | None = None
        self._group: MemoryGroup | None = None
        self._record = _record(program, extra)
        self._children = _child_signals()
        pump.watch(self._children)
        pump.watch(parent.fileno())

    def run(self) -> None:
        """Starts the program, pumps until it is over, sends the exit frame and ends what is left."""
        try:
            refusal = self._check() or self._start()
            if refusal is not None:
                self._tell("refused", reason=refusal.reason)
                self._session.refuse(refusal)
            else:
                self._tell("started", pid=self._pid)
                self._session.started(once=self._program.once)
                self._run_program()
            self._over = True
            self._follow_up(self._end_tree)
        finally:
            self._clean_up()
        self._follow_up(self._linger)

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
        unknown = self._go.options.keys() - KNOWN_OPTIONS
        if unknown:
            return Refusal(HERE, f"option {min(unknown)} is not known here; update cexec on this worker")
        try:
            self._limits = self._program.limits.stricter(Limits.from_options(self._go.options))
        except ValueError as error:
            return Refusal(PERMANENT, str(error))
        return None

    def _start(self) -> Refusal | None:
        name = os.path.basename(self._program.executable)
        doing = f"start {name}"
        try:
            ends = open_streams(self._pump, self._go.streams, self._abandoned)
            self._inputs = {number: sink for number, sink in self._pump.sinks.items() if isinstance(sink, PipeSink)}
            try:
                if self._program.private or any(stream.number >= FIRST_FILE for stream in self._go.streams):
                    doing = "put the job's files into a directory of its own"
                    self._enter_directory()
                    doing = f"start {name}"
                self._pid = self._spawn(name, ends)
            finally:
                close_ends(ends)
        except OSError as error:
            return Refusal(HERE, f"cannot {doing}: {os.strerror(error.errno or 0).lower()}")
        self._alone = False
        if self._record is not None:
            self._record.add(leader=self._pid, start=process_tree.start_time(self._pid))
        if self._limits.time:
            self._deadline = monotonic() + self._limits.time
        for number in self._early:
            self._signal(number)
        return None

    def _enter_directory(self) -> None:
        """The files that the program is to find are complete before it starts."""
        self._directory = PrivateDirectory()
        if self._record is not None:
            self._record.add(directory=self._directory.path)
        self._directory.enter()
        receive_files(self._pump, self._go.streams, self._directory, self._step)

    def _spawn(self, name: str, ends: Mapping[int, int]) -> int:
        arguments: list[bytes | str] = [name, *self._program.arguments, *self._go.arguments]
        environment = {**self._program.environment, **self._extra}
        if not self._limits.inherited:
            return process.spawn(self._program.executable, arguments, environment, ends)
        if self._limits.memory:
            self._group = MemoryGroup.create(f"{os.getpid()}", self._limits.memory)
            if self._group is not None and self._record is not None:
                self._record.add(group=self._group.path)
        return process.spawn(
            self._program.executable, arguments, environment, ends, prepare=lambda: self._limits.apply(self._group)
        )

    # running

    def _run_program(self) -> None:
        while self._status is None or self._outputs_open():
            self._step(self._latest)
            if self._latest is not None and monotonic() >= self._latest:
                raise DisconnectedError("client does not take the output, or the program cannot be ended")
        self._deadline = None
        if self._directory is not None:
            if any(stream.number >= FIRST_FILE for stream in self._go.streams):
                self._end_tree()  # nobody writes any more to what is fetched
            failed = self._status != 0 or self._hit is not None
            skip = failed and self._go.options.get(FETCH_ON_FAILURE) == "no"
            send_files(self._pump, self._go.streams, self._directory, self._step, skip=skip)
        self._finish()

    def _outputs_open(self) -> bool:
        return any(half.state == OPEN for number, half in self._session.outgoing.items() if number < FIRST_FILE)

    def _step(self, until: float | None = None) -> None:
        """Pumps once, and does what time, the parent and the children ask for; waits no longer than `until`."""
        timeouts = [until, self._deadline, self._liveness.next_timeout()]
        timeouts.append(None if self._ending is None or self._alone else self._ending.next_timeout())
        due = [timeout for timeout in timeouts if timeout is not None]
        for event in self._pump.step(max(0.0, min(due) - monotonic()) if due else None):
            self._handle(event)
        self._abandoned.advance()
        if self._children in self._pump.ready:
            self._reap()
        if self._parent.fileno() in self._pump.ready:
            raise DisconnectedError("worker is ending its jobs")
        now = monotonic()
        self._liveness.stepped(now)
        self._liveness.handle_timeout(now)
        if self._deadline is not None and now >= self._deadline:
            self._deadline = None
            self._hit = limits.Hit(f"ended after its time limit of {self._limits.time:g} s", signal.SIGTERM)
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
            self._released = True
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

    def _reap(self) -> None:
        try:
            os.read(self._children, 4096)
        except BlockingIOError:
            pass
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                self._alone = True
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
        hit = self._hit or limits.find_hit(self._limits, status, (user + system) / 1e6, killed)
        message = hit.message if hit else limits.remark(self._limits, status, killed, self._group is not None)
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
        self._pump.flush()  # the client need not wait for our tidying up
        sent, received = (sum(half.count for half in self._session.outgoing.values()),
                          sum(half.consumed for half in self._session.incoming.values()))  # fmt: skip
        cpu = (user + system) / 1e6
        self._tell("finished", status=result.exit_status, sent=sent, received=received, cpu=cpu, reason=message)

    def _end_tree(self) -> None:
        """Ends what the program has left behind; pumps on, so that nobody waits for it."""
        self._reap()
        if not self._alone and self._ending is None:
            self._ending = process_tree.TreeEnd(self._pid, GRACE, monotonic())
        while not self._alone and self._ending is not None and not self._ending.given_up:
            self._step()

    def _linger(self) -> None:
        """Until the kernel has our last frame and the client lets go, but then not for ever: it may be stopped."""
        deadline = None
        while not self._released and (deadline is None or monotonic() < deadline):
            if deadline is None and self._pump.flushed:
                deadline = monotonic() + RELEASE_PATIENCE
            self._step(deadline)

    def _follow_up(self, what: Callable[[], None]) -> None:
        """What comes after the last frame: what becomes of the client is no failure of the job any more."""
        try:
            what()
        except CexecError:
            pass

    def _clean_up(self) -> None:
        process_tree.end_tree(self._pid, GRACE)
        if self._directory is not None:
            self._directory.remove()
        if self._group is not None:
            self._group.remove()
        if self._record is not None:
            self._record.close()

    def _tell(self, what: str, **values: object) -> None:
        try:
            self._parent.send(json.dumps({"event": what, **values}).encode())
        except OSError:
            pass  # the parent has gone; the watch on its socket says so


def run_job(pump: Pump, go: Go, program: Program, extra: Mapping[bytes, bytes], parent: _socket.socket) -> None:
    """Runs one job; every failure that is not the program's is told to the parent as `broken`."""
    process.adopt_orphans()
    job = Job(pump, go, program, extra, parent)
    try:
        job.run()
    except CexecError as error:
        job._tell("broken", reason=str(error))


def _record(program: Program, extra: Mapping[bytes, bytes]) -> Record | None:
    if program.records is None:
        return None
    try:
        return Record(program.records, f"{MARK}={os.fsdecode(extra[MARK.encode()])}")
    except OSError:
        return None  # a full disk: what it is for will hardly happen


def _child_signals() -> int:
    """A descriptor that becomes readable when a child has ended."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    signal.signal(signal.SIGCHLD, lambda number, stack: None)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    return reading
