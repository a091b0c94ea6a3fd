"""However a job on a terminal ends, the person's terminal is as it was, and nothing of the job is left."""

from __future__ import annotations

import signal
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.conftest import MakeLab, StartService
from tests.environment import clean_environment, command
from tests.network.test_signals import until
from tests.screen import Screen
from tests.service import Application, Shell
from tests.terminal import Terminal
from tests.tmux import AT_REST, Tmux
from tests.waiting import wait_until

EDITOR = "vim -u NONE --cmd 'set mouse=a nomore' -c 'normal ihello there'"
# A shell around cexec that says what has become of its terminal.
AROUND = (
    'echo before; a=$(stty -g); "$@"; echo status $?; b=$(stty -g); test "$a" = "$b" && echo restored; exec sleep 999'
)
FAILS = """
import sys
from pathlib import Path
from cexec.client.blocking.terminal_driver import TerminalDriver
from cexec.commands.cexec import main
fails, step = Path(sys.argv.pop(1)), TerminalDriver.step
def step_or_fail(driver):
    step(driver)
    if fails.exists():
        raise RuntimeError("a fault of ours")
TerminalDriver.step = step_or_fail
sys.exit(main())
"""


def client_of(tmux: Tmux) -> psutil.Process:
    """The process of cexec."""
    found = psutil.Process(tmux.pid).children(recursive=True)
    (client,) = [process for process in found if any("cexec" in word for word in process.cmdline())]
    return client


def end_by_keys(tmux: Tmux, shell: Shell) -> None:
    tmux.type(b"\r~.")


def end_by_signal(number: int) -> Callable[[Tmux, Shell], None]:
    return lambda tmux, shell: client_of(tmux).send_signal(number)


def kill_the_worker(tmux: Tmux, shell: Shell) -> None:
    shell.service.busy_process().kill()


def kill_the_program(tmux: Tmux, shell: Shell) -> None:
    (editor,) = [process for process in shell.service.started() if process.name() == "vim"]
    editor.kill()


ENDS = {
    "~.": (end_by_keys, "status 111", "left by ~."),
    "TERM": (end_by_signal(signal.SIGTERM), "status 143", ""),
    "HUP": (end_by_signal(signal.SIGHUP), "status 129", ""),
    "worker killed": (kill_the_worker, "status 111", "disconnected unexpectedly"),
    "program killed": (kill_the_program, "status 137", ""),
}


@pytest.mark.parametrize("how", ENDS)
def test_the_screen_is_as_before_after_each_kind_of_death(shell: Shell, tmp_path: Path, how: str) -> None:
    end, status, message = ENDS[how]
    argv, environment = shell.client(f"cd {tmp_path}; exec {EDITOR}", "-t")
    with Tmux(tmp_path, ["sh", "-c", AROUND, "sh", *argv], environment) as tmux:
        tmux.wait_for("hello there")
        flags = tmux.flags()
        assert (flags["alternate_on"], flags["mouse_any_flag"]) == ("1", "1")
        end(tmux, shell)
        lines = tmux.wait_for("restored")
        assert lines[0] == "before" and status in lines and "hello there" not in lines
        assert message in " ".join(lines)
        assert tmux.flags() == AT_REST
    wait_until(lambda: not shell.service.started(), explain=shell.programs)


def test_a_fault_of_ours_gives_the_terminal_back(shell: Shell, tmp_path: Path) -> None:
    argv, environment = shell.client(f"cd {tmp_path}; exec {EDITOR}", "-t")
    fail = tmp_path / "fail"
    words = [sys.executable, "-c", FAILS, str(fail), *argv[argv.index(next(w for w in argv if w.endswith(".pub"))) :]]
    with Tmux(tmp_path, ["sh", "-c", AROUND, "sh", *words], environment) as tmux:
        tmux.wait_for("hello there")
        fail.touch()
        tmux.type(b"x")
        lines = tmux.wait_for("restored")
        assert "RuntimeError: a fault of ours" in lines and "status 1" in lines
        assert tmux.flags() == AT_REST


