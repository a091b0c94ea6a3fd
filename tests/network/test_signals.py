"""Signals to cexec reach the remote program, and the end of either side is the end of both."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from cexec.client.attempt.signals import IMPATIENT
from cexec.protocol.connection import frames
from tests.commands.test_signal_state import signals
from tests.fake_worker import LOOPBACK, Connection, FakeWorker, HungUpError
from tests.service import STOPPED, Application, Shell
from tests.terminal import INTERRUPT, QUIT, Terminal
from tests.waiting import PATIENCE, wait_until

NAMES = ("HUP", "INT", "QUIT", "TERM", "USR1", "USR2")
each_signal = pytest.mark.parametrize("name", NAMES)
TRAPS = "".join(f"trap 'echo {name}; exit 7' {name}; " for name in NAMES)
WAITING = "exec 2>/dev/null; ulimit -c 0; echo ready; while :; do sleep 0.05; done"  # a shell tells how its child died
DETACHED = "</dev/null >/dev/null 2>&1"  # or the job is not over before it closes its outputs


@contextmanager
def running(
    shell: Shell, program: str, *prefix: str, said: bytes = b"ready\n", group: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A client whose program has said `said` on standard output.  `group`: its process group, 0 for one of its own."""
    argv, environment = shell.client(program)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    started = subprocess.Popen([*prefix, *argv], env=environment, process_group=group, **pipes)  # type: ignore[call-overload]
    with started as client:
        try:
            assert client.stdout.read(len(said)) == said
            yield client
        finally:
            client.kill()
    assert shell.run("true").returncode == 0  # a worker whose jobs only fail is slowed down


def until(path: Path) -> str:
    """Shell: waits until the file is there."""
    return f"until test -e {path}; do sleep 0.05; done"


def nothing_left(shell: Shell) -> bool:
    return not shell.service.started()


@each_signal
def test_a_signal_reaches_the_program(shell: Shell, name: str) -> None:
    with running(shell, TRAPS + WAITING) as client:
        client.send_signal(getattr(signal, f"SIG{name}"))
        assert client.communicate(timeout=PATIENCE) == (name.encode() + b"\n", b"")
        assert client.returncode == 7
    wait_until(lambda: nothing_left(shell))


@each_signal
def test_a_signal_that_the_program_does_not_catch_is_told_by_the_status(shell: Shell, name: str) -> None:
    number = getattr(signal, f"SIG{name}")
    with running(shell, f"sleep 60 {DETACHED} & {WAITING}") as client:
        client.send_signal(number)
        assert client.communicate(timeout=PATIENCE) == (b"", b"")
        # One that a person pressed has to end the scripts above as well: the shell sees of what we have died.
        assert client.returncode == (-number if name == "INT" else 128 + number)
    wait_until(lambda: nothing_left(shell))


def test_a_signal_reaches_the_whole_process_group(shell: Shell) -> None:
    """Two processes of a pipeline, and a shell that waits for it."""
    program = (
        "trap 'echo shell' USR1; (trap 'echo child; exit' USR1; echo ready; while :; do sleep 0.05; done); echo end"
    )
    with running(shell, program) as client:
        client.send_signal(signal.SIGUSR1)
        output, _ = client.communicate(timeout=PATIENCE)
        assert sorted(output.split()) == [b"child", b"end", b"shell"]
        assert client.returncode == 0


def test_a_client_that_is_told_to_stop_stops_the_program_too(shell: Shell, tmp_path: Path) -> None:
    """By kill -TSTP, without a terminal, but in a process group that somebody looks after."""
    count, go = tmp_path / "count", tmp_path / "go"
    loop = f"for i in 1 2 3 4 5 6 7 8 9; do sleep 0.1; echo $i >> {count}; test $i != 8 || {until(go)}; done"
    with running(shell, f"echo ready; {loop}", group=0) as client:
        client.send_signal(signal.SIGTSTP)
        wait_until(lambda: psutil.Process(client.pid).status() == psutil.STATUS_STOPPED)
        # Not at one look alone: a shell that calls vfork just then is in one of these states, too.
        wait_until(lambda: all(shell.states() <= STOPPED for _ in range(3)), explain=shell.programs)
        go.touch()
        before = count.read_text() if count.exists() else ""
        time.sleep(0.5)  # the time in which a program that had not been stopped would go on
        assert (count.read_text() if count.exists() else "") == before
        client.send_signal(signal.SIGCONT)
        assert client.wait(PATIENCE) == 0
    assert count.read_text().split() == list("123456789")


