"""Real processes of the project's commands for tests: applications, `cservice`, clients.

Contract: `Service` is a running `cservice` whose lines on stderr can be waited for; `close()` ends it and raises
AssertionError when it leaves anything behind: a descriptor more than at its start, or a process of a job.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from cexec.authority.make import make
from cexec.protocol.base.keys import ClientKey
from cexec.system.storage.keyfile import read_key
from tests import forked
from tests.environment import clean_environment, command, local_environment
from tests.lab import Host
from tests.waiting import PATIENCE, all_asleep, comes_true, wait_until

MARK = "TEST_SERVICE_MARK"  # a job inherits it from its cservice, so its processes are found wherever they hide
SMALLEST_PIPE = 4096  # bytes
STOP_DEADLINE = 30.0  # seconds from SIGTERM to the end
# All states of a program that has been stopped.  A shell that has just called vfork sleeps uninterruptibly until its
# child, which is stopped, goes on.
STOPPED = {psutil.STATUS_STOPPED, psutil.STATUS_DISK_SLEEP, psutil.STATUS_ZOMBIE}
WAITING_DESCRIPTORS = 5  # the standard ones, the way to cservice, and the memory for its reports
QUIET_DEADLINE = (
    30.0  # seconds until the descriptors and processes of the last job are gone; N6 gives 5 to an idle machine
)


class Application:
    """A pair of key files as of `ckeygen`: `secret` is the workers', `public` (secret.pub) the clients'."""

    def __init__(self, directory: Path, name: str = "app") -> None:
        self.secret = directory / name
        self.public = directory / f"{name}.pub"
        # Not by the command, which takes 50 times as long: nearly every test makes a pair.
        make(os.fspath(self.secret), os.fspath(self.public), None, None)

    @property
    def fingerprint(self) -> str:
        """What both files are known by."""
        return read_key(os.fspath(self.public), (ClientKey,)).fingerprint

    def client(self, *arguments: str, environment: Mapping[str, str] | None = None) -> tuple[list[str], dict[str, str]]:
        """argv and environment of `cexec APP.pub ARGUMENTS...` on this machine; for `popen` of subprocess."""
        return command("cexec", self.public, *arguments), local_environment(environment)

    def run(
        self,
        *arguments: str,
        input: bytes = b"",
        host: Host | None = None,
        environment: Mapping[str, str] | None = None,
        timeout: float = 30.0,
    ) -> subprocess.CompletedProcess[bytes]:
        """Runs `cexec APP.pub ARGUMENTS...` to its end, on `host` or else here."""
        argv = command("cexec", self.public, *arguments)
        options: dict[str, Any] = {"input": input, "capture_output": True, "timeout": timeout}
        if host is not None:
            return host.run(argv, env=clean_environment(environment), **options)
        return subprocess.run(argv, env=local_environment(environment), **options)

    def run_many(self, host: Host, total: int, at_a_time: int, *arguments: str, timeout: float = 60.0) -> list[str]:
        """`total` clients on `host`, so many at a time; the line that each of their jobs wrote, as they came."""
        script = 'total=$1; at_a_time=$2; shift 2; seq "$total" | xargs -P "$at_a_time" -I{} "$@"'
        client = command("cexec", "-n", self.public, *arguments)
        argv = ["sh", "-c", script, "sh", str(total), str(at_a_time), *client]
        result = host.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=timeout)
        lines = str(result.stdout).splitlines()
        assert len(lines) == total, result.stderr
        return lines


class Service:
    """`cservice OPTIONS... APP PROGRAM...`, on `host` or else here, that has said its first line."""

    def __init__(
        self,
        application: Application,
        program: Sequence[str],
        options: Sequence[str] = (),
        host: Host | None = None,
        environment: Mapping[str, str] | None = None,
        wrapper: Sequence[str] = (),
        launcher: Sequence[str] | None = None,
    ) -> None:
        """`wrapper`: a command that becomes the one behind it.  `launcher`: the words in place of `cservice`."""
        self.application = application
        self._mark = uuid.uuid4().hex
        self._supervisor: psutil.Process | None = None  # as it was last found
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        self._may_read = threading.Event()
        self._may_read.set()
        started_by = launcher or command("cservice")
        self.argv = argv = [*started_by, *options, os.fspath(application.secret), *program]
        changes = {**(environment or {}), MARK: self._mark}
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        env = local_environment(changes) if host is None else clean_environment(changes)
        network = "" if host is None else host.path
        forked_one = None if wrapper or launcher else forked.start(argv, env=env, network=network)
        self.process: subprocess.Popen[str] | forked.Child
        if forked_one is not None:
            self.process = forked_one
        elif host is not None:
            self.process = host.popen(argv, env=env, **pipes)
        else:
            self.process = subprocess.Popen([*wrapper, *argv], env=env, **pipes)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            first = self.wait_for(lambda line: True)
            if first.startswith("Traceback"):
                self.wait()
                raise AssertionError("\n".join(self.lines))
        except BaseException:
            self.kill()
            raise
        self.descriptors_at_start = self._settled_descriptors()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def lines(self) -> list[str]:
        """What it has written to stderr so far."""
        with self._changed:
            return list(self._lines)

    def wait_for(self, wanted: str | Callable[[str], bool], timeout: float = PATIENCE) -> str:
        """The first line, written already or yet to come, that contains the text or that the function is true for."""
        fits = (lambda line: wanted in line) if isinstance(wanted, str) else wanted
        deadline = time.monotonic() + timeout
        seen = 0
        with self._changed:
            while True:
                for line in self._lines[seen:]:
                    if fits(line):
                        return line
                seen = len(self._lines)
                remaining = deadline - time.monotonic()
                if self._ended or remaining <= 0:
                    happened = "ended" if self._ended else f"has been silent for {timeout} seconds"
                    raise AssertionError(f"cservice {happened} without {wanted!r}:\n" + "\n".join(self._lines))
                self._changed.wait(remaining)

    def lines_with(self, text: str, count: int) -> list[str]:
        """All lines with this text, as soon as there are `count` of them.

        What cservice says of a job may come after the job's client has ended.
        """
        found: list[str] = []

        def enough(_: str) -> bool:
            found[:] = [line for line in self._lines if text in line]
            return len(found) >= count

        self.wait_for(enough)
        return found

    def descriptors(self) -> int:
        """How many descriptors it has open."""
        return psutil.Process(self.pid).num_fds()

    @property
    def supervisor(self) -> psutil.Process:
        """The process that starts the jobs' processes."""
        found = self._supervisor
        if found is None or not _has_argv(found, self.argv):  # a look at the children is one at all processes
            own = psutil.Process(self.pid)
            (found,) = [child for child in own.children() if _has_argv(child, self.argv) and _has_argv(own, self.argv)]
            self._supervisor = found
        return found

    def job_processes(self) -> list[psutil.Process]:
        """The processes that run jobs or wait for them."""
        return self.supervisor.children()

    def busy_process(self) -> psutil.Process:
        """The one process that runs a job.

        One that has just been forked has more descriptors at first, and one whose job has just ended is still there.
        """
        found: list[psutil.Process] = []

        def one() -> bool:
            found[:] = [process for process in self.job_processes() if not self._waits(process)]
            return len(found) == 1

        wait_until(one, explain=lambda: found)
        return found[0]

    def started(self) -> list[psutil.Process]:
        """The processes that it has started and that still run, its own helpers and jobs, however detached.

        Neither the supervisor nor the process that waits for the next job.
        """
        return [process for process in _marked(self._mark) if process.pid != self.pid and not self._waits(process)]

    def pids(self) -> list[int]:
        """All of its processes: cservice, its helpers, the jobs' processes and their programs."""
        return [process.pid for process in _marked(self._mark)]

    def _waits(self, process: psutil.Process) -> bool:
        """Such a one has no connection, no record and no program: its descriptors are WAITING_DESCRIPTORS."""
        try:
            supervisor = self.supervisor.pid
            waits = process.ppid() == supervisor and process.num_fds() == WAITING_DESCRIPTORS
            return process.pid == supervisor or waits
        except (psutil.Error, ValueError):
            return False  # it has ended meanwhile

    @contextmanager
    def unread(self) -> Iterator[None]:
        """While it lasts nobody reads what cservice writes to stderr, and there is room for little."""
        assert self.process.stderr is not None
        fcntl.fcntl(self.process.stderr.fileno(), fcntl.F_SETPIPE_SZ, SMALLEST_PIPE)
        self._may_read.clear()
        try:
            yield
        finally:
            self._may_read.set()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, timeout: float = STOP_DEADLINE) -> int:
        """The exit status, once it has ended."""
        status = self.process.wait(timeout)
        self._reader.join(timeout)
        assert not self._reader.is_alive(), "something that cservice or its caller has started keeps its stderr open"
        return status

    def kill(self) -> None:
        """Ends it and what it started by SIGKILL; for tests of that, and when all else has failed."""
        self.process.kill()
        self.process.wait()
        left = _marked(self._mark)
        for process in left:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                pass  # it has ended meanwhile
        psutil.wait_procs(left, timeout=STOP_DEADLINE)
        self._reader.join(STOP_DEADLINE)

    def close(self) -> None:
        """Ends it as a user would and checks that it was well and leaves nothing."""
        try:
            if self.process.poll() is None:
                self._check_descriptors()
                self.process.terminate()
                self.wait()
            self._check_processes()
            self.wait()  # what a test has ended may have lines that were not read yet
            tracebacks = [line for line in self.lines if line.startswith("Traceback")]
            assert not tracebacks, "\n".join(self.lines)
        except BaseException:
            self.kill()
            raise

    def _settled_descriptors(self) -> int:
        """How many are open once it has opened all that it needs, which its first line need not wait for."""
        before, now_open = -1, self.descriptors()
        deadline = time.monotonic() + QUIET_DEADLINE
        while (now_open != before or not self._is_asleep()) and time.monotonic() < deadline:
            time.sleep(0.1)
            before, now_open = now_open, self.descriptors()
        return now_open

    def _is_asleep(self) -> bool:
        """Nothing of it is on its way, as on a machine that has had no time for it."""
        return all_asleep(*self.pids())

    def _check_descriptors(self) -> None:
        if not comes_true(lambda: self.descriptors() <= self.descriptors_at_start, QUIET_DEADLINE):
            names = sorted(os.readlink(path) for path in Path(f"/proc/{self.pid}/fd").iterdir())
            raise AssertionError(
                f"{len(names)} descriptors are open and {self.descriptors_at_start} were at start: {names}"
            )

    def _check_processes(self) -> None:
        if not comes_true(lambda: not _marked(self._mark), QUIET_DEADLINE):
            left = [process.as_dict(["pid", "cmdline"]) for process in _marked(self._mark)]
            raise AssertionError(f"processes are left: {left}")

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            for line in stream:
                self._may_read.wait()
                with self._changed:
                    self._lines.append(line.rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


class Shell:
    """A worker that runs what its clients say: `run(SCRIPT)` is `cexec APP.pub RUN=SCRIPT`."""

    def __init__(self, directory: Path, options: Sequence[str] = ()) -> None:
        self.application = Application(directory)
        self.service = Service(self.application, ["sh", "-c", 'eval "$PEER_RUN"'], options)

    def run(self, script: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
        """Options are those of `Application.run`."""
        return self.application.run(f"RUN={script}", *arguments, **options)

    def client(
        self, script: str, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> tuple[list[str], dict[str, str]]:
        """argv and environment for `popen` of subprocess."""
        return self.application.client(f"RUN={script}", *arguments, environment=environment)

    def states(self) -> set[str]:
        """The states of the processes of the jobs' programs, without the worker's own."""
        found: set[str] = set()
        for process in self.service.started():
            try:
                if "cservice" not in " ".join(process.cmdline()):
                    found.add(process.status())
            except psutil.Error:
                pass  # it has ended meanwhile
        return found

    def programs(self) -> list[str]:
        """What `states` looks at, and the worker's log, for the message of a failure."""
        found = [f"{process.pid} {process.status()} {process.cmdline()}" for process in self.service.started()]
        return [*found, *self.service.lines]

    def close(self) -> None:
        self.service.close()


def _has_argv(process: psutil.Process, argv: Sequence[str]) -> bool:
    try:
        return process.cmdline() == list(argv)
    except psutil.Error:
        return False


def _marked(mark: str) -> list[psutil.Process]:
    """Every process that has the mark and is no zombie, whose environment is empty.

    `psutil` takes five times as long to look at all processes, which the end of every service does.
    """
    marked = f"{MARK}={mark}".encode()
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/environ", "rb", buffering=0) as environment:
                if marked in environment.read():
                    found.append(psutil.Process(int(entry)))
        except (psutil.Error, OSError):  # it ended meanwhile, or it is another user's
            continue
    return found