@pytest.mark.timeout(180)
def test_a_network_that_is_lost(lab: MakeLab, service: StartService, application: Application, tmp_path: Path) -> None:
    network = lab(2)
    worker = service("sh", "-c", "trap 'touch $0/hup; exit' HUP; echo ready; while :; do sleep 0.1; done",
                     str(tmp_path), host=network.host(1))  # fmt: skip
    with Screen() as screen:
        before = screen.modes()
        process = screen.run(command("cexec", "-t", application.public), clean_environment(), host=network.host(2))
        screen.wait_for("ready")
        assert screen.modes() != before
        network.host(1).link(False)
        screen.type(b"x")
        assert screen.end(process) == 111
        assert screen.modes() == before
        assert "has not answered for 15 sec" in " ".join(screen.lines())
        wait_until((tmp_path / "hup").exists)  # the worker notices, too
        network.host(1).link(True)
    worker.wait_for("broken")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_program_hears_that_its_terminal_has_gone(shell: Shell, tmp_path: Path, number: int) -> None:
    """The job in the foreground hears it, and a process in the background that ignores everything is ended."""
    front = f'trap "touch {tmp_path}/hup" HUP; echo ready; {until(tmp_path / "never")}'
    script = f"(trap '' HUP TERM; exec sleep 999) & sh -c '{front}'"
    argv, environment = shell.client(script, "-t")
    with Screen() as screen:
        process = screen.run(argv, environment)
        screen.wait_for("ready")
        process.send_signal(number)
        process.wait()
    wait_until((tmp_path / "hup").exists)
    wait_until(lambda: not shell.service.started(), explain=shell.programs)


def test_the_persons_terminal_goes(shell: Shell, tmp_path: Path) -> None:
    argv, environment = shell.client(
        f"trap 'touch {tmp_path}/hup; exit' HUP; echo ready; while :; do sleep 0.1; done", "-t"
    )
    with Screen() as screen:
        process = screen.run(argv, environment)
        screen.wait_for("ready")
    assert process.wait(60) == -signal.SIGHUP
    wait_until((tmp_path / "hup").exists)
    wait_until(lambda: not shell.service.started(), explain=shell.programs)


@pytest.mark.parametrize("how", ["~^Z", "TSTP", "STOP"])
def test_a_stop_concerns_us_alone_and_fg_goes_on(shell: Shell, tmp_path: Path, how: str) -> None:
    """The program goes on meanwhile; the terminal is the shell's, and then raw again."""
    argv, environment = shell.client(
        f"echo ready; {until(tmp_path / 'go')}; touch {tmp_path}/went; cat; echo end", "-t"
    )
    with Terminal(argv, {**environment, "TERM": "xterm"}) as terminal:
        before = terminal.first_modes
        terminal.wait_for(b"ready")
        # The first bytes may be shown a moment before keys are for the program.
        wait_until(lambda: not terminal.modes()[3] & termios.ICANON)
        raw = terminal.modes()
        if how == "~^Z":
            terminal.type(b"~\x1a")
        else:
            terminal.signal(signal.SIGTSTP if how == "TSTP" else signal.SIGSTOP)
        terminal.stopped()
        if how != "STOP":  # which nobody can catch; a shell restores the modes itself
            assert terminal.modes() == before
        (tmp_path / "go").touch()
        wait_until((tmp_path / "went").exists)
        terminal.resize(50, 10)
        terminal.foreground()
        wait_until(lambda: terminal.modes() == raw)
        terminal.type(b"key\r\x04")
        terminal.wait_for(b"key\r\nkey\r\nend\r\n")
        assert terminal.wait() == 0
        assert terminal.modes() == before


def test_a_job_in_the_background_leaves_the_terminal_alone_until_it_is_in_front(shell: Shell, tmp_path: Path) -> None:
    argv, environment = shell.client("echo ready; cat; echo end", "-t")
    with Terminal(argv, {**environment, "TERM": "xterm"}, background=True) as terminal:
        before = terminal.first_modes
        terminal.wait_for(b"ready")
        assert terminal.modes() == before and not terminal.says_more(1.5)
        terminal.foreground()
        wait_until(lambda: terminal.modes() != before)
        terminal.type(b"key\r\x04")
        terminal.wait_for(b"key\r\nkey\r\nend\r\n")
        assert terminal.wait() == 0
        assert terminal.modes() == before


def test_no_attempt_is_repeated_once_a_key_was_sent(tmp_path: Path) -> None:
    worker = Shell(tmp_path, ["-j", "2"])
    try:
        argv, environment = worker.client("cat >/dev/null", "-t", "--explain")
        with Screen() as screen, open(tmp_path / "out", "wb") as out, open(tmp_path / "err", "wb") as err:
            process = screen.run(argv, environment, {1: out, 2: err})
            worker.service.wait_for(" started ")
            screen.type(b"k")
            wait_until(lambda: (tmp_path / "out").stat().st_size)
            worker.service.busy_process().kill()
            assert screen.end(process) == 111
        assert b"has been read and is no longer kept" in (tmp_path / "err").read_bytes()
    finally:
        worker.close()
