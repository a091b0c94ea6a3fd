"""A log that nobody reads (an unread pipe, Ctrl-S at a terminal) stops no service, and keeps none from ending."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import termios
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import MakeLab, StartService
from tests.environment import command, local_environment
from tests.service import Application, Service
from tests.waiting import PATIENCE, all_asleep, wait_until

SERVICES = ["cservice", "cproxy", "crat"]


class Full:
    """A pipe without any room, or a terminal at which somebody has typed Ctrl-S."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        if kind == "terminal":
            self.reading, self.writing = pty.openpty()
            termios.tcflow(self.writing, termios.TCOOFF)
            return
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.writing, False)
        try:
            while True:
                os.write(self.writing, bytes(4096))
        except BlockingIOError:
            os.set_blocking(self.writing, True)

    def read(self, wanted: str) -> str:
        """What is written, as soon as it contains the text."""
        found = ""
        os.set_blocking(self.reading, False)
        if self.kind == "terminal":
            termios.tcflow(self.writing, termios.TCOON)

        def complete() -> bool:
            nonlocal found
            try:
                found += os.read(self.reading, 1 << 20).decode().replace("\0", "")
            except BlockingIOError:
                pass
            return wanted in found

        wait_until(complete, explain=lambda: found)
        return found


Start = Callable[[Sequence[str], Full], "subprocess.Popen[bytes]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a command both outputs of which nobody reads; at the end none is left."""
    with ExitStack() as stack:

        def begin(argv: Sequence[str], outputs: Full) -> subprocess.Popen[bytes]:
            process = subprocess.Popen(
                argv,
                env=local_environment(),
                stdin=subprocess.DEVNULL,
                stdout=outputs.writing,
                stderr=outputs.writing,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        yield begin


def argv_of(name: str, application: Application) -> list[str]:
    if name == "cservice":
        return command("cservice", application.secret, "cat")
    if name == "cproxy":
        return command("cproxy", "127.0.0.1", "127.255.255.254")
    return command("crat", application.public)


@pytest.mark.parametrize("kind", ["pipe", "terminal"])
@pytest.mark.parametrize("name", SERVICES)
def test_it_starts_says_its_lines_when_somebody_reads_again_and_ends(
    name: str, kind: str, application: Application, start: Start
) -> None:
    outputs = Full(kind)
    process = start(argv_of(name, application), outputs)
    if name != "crat":  # whose first line is lost after a moment, because it is for a person only
        wait_until(lambda: _waits_in_poll(process.pid))
        assert outputs.read(f"{name}: ")
    wait_until(lambda: _waits_in_poll(process.pid))
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize("kind", ["pipe", "terminal"])
def test_a_worker_goes_on_and_ends_while_nobody_reads(kind: str, application: Application, start: Start) -> None:
    outputs = Full(kind)
    process = start(argv_of("cservice", application), outputs)
    for _ in range(3):
        ended = application.run(input=b"text", timeout=PATIENCE)
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"text", b"")
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize("kind", ["pipe", "terminal"])
def test_a_relay_goes_on_and_ends_while_nobody_reads(
    kind: str, application: Application, lab: MakeLab, service: StartService, start: Start
) -> None:
    made = lab([(1, 2), (2, 3)])
    relay = made.host(2)
    service("cat", host=made.host(3))
    process = start(relay.inside(command("cproxy", relay.address, "10.77.1.255")), Full(kind))
    for _ in range(3):
        ended = application.run(input=b"text", host=made.host(1), timeout=PATIENCE)
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"text", b"")
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0


def test_a_logger_goes_on_while_nobody_reads(application: Application, start: Start) -> None:
    outputs = Full("pipe")
    process = start(argv_of("crat", application), outputs)
    wait_until(lambda: _waits_in_poll(process.pid))
    worker = Service(application, ["sh", "-c", "exit 3"])
    for _ in range(5):
        assert application.run(timeout=PATIENCE).returncode == 3
    worker.close()
    assert outputs.read("completed").count("\n") >= 1
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0


def test_a_logger_says_what_is_lost_when_nobody_has_read_until_its_end(
    application: Application, tmp_path: Path
) -> None:
    outputs = Full("pipe")
    with open(tmp_path / "errors", "wb") as errors:
        process = subprocess.Popen(
            argv_of("crat", application), env=local_environment(), stdout=outputs.writing, stderr=errors
        )
    try:
        wait_until(lambda: "logging" in (tmp_path / "errors").read_text())
        wait_until(lambda: _waits_in_poll(process.pid))
        process.send_signal(signal.SIGUSR1)  # a table of one line, its head
        wait_until(lambda: all_asleep(process.pid))
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 111
    finally:
        process.kill()
        process.wait()
    text = (tmp_path / "errors").read_text().splitlines()[-1]
    assert text == "crat: cannot write to standard output: nobody reads it; lines lost: 1"


def test_a_logger_does_not_wait_for_the_reader_of_a_named_pipe(application: Application, tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    argv = [*argv_of("crat", application), "--output", os.fspath(path)]
    ended = subprocess.run(argv, env=local_environment(), capture_output=True, text=True, timeout=PATIENCE)
    assert (ended.returncode, ended.stderr) == (111, f"crat: cannot open {path}: nobody reads this pipe\n")


def _waits_in_poll(pid: int) -> bool:
    """It has started, and waits for what comes."""
    try:
        wakeups = [path for path in Path(f"/proc/{pid}/fd").iterdir() if os.readlink(path).startswith("socket:")]
    except OSError:
        return False
    return bool(wakeups) and all_asleep(pid)
