"""A worker's job process and a client made of the real pump, joined by a TCP connection; no race, no keys.

Contract: `RemoteJob` forks and runs `worker.jobs.lease.run_jobs` as cservice does.  What the client gives and gets is
in memory: `inputs` by stream number, `output(n)` what came.  `run()` returns the worker's exit frame; `reports` is what
the job's process told its parent.  As a context manager it ends everything, and `remains()` names what then is left.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from cexec.errors import DisconnectedError
from cexec.net.pump import Pump, Trouble
from cexec.protocol.base import sodium
from cexec.protocol.connection import frames
from cexec.protocol.connection.frames import Exit, Go, Refusal, Stream
from cexec.protocol.connection.options import READS, WRITES
from cexec.protocol.connection.session import OFFERED, Event, Session
from cexec.system.io.fds import Sink, Source
from cexec.system.io.wakeup import wait_readable
from cexec.system.process import process, process_tree
from cexec.worker.jobs.lease import run_jobs
from cexec.worker.jobs.program import Program
from cexec.worker.jobs.report_memory import NoteReader, ReportMemory
from cexec.worker.jobs.reports import Report, Starting, Taken, decode
from cexec.worker.jobs.worker_link import WorkerLink
from tests.protocol.wires import record_pair
from tests.waiting import PATIENCE

JOB_ID = bytes(range(16))
STANDARD = [Stream(0, READS), Stream(1, WRITES), Stream(2, WRITES)]
LOOK_INTERVAL = 0.01  # seconds between two looks at what a process has said
DEADLINE = PATIENCE  # seconds for whatever a test waits for


class RefusedError(Exception):
    """The worker did not start the program."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason)
        self.kind = refusal.kind