def test_ctrl_c_ends_both_sides(shell: Shell) -> None:
    argv, environment = shell.client(f"sleep 60 {DETACHED} & (setsid sleep 60 {DETACHED} &); {WAITING}")
    with Terminal(argv, environment) as terminal:
        terminal.wait_for(b"ready")
        terminal.type(INTERRUPT)
        assert terminal.wait() == -signal.SIGINT
        assert b"Traceback" not in terminal.read_all()
    wait_until(lambda: nothing_left(shell))


def test_ctrl_c_is_the_programs_to_catch(shell: Shell) -> None:
    argv, environment = shell.client(f"trap 'echo caught; exit 3' INT; {WAITING}")
    with Terminal(argv, environment) as terminal:
        terminal.wait_for(b"ready")
        terminal.type(INTERRUPT)
        terminal.wait_for(b"caught")
        assert terminal.wait() == 3


def test_ctrl_c_again_and_again_ends_us_although_the_program_ignores_it(shell: Shell, tmp_path: Path) -> None:
    argv, environment = shell.client(f"trap '' INT; echo begun >&2; {WAITING}")
    with Terminal(argv, environment, {1: str(tmp_path / "out")}) as terminal:
        terminal.wait_for(b"begun")
        wait_until(lambda: (tmp_path / "out").stat().st_size > 0)
        terminal.type(INTERRUPT)
        while not terminal.says_more(0.3):  # a person's pace: signals that come together are one
            terminal.type(INTERRUPT)
        assert terminal.wait() == -signal.SIGINT
    assert (tmp_path / "out").read_bytes() == b""
    wait_until(lambda: nothing_left(shell))


SIGNALLED_CUT = """
import os, signal, sys
from cexec.client.attempt.outputs import Outputs
from cexec.commands.cexec import main
signal.signal(signal.SIGINT, signal.SIG_DFL)
take_back = Outputs.take_back
def late(outputs):
    os.kill(os.getpid(), int(number))
    take_back(outputs)
Outputs.take_back = late
number = sys.argv.pop(1)
sys.exit(main())
"""


def signalled_while_it_takes_back(application: Application, argv: list[str], number: int) -> list[str]:
    """A client that gets this signal each time when it begins to take its output back."""
    return [sys.executable, "-c", SIGNALLED_CUT, str(number), *argv[argv.index(str(application.public)) :]]


def test_one_more_ctrl_c_does_not_keep_half_a_file(shell: Shell, tmp_path: Path) -> None:
    """Regression: signals had their usual effect again before the output was taken back."""
    argv, environment = shell.client(f"trap 'echo caught' INT; {WAITING}")
    wrapped = signalled_while_it_takes_back(shell.application, argv, signal.SIGINT)
    out = tmp_path / "out"
    with out.open("wb") as file, subprocess.Popen(wrapped, env=environment, stdout=file) as client:
        for count in range(IMPATIENT):
            wait_until(lambda heard=count: out.read_bytes().count(b"\n") == heard + 1)  # type: ignore[misc]
            client.send_signal(signal.SIGINT)
        assert client.wait(PATIENCE) == -signal.SIGINT
    assert out.read_bytes() == b""


def test_a_signal_after_a_worker_was_lost_ends_us(application: Application, tmp_path: Path) -> None:
    """Regression: it was caught, and nobody looked at it before another worker had the job."""
    argv, environment = application.client(environment={**LOOPBACK, "CEXEC_TIMEOUT_ACCEPT": str(2 * PATIENCE)})
    wrapped = signalled_while_it_takes_back(application, argv, signal.SIGTERM)
    out = tmp_path / "out"

    def play(connection: Connection) -> None:
        connection.take().start().write(1, b"half")
        wait_until(lambda: out.read_bytes() == b"half")
        connection.reset()

    with out.open("wb") as file, FakeWorker(application, play, attempts=1):
        client = subprocess.Popen(wrapped, env=environment, stdin=subprocess.DEVNULL, stdout=file)
        try:
            assert client.wait(PATIENCE) == -signal.SIGTERM
        finally:
            client.kill()
            client.wait()
    assert out.read_bytes() == b""


