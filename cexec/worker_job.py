"""One job, in a process of its own: the program, its descriptors, the pump, and the end.

Contract: `run_job` is called in a forked child that owns the connection and nothing else of the parent's; it returns
when the client has released the connection or gone, and everything that the program started has ended.  What the parent
has to know goes over `parent` as JSON texts: `started`, `refused`, `finished`, `broken`.  The parent going away, or its
word `terminate`, ends the job.  docs/protocol.md sections 4.2 to 4.4.
"""

from __future__ import annotations

import json
import os
import signal
import time

from cexec.errors import CexecError, DisconnectedError
from cexec.protocol import frames
from cexec.protocol.frames import EXITED, HERE, PIPE, READS, SIGNALLED, WRITES, Exit, Go, Refusal, Stream
from cexec.system import process
from cexec.system.fds import DuplexSink, DuplexSource, Sink, Source, enlarge
from cexec.system.pump import Pump, Trouble

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Mapping

    from cexec.protocol.session import Event

GRACE = 2.0  # seconds (ours) between TERM and KILL for what is left of a job
RELEASE_PATIENCE = 30.0  # seconds (ours) that a client has to take the exit frame and let go
SIGNALS = {  # (protocol) the signals that a client may send
    number: getattr(signal, name)
    for number, name in {1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 10: "SIGUSR1", 12: "SIGUSR2", 15: "SIGTERM",
                         18: "SIGCONT", 20: "SIGTSTP"}.items()
}  # fmt: skip


class Program:
    """What a worker serves; the same for all of its jobs.  `environment` lacks what belongs to one job."""

    __slots__ = ("allow_arguments", "arguments", "environment", "executable")

    def __init__(
        self, executable: str, arguments: list[str], environment: Mapping[bytes, bytes], allow_arguments: bool
    ) -> None:
        self.executable = executable
        self.arguments = arguments
        self.environment = environment
        self.allow_arguments = allow_arguments


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
        self._pid = 0
        self._status: int | None = None
        self._usage = (0, 0, 0)
        self._children = _child_signals()

    def run(self) -> None:
        """Starts the program, pumps until it is over, sends the exit frame and ends what is left."""
        refusal = self._check() or self._start()
        if refusal is not None:
            self._tell("refused", reason=refusal.reason)
            self._session.refuse(refusal)
            self._linger()
            return
        self._tell("started", pid=self._pid)
        self._session.started()
        try:
            self._pump_until_over()
            self._finish()
            self._pump.step(0.0)
        finally:
            process.end_tree(self._pid, GRACE)
        self._linger()

    # starting

    def _check(self) -> Refusal | None:
        if self._go.arguments and not self._program.allow_arguments:
            return Refusal(
                frames.PERMANENT, "arguments are not allowed here; the owner can allow them with: cservice --allow-args"
            )
        if self._go.options:
            return Refusal(HERE, f"option {min(self._go.options)} is not known here; update cexec on this worker")
        return None

    def _start(self) -> Refusal | None:
        theirs: dict[int, int] = {}
        try:
            for stream in self._go.streams:
                theirs[stream.number] = (
                    theirs[stream.same_as] if stream.same_as != stream.number else self._open(stream)
                )
            arguments: list[bytes | str] = [
                os.path.basename(self._program.executable),
                *self._program.arguments,
                *self._go.arguments,
            ]
            environment = {**self._program.environment, **self._extra}
            self._pid = process.spawn(self._program.executable, arguments, environment, theirs)
        except OSError as error:
            text = os.strerror(error.errno or 0).lower()
            return Refusal(HERE, f"cannot start {os.path.basename(self._program.executable)}: {text}")
        finally:
            for fd in set(theirs.values()):
                os.close(fd)
        return None

    def _open(self, stream: Stream) -> int:
        """Makes the pipe or socketpair for one stream; our end goes to the pump, the program's is returned."""
        if stream.kind == PIPE:
            reading, writing = os.pipe()
            enlarge(reading)
            ours, theirs = (writing, reading) if stream.directions == READS else (reading, writing)
            os.set_blocking(ours, False)
            if stream.directions == READS:
                self._pump.sinks[stream.number] = Sink(ours)
            else:
                self._pump.sources[stream.number] = Source(ours)
            return theirs
        import socket

        one, other = socket.socketpair()
        one.setblocking(False)
        ours, theirs = one.detach(), other.detach()
        if stream.directions & READS:
            self._pump.sinks[stream.number] = DuplexSink(ours)
        if stream.directions & WRITES:
            self._pump.sources[stream.number] = DuplexSource(ours)
        return theirs

    # running

    def _pump_until_over(self) -> None:
        self._pump.watch(self._children)
        self._pump.watch(self._parent.fileno())
        while self._status is None or self._outputs_open():
            for event in self._pump.step():
                self._handle(event)
            if self._children in self._pump.ready:
                self._reap()
            if self._parent.fileno() in self._pump.ready:
                raise DisconnectedError("worker is ending its jobs")

    def _outputs_open(self) -> bool:
        return self._session.writing

    def _handle(self, event: Event | Trouble) -> None:
        if isinstance(event, Trouble):
            return  # the program closed its end, or its pipe failed: the session has been told
        if event.kind == frames.SIGNAL and event.number in SIGNALS:
            process.signal_group(self._pid, SIGNALS[event.number])
        elif event.kind in (frames.CANCEL, frames.RELEASE):
            raise DisconnectedError("client gave up")

    def _reap(self) -> None:
        os.read(self._children, 4096)
        while self._status is None:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
            if pid == 0:
                return
            if pid == self._pid:
                self._status = status
                self._usage = (round(usage.ru_utime * 1e6), round(usage.ru_stime * 1e6), usage.ru_maxrss)

    # the end

    def _finish(self) -> None:
        status = self._status or 0
        kind, number = (SIGNALLED, os.WTERMSIG(status)) if os.WIFSIGNALED(status) else (EXITED, os.WEXITSTATUS(status))
        user, system, memory = self._usage
        result = Exit(kind=kind, status=number, endings=[], user_time=user, system_time=system, memory=memory)
        for stream in list(self._pump.sinks):
            self._pump.close_sink(stream)
        self._session.exit(result)
        sent, received = (sum(half.count for half in self._session.outgoing.values()),
                          sum(half.consumed for half in self._session.incoming.values()))  # fmt: skip
        self._tell("finished", status=result.exit_status, sent=sent, received=received, cpu=(user + system) / 1e6)

    def _linger(self) -> None:
        """Until the kernel has our last frame and the client lets go, but then not for ever: it may be stopped."""
        deadline = None
        try:
            while deadline is None or time.monotonic() < deadline:
                if deadline is None and self._pump.flushed:
                    deadline = time.monotonic() + RELEASE_PATIENCE
                for event in self._pump.step(RELEASE_PATIENCE):
                    if not isinstance(event, Trouble) and event.kind in (frames.RELEASE, frames.CANCEL):
                        return
        except DisconnectedError:
            return

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


def _child_signals() -> int:
    """A descriptor that becomes readable when a child has ended."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    signal.signal(signal.SIGCHLD, lambda number, stack: None)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    return reading
