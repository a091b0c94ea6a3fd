from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from cexec.errors import UsageError
from cexec.system.host import load_command
from cexec.system.host.load_command import DEADLINE, INTERVAL, LoadCommand
from cexec.system.process import process_tree


class Script:
    """A shell script whose text the test changes between two runs."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def says(self, text: str) -> None:
        new = self.path.with_suffix(".new")
        new.write_text(f"#!/bin/sh\n{text}\n")
        new.chmod(0o755)
        new.replace(self.path)


@pytest.fixture
def script(tmp_path: Path) -> Script:
    made = Script(tmp_path / "load")
    made.says("echo 0.5")
    return made


@pytest.fixture
def start() -> Iterator[Callable[[str], LoadCommand]]:
    made: list[LoadCommand] = []

    def start_one(words: str) -> LoadCommand:
        made.append(LoadCommand(words))
        return made[-1]

    yield start_one
    for command in made:
        command.close()


def run_once(command: LoadCommand, now: float) -> None:
    """Start it at `now`, a simulated time, and let it end; real time passes, simulated time by a little."""
    command.handle_timeout(now)
    while command.pid:
        if command.fileno() >= 0:
            assert select.select([command.fileno()], [], [], 20)[0], "the command says nothing"
            command.receive(now)
        else:
            with suppress(ChildProcessError):  # somebody else has taken its status
                os.waitid(os.P_PID, command.pid, os.WEXITED | os.WNOWAIT)  # it may end much later than its output
            now = max(now, command.next_timeout())
            command.handle_timeout(now)


def test_first_word_is_the_load(script: Script, start: Callable[[str], LoadCommand]) -> None:
    script.says("echo '0.75 of the GPU'; echo more")
    command = start(str(script.path))
    assert command.value is None
    run_once(command, 10.0)
    assert command.value == 0.75
    assert command.complaint() is None


def test_it_runs_once_a_second(script: Script, start: Callable[[str], LoadCommand]) -> None:
    command = start(str(script.path))
    run_once(command, 10.0)
    assert command.next_timeout() == pytest.approx(10.0 + INTERVAL, abs=0.2)
    script.says("echo 2")
    command.handle_timeout(10.5)
    assert command.fileno() == -1
    run_once(command, 11.5)
    assert command.value == 2.0


def test_arguments_are_split_as_in_a_shell_but_no_shell_runs(
    script: Script, start: Callable[[str], LoadCommand]
) -> None:
    script.says('[ "$#" = 2 ] && [ "$1" = "a b" ] && [ "$2" = ";" ] && echo 0.25')
    command = start(f"{script.path} 'a b' ;")
    run_once(command, 0.0)
    assert command.value == 0.25


@pytest.mark.parametrize("words", ["", "   ", "'unfinished", "/no/such/program", "no-such-program-anywhere"])
def test_command_that_cannot_be_run_is_a_usage_error(words: str) -> None:
    with pytest.raises(UsageError):
        LoadCommand(words)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("exit 3", "exits 3"),
        ("kill -9 $$", "signal 9"),
        ("true", "prints nothing"),
        ("echo busy", "prints busy"),
        ("echo -1", "prints -1"),
        ("echo nan", "prints nan"),
        ("echo inf", "prints inf"),
        (r"printf '\377\033[2J'", "prints \\xff"),
        ("head -c 1000000 /dev/zero | tr '\\0' 1", "prints 1111"),
    ],
)
def test_failure_is_told_once_and_the_measured_load_is_used(
    script: Script, start: Callable[[str], LoadCommand], text: str, reason: str
) -> None:
    command = start(str(script.path))
    run_once(command, 0.0)
    script.says(text)
    run_once(command, 2.0)
    assert command.value is None
    complaint = command.complaint()
    assert complaint is not None and reason in complaint and "\x1b" not in complaint
    run_once(command, 4.0)
    assert command.complaint() is None
    script.says("echo 1")
    run_once(command, 6.0)
    assert command.value == 1.0
    complaint = command.complaint()
    assert complaint is not None and complaint.endswith("works again")


def test_command_that_takes_too_long_is_ended_with_what_it_started(
    script: Script, start: Callable[[str], LoadCommand], tmp_path: Path
) -> None:
    script.says(f"sleep 600 & echo $! >{tmp_path}/child; wait")
    command = start(str(script.path))
    command.handle_timeout(0.0)
    until = time.monotonic() + 20
    while not (tmp_path / "child").exists() or not (tmp_path / "child").read_text().strip():
        assert time.monotonic() < until
        time.sleep(0.01)
    child = int((tmp_path / "child").read_text())
    leader = command.pid
    command.handle_timeout(DEADLINE - 0.1)
    assert command.fileno() >= 0
    command.handle_timeout(DEADLINE)
    assert command.value is None
    complaint = command.complaint()
    assert complaint is not None and "takes longer than 5 s" in complaint
    now = DEADLINE
    while command.pid == leader:
        time.sleep(0.01)
        now = max(now, command.next_timeout())
        command.handle_timeout(now)
    while _runs(child):
        assert time.monotonic() < until
        time.sleep(0.01)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_program_that_vanished_is_told_and_found_again(script: Script, start: Callable[[str], LoadCommand]) -> None:
    command = start(str(script.path))
    hidden = script.path.with_suffix(".hidden")
    script.path.rename(hidden)
    run_once(command, 0.0)
    complaint = command.complaint()
    assert complaint is not None and "cannot be started" in complaint
    hidden.rename(script.path)
    run_once(command, 2.0)
    assert command.value == 0.5


def test_an_exit_status_that_somebody_else_took_counts_as_a_failure(
    script: Script, start: Callable[[str], LoadCommand]
) -> None:
    command = start(str(script.path))
    command.handle_timeout(0.0)
    os.waitpid(command.pid, 0)
    run_once(command, 0.0)
    assert command.value is None
    complaint = command.complaint()
    assert complaint is not None and "its exit status is lost" in complaint
    run_once(command, 2.0)
    assert command.value == 0.5


def test_no_descriptor_and_no_process_is_left(script: Script, start: Callable[[str], LoadCommand]) -> None:
    command = start(str(script.path))
    run_once(command, 0.0)
    before, children = len(os.listdir("/proc/self/fd")), process_tree.children(os.getpid())
    for number in range(1, 6):
        run_once(command, 2.0 * number)
    assert len(os.listdir("/proc/self/fd")) == before
    assert process_tree.children(os.getpid()) == children


def test_close_ends_a_running_command(script: Script, start: Callable[[str], LoadCommand]) -> None:
    script.says("sleep 600")
    command = start(str(script.path))
    command.handle_timeout(0.0)
    pid = command.pid
    command.close()
    assert command.fileno() == -1
    _, status = os.waitpid(pid, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL


def test_what_the_driver_waits_for_never_blocks(script: Script, start: Callable[[str], LoadCommand]) -> None:
    script.says("sleep 60; echo 0")
    command = start(str(script.path))
    command.handle_timeout(0.0)
    began = time.monotonic()
    command.receive(0.0)
    command.handle_timeout(0.1)
    assert time.monotonic() - began < 30
    assert load_command.REAP_INTERVAL < INTERVAL