def test_ctrl_backslash_ends_both_sides(shell: Shell) -> None:
    argv, environment = shell.client(WAITING)
    with Terminal(argv, environment) as terminal:
        terminal.wait_for(b"ready")
        terminal.type(QUIT)
        assert terminal.wait() == 128 + signal.SIGQUIT
    wait_until(lambda: nothing_left(shell))


def test_a_terminal_that_goes_away_ends_both_sides(shell: Shell) -> None:
    argv, environment = shell.client(WAITING)
    with Terminal(argv, environment) as terminal:
        terminal.wait_for(b"ready")
        assert not nothing_left(shell)
    wait_until(lambda: nothing_left(shell))


def test_nohup_keeps_the_job_alive(shell: Shell) -> None:
    with running(shell, "echo ready; read line; sleep 0.5; echo end", "nohup") as client:
        client.send_signal(signal.SIGHUP)
        assert client.communicate(timeout=PATIENCE)[0] == b"end\n"
        assert client.returncode == 0


def test_nohup_at_a_terminal(shell: Shell, tmp_path: Path) -> None:
    """It makes standard input one that cannot be read."""
    argv, environment = shell.client(f"cat; {WAITING}")
    with Terminal(["nohup", *argv], environment, {1: str(tmp_path / "out")}):
        wait_until(lambda: (tmp_path / "out").exists() and b"ready" in (tmp_path / "out").read_bytes())
        (client,) = [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == argv]
    time.sleep(0.5)  # the time in which the SIGHUP of the terminal that has gone would end it
    assert client.is_running() and not nothing_left(shell)
    client.send_signal(signal.SIGTERM)
    wait_until(lambda: nothing_left(shell))


def test_a_background_job_of_a_script_does_not_hear_ctrl_c(shell: Shell, tmp_path: Path) -> None:
    """A shell without job control starts it with SIGINT and SIGQUIT ignored, and so it stays."""
    argv, environment = shell.client(f"echo ready; {until(tmp_path / 'sent')}; sleep 0.5; echo end")
    script = 'trap "" INT QUIT; "$@" & wait $!; wait $!; echo $?'
    client = subprocess.Popen(["sh", "-c", script, "sh", *argv], env=environment, stdout=subprocess.PIPE)
    assert client.stdout is not None and client.stdout.readline() == b"ready\n"
    (cexec,) = psutil.Process(client.pid).children()
    cexec.send_signal(signal.SIGINT)
    (tmp_path / "sent").touch()
    assert client.communicate(timeout=PATIENCE)[0] == b"end\n0\n"


def test_ctrl_c_while_nobody_has_answered_ends_us_at_once(application: Application) -> None:
    argv, environment = application.client(environment=LOOPBACK)
    heard: list[int] = []

    def play(connection: Connection) -> None:
        heard.append(1)
        connection.wait_for_end()

    with FakeWorker(application, play, attempts=1):
        client = subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        wait_until(lambda: bool(heard))
        client.send_signal(signal.SIGINT)
        assert client.communicate(timeout=PATIENCE)[1] == b""
    assert client.returncode == -signal.SIGINT


ENDING = ("HUP", "QUIT", "TERM")
WITHOUT_CORE = ("sh", "-c", 'ulimit -c 0; exec "$@"', "sh")


def caught(client: subprocess.Popen[bytes], name: str) -> bool:
    """Returns True if the client has a handler for this signal: it has given its job to a worker."""
    return getattr(signal, f"SIG{name}") in signals(client.pid, "SigCgt")


@pytest.mark.parametrize("name", [*ENDING, "INT"])
def test_before_the_program_has_started_the_first_signal_ends_us(application: Application, name: str) -> None:
    """Regression: a worker that had the job and said nothing kept the client, whatever it was sent."""
    argv, environment = application.client(environment=LOOPBACK)
    given = threading.Event()

    def play(connection: Connection) -> None:
        connection.take()
        given.set()
        connection.wait_for_end()

    with FakeWorker(application, play, attempts=1):
        client = subprocess.Popen([*WITHOUT_CORE, *argv], env=environment, stdin=subprocess.DEVNULL)
        assert given.wait(PATIENCE)
        wait_until(lambda: caught(client, name))
        client.send_signal(getattr(signal, f"SIG{name}"))
        assert client.wait(PATIENCE) == -getattr(signal, f"SIG{name}")


