"""A client at a terminal where nobody can say fg, and one in the background while somebody types."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.network.test_signals import until
from tests.service import Shell
from tests.terminal import SUSPEND, Terminal
from tests.waiting import wait_until

LINE = "echo ready; read line; echo got $line"
ALONE = {
    "session leader": [],
    "sh -c": ["sh", "-c", '"$@"; exit $?', "sh"],
    "script -c": ["script"],
}


class LeaderOfSession(Terminal):
    """A command that leads the session of its terminal, as that of `ssh -t` and `docker exec -it` does: no shell."""

    def __init__(self, argv: list[str], environment: dict[str, str]) -> None:
        self.seen = b""
        self._terminal, theirs = os.openpty()
        self._shell = subprocess.Popen(
            ["setsid", "--ctty", *argv], env=environment, stdin=theirs, stdout=theirs, stderr=theirs, text=True
        )
        os.close(theirs)

    @property
    def pid(self) -> int:
        return self._shell.pid

    def wait(self) -> int:
        return self._shell.wait(60)


@pytest.mark.parametrize("how", ALONE)
def test_ctrl_z_where_nobody_can_say_fg_does_not_stop_us(shell: Shell, how: str) -> None:
    """Regression: cexec stopped itself by SIGSTOP, for good."""
    argv, environment = shell.client(LINE)
    prefix = ALONE[how]
    words = ["script", "-qec", shlex.join(argv), "/dev/null"] if prefix == ["script"] else [*prefix, *argv]
    with LeaderOfSession(words, environment) as terminal:
        terminal.wait_for(b"ready")
        terminal.type(SUSPEND)
        terminal.wait_for(b"^Z")
        terminal.type(b"it\n")
        terminal.wait_for(b"got it")
        assert terminal.wait() == 0


def test_ctrl_z_stops_us_where_a_shell_can_say_fg(shell: Shell) -> None:
    argv, environment = shell.client(LINE)
    with Terminal(argv, environment) as terminal:
        terminal.wait_for(b"ready")
        terminal.type(SUSPEND)
        terminal.stopped()
        terminal.foreground()
        terminal.type(b"it\n")
        terminal.wait_for(b"got it")
        assert terminal.wait() == 0


@contextmanager
def in_background(shell: Shell, script: str, out: Path, *options: str) -> Iterator[Terminal]:
    """`cexec app.pub > out &`, whose program has said `ready`."""
    argv, environment = shell.client(script, *options)
    with Terminal(argv, environment, {1: str(out)}, background=True) as terminal:
        wait_until(lambda: out.exists() and out.read_bytes().startswith(b"ready\n"), explain=terminal.read_all)
        yield terminal


def switches(out: Path) -> int:
    """How often the client whose standard output this is has gone to sleep."""
    for process in psutil.process_iter():
        try:
            if os.readlink(f"/proc/{process.pid}/fd/1") == str(out) and "PEER_RUN" not in process.environ():
                return int(process.num_ctx_switches().voluntary)
        except (psutil.Error, OSError):
            continue
    raise AssertionError("no client")


def test_a_background_job_goes_on_while_somebody_types(shell: Shell, tmp_path: Path) -> None:
    """Regression: reading the terminal stopped the job (SIGTTIN), or failed (EIO)."""
    out, go = tmp_path / "out", tmp_path / "go"
    with in_background(shell, f"echo ready; {until(go)}; echo end", out) as terminal:
        before = switches(out)
        terminal.type(b"for the shell\n")
        assert not terminal.says_more(3)  # neither stopped nor ended
        assert switches(out) - before < 30  # it looks each second, and is not busy
        go.touch()
        assert terminal.wait() == 0
    assert out.read_bytes() == b"ready\nend\n"


def test_a_job_reads_the_terminal_once_it_is_in_the_foreground(shell: Shell, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with in_background(shell, LINE, out) as terminal:
        terminal.type(b"mine\n")
        assert not terminal.says_more(1.5)
        assert out.read_bytes() == b"ready\n"
        terminal.foreground()
        assert terminal.wait() == 0
    assert out.read_bytes() == b"ready\ngot mine\n"


def test_a_background_job_on_every_worker_goes_on_while_somebody_types(shell: Shell, tmp_path: Path) -> None:
    """With --all output comes at the end, so the program makes a file when it runs."""
    out, ready, go = tmp_path / "out", tmp_path / "ready", tmp_path / "go"
    argv, environment = shell.client(f"touch {ready}; {until(go)}; echo end", "--all")
    with Terminal(argv, environment, {1: str(out)}, background=True) as terminal:
        wait_until(ready.exists, explain=terminal.read_all)
        terminal.type(b"for the shell\n")
        assert not terminal.says_more(2)
        go.touch()
        assert terminal.wait() == 0
    assert out.read_bytes() == b"end\n"
