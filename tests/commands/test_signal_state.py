"""Commands whose caller ignores or blocks signals: a failure stays a failure, and no job hangs.  Real launchers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import StartService
from tests.environment import command, local_environment
from tests.service import Application
from tests.waiting import comes_true

DEADLINE = 30.0  # seconds for whatever a test waits for
CALLERS = ("ignores SIGCHLD", "blocks SIGCHLD", "blocks all signals")
COMMANDS = {
    "cboot": ("--keep-trying", "--hosts", "127.0.0.1:9", "SECRET", "cat"),
    "cexec": ("PUBLIC",),
    "cgate": ("--http", "127.0.0.1:0", "--state", "OTHER", "PUBLIC"),
    "cexec-ssh": ("-oConnectTimeout=60", "w"),
    "ckeygen": ("-stdin", "OTHER"),
    "cmap": ("PUBLIC", ":::", "a"),
    "cproxy": ("127.0.0.1", "127.0.0.255"),
    "cps": ("--watch", "PUBLIC"),
    "crat": ("PUBLIC",),
    "cservice": ("SECRET", "cat"),
}
HELPER = "from cexec.net.mdns_helper import main; main(['browse'])"


@pytest.fixture(params=CALLERS)
def caller(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextmanager
def as_caller(caller: str) -> Iterator[None]:
    """What this process starts meanwhile inherits the caller's signal state."""
    ignored = [signal.SIGCHLD] if caller.startswith("ignores") else []
    blocked = {"blocks SIGCHLD": {signal.SIGCHLD}, "blocks all signals": signal.valid_signals()}.get(caller, set())
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGALRM, *ignored)}
    mask = signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            signal.signal(number, handler)