@pytest.mark.parametrize("names", [("TERM", "TERM"), ("HUP", "HUP"), ("QUIT", "QUIT"), ("TERM", "HUP")], ids="-".join)
def test_the_second_signal_ends_us_although_the_worker_does_nothing_but_answer(
    application: Application, names: tuple[str, str]
) -> None:
    argv, environment = application.client(environment={**LOOPBACK, "CEXEC_TIMEOUT_PINGPONG": "2"})
    heard = threading.Event()

    def play(connection: Connection) -> None:
        connection.take().start().write(1, b"ready\n").hear(frames.SIGNAL)
        heard.set()
        try:
            while True:
                connection.next_event()  # it answers pings, and nothing else
        except (HungUpError, ConnectionResetError):
            pass

    with FakeWorker(application, play, attempts=1):
        client = subprocess.Popen(
            [*WITHOUT_CORE, *argv], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        assert client.stdout is not None and client.stdout.readline() == b"ready\n"
        client.send_signal(getattr(signal, f"SIG{names[0]}"))
        assert heard.wait(PATIENCE) and client.poll() is None
        client.send_signal(getattr(signal, f"SIG{names[1]}"))
        assert client.wait(PATIENCE) == -getattr(signal, f"SIG{names[1]}")
        client.communicate()


def test_a_signal_that_a_lost_worker_was_told_counts(application: Application) -> None:
    """Regression: the next attempt counted anew, and a job that somebody had ended three times went on."""
    argv, environment = application.client(environment=LOOPBACK)
    attempts: list[int] = []
    runs = {1: threading.Event(), 2: threading.Event()}

    def play(connection: Connection) -> None:
        connection.take().start().read()  # the client sends input when it knows that the program runs
        attempts.append(connection.attempt)
        runs[connection.attempt].set()
        if connection.attempt == 2:
            connection.wait_for_end()
        else:
            connection.hear(frames.SIGNAL)
            connection.reset()

    with FakeWorker(application, play, attempts=2):
        client = subprocess.Popen([*WITHOUT_CORE, *argv], env=environment, stdin=subprocess.DEVNULL)
        for event in runs.values():
            assert event.wait(PATIENCE) and client.poll() is None
            client.send_signal(signal.SIGTERM)
        assert client.wait(PATIENCE) == -signal.SIGTERM
    assert attempts == [1, 2]


def test_with_all_the_second_signal_ends_us_and_the_first_one_is_passed_on(shell: Shell, tmp_path: Path) -> None:
    begun, told = tmp_path / "begun", tmp_path / "told"
    traps = f"trap 'touch {told}' TERM; trap 'touch {begun}' CONT"
    argv, environment = shell.client(f"{traps}; while :; do sleep 0.05; done", "--all")
    client = subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL)

    def knows_of_its_program() -> bool:
        """Before it does, TERM would end it at once; CONT does nothing then."""
        client.send_signal(signal.SIGCONT)
        return begun.exists()

    wait_until(knows_of_its_program)
    client.send_signal(signal.SIGTERM)
    wait_until(told.exists)
    client.send_signal(signal.SIGTERM)
    assert client.wait(PATIENCE) == -signal.SIGTERM
    wait_until(lambda: nothing_left(shell))


def test_when_the_program_has_ended_a_signal_ends_us_while_its_output_waits(shell: Shell) -> None:
    """Regression: what had been caught before kept us busy, and what came then was caught and passed on to nobody."""
    with running(shell, "echo ready; head -c 900000 /dev/zero") as client:
        client.send_signal(signal.SIGCONT)
        wait_until(lambda: nothing_left(shell))
        before = psutil.Process(client.pid).cpu_times().user
        time.sleep(1)  # the second of which the client must use little
        assert psutil.Process(client.pid).cpu_times().user - before < 0.2
        client.send_signal(signal.SIGTERM)
        assert client.wait(PATIENCE) == -signal.SIGTERM


@pytest.mark.parametrize(
    "script", ["sleep 60", "cat", "yes", "(setsid sleep 60 &); sleep 60", "trap '' TERM HUP; sleep 60"]
)
@pytest.mark.parametrize("stopped", [False, True])
def test_a_client_that_is_killed_leaves_nothing(shell: Shell, script: str, stopped: bool) -> None:
    with running(shell, f"echo ready; {script}") as client:
        assert not nothing_left(shell)
        if stopped:
            client.send_signal(signal.SIGSTOP)
        client.kill()
        client.wait(PATIENCE)
    wait_until(lambda: nothing_left(shell))