class RemoteJob:
    """One job under way."""

    def __init__(
        self,
        *command: str,
        streams: Sequence[Stream] = STANDARD,
        inputs: Mapping[int, bytes] | None = None,
        options: Mapping[str, str] | None = None,
        arguments: Sequence[bytes] = (),
        environment: Mapping[str, bytes] | None = None,
        held: bool = False,
        given: bool = True,
        packed: bool = False,
        **program: Any,
    ) -> None:
        self.mark = f"CEXEC_RUN={os.urandom(16).hex()}".encode()
        self.events: list[Event] = []
        self.started = False
        self.exit: Exit | None = None
        self._outputs: dict[int, int] = {}
        self._pipes: dict[int, int] = {}  # with `held`
        self._released: set[int] = set()
        self._fed: set[int] = set()
        self._reports: list[Report] = []  # that have been received
        self._taken = False
        go = Go(
            job_id=JOB_ID, attempt=1, streams=list(streams), options=dict(options or {}),
            arguments=list(arguments), environment=dict(environment or {}),
        )  # fmt: skip
        self.go = go
        self._inputs = {number: (inputs or {}).get(number, b"") for number in self._numbers(READS)}
        worker = Session(worker=True, now=time.monotonic(), numbered=packed)
        self.session = Session(worker=False, now=time.monotonic(), numbered=packed)
        ours, theirs = _connection()
        one, other = record_pair(sodium.aead_names()[0], packed=packed)
        self.parent, parent = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        memory = ReportMemory.create()
        self._notes = NoteReader(memory)
        executable = process.resolve(command[0], os.environ["PATH"])
        arguments_given = bool(program.pop("allow_arguments", False))
        served = Program(executable, list(command[1:]), dict(os.environb), arguments_given, **program)
        self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            self.parent.close()
            _child(Pump(theirs, other, worker), served, self.mark, WorkerLink(parent, memory))
        memory.close_fd()
        theirs.close()
        parent.close()
        self.pump = Pump(ours, one, self.session)
        self.until(lambda: self.session.state == OFFERED)
        self.events.clear()
        if given:
            self.session.go(go)
            self._join(held)

    def again(self, job_id: bytes, inputs: Mapping[int, bytes] | None = None, attempt: int = 1) -> None:
        """The same job under another name, when the worker has confirmed again; its data goes with the GO."""
        self.until(lambda: self.session.state == OFFERED)
        self.go.job_id, self.go.attempt = job_id, attempt
        self._inputs = {number: (inputs or {}).get(number, b"") for number in self._numbers(READS)}
        self.started, self.exit = False, None
        self._fed.clear()
        for fd in self._outputs.values():
            os.close(fd)
        self.session.go(self.go)
        self._join(held=False)
        for number in self._inputs:
            self.feed(number)

    def _join(self, held: bool) -> None:
        for number in self._numbers(WRITES):
            self._outputs[number] = os.memfd_create(f"output {number}")
            if held:
                self._pipes[number], writing = os.pipe2(os.O_NONBLOCK)
                self.pump.sinks[number] = Sink(writing)
            else:
                self.pump.sinks[number] = Sink(os.dup(self._outputs[number]))
        for number in self._numbers(READS):
            if number >= frames.FIRST_FILE:
                self.feed(number)

    def release(self, number: int) -> None:
        """Begins to take an output; with `held` none is taken before."""
        self._released.add(number)

    def feed(self, number: int) -> None:
        """Gives an input; usually that is done when the program has started."""
        self._fed.add(number)
        self.pump.close_source(number)  # that of the last job, if its program has not read all of it
        fd = os.memfd_create(f"input {number}")
        os.pwrite(fd, self._inputs[number], 0)
        self.pump.sources[number] = Source(fd)

    def step(self, timeout: float = 0.05) -> None:
        for number in self._released:
            try:
                os.write(self._outputs[number], os.read(self._pipes[number], 1 << 20))
            except BlockingIOError:
                pass
        for event in self.pump.step(timeout):
            if isinstance(event, Trouble):
                continue
            self.events.append(event)
            if event.kind == frames.STARTED:
                self.started = True
                for number in self._inputs:
                    if number < frames.FIRST_FILE and number not in self._fed:
                        self.feed(number)
            elif event.kind == frames.REFUSED and event.refusal is not None:
                raise RefusedError(event.refusal)
            elif event.kind == frames.EXIT:
                self.exit = event.exit

    def until(self, condition: Callable[[], object], timeout: float = DEADLINE) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, "it never came true"
            self.step()

    def run(self, timeout: float = DEADLINE) -> Exit:
        """Until the exit frame; then lets the worker go."""
        result = self.result(timeout)
        self.let_go()
        return result

    def result(self, timeout: float = DEADLINE) -> Exit:
        """Until the exit frame."""
        self.until(lambda: self.exit is not None and self.pump.drained, timeout)
        assert self.exit is not None
        return self.exit

    def let_go(self) -> None:
        self.session.release()
        self.pump.say_goodbye()

    def report(self) -> Report:
        """The next thing that its process says."""
        deadline = time.monotonic() + DEADLINE
        while not self._read():
            assert time.monotonic() < deadline, "it says nothing"
            wait_readable([self.parent.fileno()], LOOK_INTERVAL)
        return self._reports.pop(0)

    def output(self, number: int) -> bytes:
        return os.pread(self._outputs[number], os.fstat(self._outputs[number]).st_size, 0)

    def reports(self) -> list[Report]:
        """All that its process says until it ends."""
        self.parent.settimeout(DEADLINE)
        while self.parent.recv(1):
            pass
        self._read()
        found, self._reports = self._reports, []
        return found

    def _read(self) -> list[Report]:
        """All that are not told yet: not that the first job has been taken, nor that a program is about to start."""
        while data := self._notes.read():
            report = decode(data)
            if isinstance(report, Taken) and not self._taken:
                self._taken = True
            elif not isinstance(report, Starting):
                self._reports.append(report)
        return self._reports

    def processes(self) -> list[int]:
        """What runs of the program."""
        return [pid for pid in process_tree.marked(self.mark) if pid != self.pid]

    def remains(self, timeout: float = DEADLINE) -> list[int]:
        """What is left of the program when `timeout` has passed, or nothing as soon as nothing is."""
        deadline = time.monotonic() + timeout
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.02)
        return left

    def wait(self) -> int:
        """The wait status of the job's process."""
        pid, self.pid = self.pid, 0
        return os.waitpid(pid, 0)[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.pump.connection.close()
        for stream in list(self.pump.sources):
            self.pump.close_source(stream)
        for stream in list(self.pump.sinks):
            self.pump.sinks.pop(stream).close()
        self.parent.close()
        if self.pid:
            self.wait()
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
        for fd in (*self._outputs.values(), *self._pipes.values()):
            os.close(fd)

    def _numbers(self, direction: int) -> list[int]:
        return [s.number for s in self.go.streams if s.directions & direction and s.same_as == s.number]


def shell(script: str, **options: Any) -> RemoteJob:
    """A job that is a shell script."""
    return RemoteJob("sh", "-c", script, **options)


def python(script: str, **options: Any) -> RemoteJob:
    """A job that is a Python script."""
    return RemoteJob(sys.executable, "-S", "-c", script, **options)


def written(path: Path, timeout: float = DEADLINE) -> str:
    """What a job writes into a file, once it ends with a newline."""
    deadline = time.monotonic() + timeout
    while not (path.exists() and (text := path.read_text()).endswith("\n")):
        assert time.monotonic() < deadline, f"{path.name} was not written"
        time.sleep(0.01)
    return text.rstrip("\n")


def lost(job: RemoteJob) -> str:
    """Steps until the connection ends without an exit; the reason."""
    try:
        job.until(lambda: job.exit is not None)
    except DisconnectedError as error:
        return str(error)
    raise AssertionError("the job has ended as if nothing had been")


def _child(pump: Pump, program: Program, mark: bytes, parent: WorkerLink) -> None:
    try:
        # What earlier tests have not closed yet is none of the job's business.
        for number in map(int, os.listdir("/proc/self/fd")):
            if number not in (0, 1, 2, pump.connection.fileno(), parent.fileno()):
                os.closerange(number, number + 1)
        process.adopt_orphans()
        name, _, value = mark.partition(b"=")
        run_jobs(pump, program, lambda go: {name: value, **_numbers(go), **_peers(go)}, parent)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(0)


def _numbers(go: Go) -> dict[bytes, bytes]:
    return {b"CEXEC_JOB": go.job_id.hex().encode(), b"CEXEC_ATTEMPT": str(go.attempt).encode()}


def _peers(go: Go) -> dict[bytes, bytes]:
    return {b"PEER_" + name.encode(): value for name, value in go.environment.items()}


def _connection() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    for one in (ours, theirs):
        one.setblocking(False)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return ours, theirs