def start(caller: str, argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with as_caller(caller):
        return subprocess.Popen(argv, **{"env": local_environment(), **pipes, **options})


def run(caller: str, argv: Sequence[str], input: bytes = b"", **options: Any) -> tuple[int, str, str]:
    process = start(caller, argv, **options)
    out, err = process.communicate(input, timeout=DEADLINE)
    return process.returncode, out.decode(), err.decode()


def signals(pid: int, kind: str) -> set[int]:
    """The signals that a process ignores (SigIgn) or blocks (SigBlk)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{kind}:"):
            mask = int(line.split()[1], 16)
            return {number for number in range(1, 65) if mask >> number - 1 & 1}
    raise AssertionError(f"/proc/{pid}/status has no {kind}")


def has_own_state(pid: int) -> bool:
    return not signals(pid, "SigBlk") and signal.SIGCHLD not in signals(pid, "SigIgn")


def test_there_is_a_row_for_every_command() -> None:
    assert sorted(COMMANDS) == sorted(path.name for path in Path(command("cexec")[1]).parent.iterdir())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_sets_its_signal_state(name: str, caller: str, application: Application, tmp_path: Path) -> None:
    paths = {"PUBLIC": application.public, "SECRET": application.secret, "OTHER": tmp_path / "other"}
    environment = local_environment({"CEXEC_SSH_KEY": os.fspath(application.public)})
    process = start(caller, command(name, *(paths.get(word, word) for word in COMMANDS[name])), env=environment)
    try:
        assert comes_true(lambda: process.poll() is not None or has_own_state(process.pid))
        assert process.poll() is None, process.communicate()
        assert signal.SIGALRM in signals(process.pid, "SigIgn")  # all that is not SIGCHLD stays ignored
    finally:
        process.kill()
        process.communicate()


def test_the_process_for_multicast_dns_sets_its_signal_state(caller: str, tmp_path: Path) -> None:
    process = start(caller, [sys.executable, "-c", HELPER])
    try:
        assert comes_true(lambda: has_own_state(process.pid) and signal.SIGALRM not in signals(process.pid, "SigIgn"))
    finally:
        process.kill()
        process.communicate()


def test_signals_that_the_caller_ignores_stay_ignored(application: Application) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = start("blocks all signals", command("cexec", application.public))
    finally:
        signal.signal(signal.SIGHUP, before)
    assert comes_true(lambda: has_own_state(process.pid))
    process.send_signal(signal.SIGHUP)
    time.sleep(0.3)  # the time in which a SIGHUP that is not ignored would end it
    assert process.poll() is None
    process.send_signal(signal.SIGINT)  # which was blocked only
    process.communicate(timeout=DEADLINE)
    assert process.returncode == -signal.SIGINT


def test_a_result_that_validation_rejects_is_not_accepted(
    caller: str, application: Application, service: StartService
) -> None:
    service("cat")
    argv = command("cmap", "--validate", "exit 1", application.public, ":::", "a")
    status, out, err = run(caller, argv)
    assert (status, out) == (1, "") and "--validate exited with 1" in err


def test_a_collector_that_fails_is_seen(caller: str, application: Application, service: StartService) -> None:
    service("cat")
    status, _, err = run(caller, command("cmap", "--collect", "exit 4", application.public, ":::", "a"))
    assert status == 255 and "--collect exited with 4; task 1 is not saved" in err


def test_a_load_command_that_fails_is_seen(caller: str, service: StartService, tmp_path: Path) -> None:
    script = tmp_path / "load"
    script.write_text("#!/bin/sh\necho 0.5\nexit 3\n")
    script.chmod(0o755)
    with as_caller(caller):
        worker = service("cat", options=["--load-command", str(script)])
    worker.wait_for("exits 3; the measured load is used")


def test_a_job_process_that_is_killed_leaves_no_program(
    caller: str, application: Application, service: StartService
) -> None:
    with as_caller(caller):
        worker = service("sh", "-c", "echo ready; exec sleep 600")
    argv, environment = application.client()
    argv[2:2] = ["--retries", "0"]
    client = subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert client.stdout is not None and client.stdout.readline() == b"ready\n"
    job = worker.busy_process()
    (program,) = job.children()
    job.kill()
    worker.wait_for("the job's process was killed by signal 9")
    client.communicate(timeout=DEADLINE)
    assert client.returncode == 111
    assert psutil.wait_procs([program], timeout=DEADLINE)[1] == []


def test_jobs_end_and_their_statuses_are_the_programs(
    caller: str, application: Application, service: StartService
) -> None:
    with as_caller(caller):
        worker = service("sh", "-c", "cat; exit 3")
    argv, _ = application.client()
    for _ in range(2):
        assert run(caller, argv, b"hello") == (3, "hello", "")
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0


@pytest.mark.parametrize("options", [[], ["--nice", "1"], ["--tty"]], ids=["spawned", "forked", "on a terminal"])
def test_a_program_starts_with_no_signal_blocked_or_ignored(
    caller: str, application: Application, service: StartService, options: list[str]
) -> None:
    """Regression: SIGALRM, for example, stayed ignored: a program that is to be ended by its alarm ran for ever."""
    with as_caller(caller):
        service("sh", "-c", "exec cat /proc/self/status", options=options)
    argv, _ = application.client(*(["-t"] if "--tty" in options else []))
    _, out, _ = run(caller, argv)
    lines = dict(line.split(":\t", 1) for line in out.splitlines() if ":\t" in line)
    assert int(lines["SigBlk"], 16) == 0
    ordinary = (1 << 31) - 1  # signals 1 to 31; the C library has uses of its own for the next two
    assert not int(lines["SigIgn"], 16) & ordinary


def test_a_python_program_that_ignores_sigchld_loses_no_failure(tmp_path: Path) -> None:
    """The modules are used without a command, too."""
    script = (
        "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "from cexec.cmap.results.validate import Validator; "
        "from cexec.cmap.inputs.tasks import NOTHING, Task, TaskInput\n"
        "task = Task(1, stdin=TaskInput(NOTHING), parameters={})\n"
        "for text in ('exit 1', 'true'): print(Validator(text, '--validate').check(task, {}).reason)\n"
        "from cexec.system.host.load_command import LoadCommand; import select, time\n"
        "load = LoadCommand('sh -c \"echo 0.5; exit 3\"'); load.handle_timeout(0.0)\n"
        "while load.fileno() >= 0: load.receive(0.0)\n"
        "while (told := load.complaint()) is None and load.value is None: load.handle_timeout(load.due)\n"
        "print(told, load.value)\n"
        "from cexec.system.process import process; import os\n"
        "try: process.spawn('/dev/null', ['x'], {}, {}, prepare=lambda: None)\n"
        "except OSError as error: print(error.strerror)\n"
    )
    argv = [sys.executable, "-c", script]
    result = subprocess.run(argv, env=local_environment(), capture_output=True, text=True, timeout=DEADLINE)
    lost = "has ended, and its exit status is lost"
    assert result.stdout.splitlines() == [
        f"--validate {lost}",
        f"--validate {lost}",
        f"load command sh {lost}; the measured load is used None",
        os.strerror(13),
    ], result.stderr


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGUSR2"])
def test_a_signal_that_never_ends_cservice_does_not_end_it_while_its_modules_are_read(
    name: str, tmp_path: Path
) -> None:
    """Regression: `pkill -USR1` ended a cservice that was in the first tenth of its first second."""
    package = tmp_path / "cexec" / "commands"
    package.mkdir(parents=True)
    for directory in (package.parent, package):
        (directory / "__init__.py").touch()
    sends = f"import os, signal\nos.kill(os.getpid(), signal.{name})\ndef main():\n    return 7\n"
    (package / "cservice.py").write_text(sends)  # in place of the modules
    environment = {**local_environment(), "PYTHONPATH": str(tmp_path)}
    assert subprocess.run(command("cservice"), env=environment, timeout=DEADLINE).returncode == 7
