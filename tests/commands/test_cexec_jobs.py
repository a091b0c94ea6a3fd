"""What a job gets from cexec, and what cexec tells the programs that start it.  Real processes on this machine only."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import StartService
from tests.needs import skip_for_want_of
from tests.service import Application, Shell
from tests.waiting import PATIENCE, all_asleep, wait_until

ELSEWHERE = "127.0.0.9"  # a group of its own on this machine, that no worker of these tests hears
# runs a script that is interrupted when it imports its first module of ours
EARLY = """
import builtins, os, runpy, signal, sys
plain_import = builtins.__import__
def interrupted(name, *rest):
    if name.startswith("cexec"):
        os.kill(os.getpid(), signal.SIGINT)
    return plain_import(name, *rest)
builtins.__import__ = interrupted
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
ABOVE_MAXFD = 33  # the lowest descriptor that CEXEC_FD_FOR_ERRORS may be


# What the program gets


def test_peer_variables_reach_the_program(shell: Shell) -> None:
    ended = shell.run('printf "%s|" "$PEER_A" "$PEER_EMPTY" "$PEER__b9"', "A=1 = 2\n", "EMPTY=", "_b9=$HOME")
    assert ended.stdout == b"1 = 2\n||$HOME|"


def test_any_bytes_may_be_in_a_peer_variable(shell: Shell) -> None:
    argv, environment = shell.client('printf %s "$PEER_A"')
    ended = subprocess.run([*map(os.fsencode, argv), b"A=\xff\xfe\n"], env=environment, capture_output=True, timeout=30)
    assert ended.stdout == b"\xff\xfe\n"


def test_n_gives_the_program_an_empty_input_and_leaves_ours_alone(shell: Shell) -> None:
    argv, environment = shell.client("cat; echo end")
    for option in ("-n", "--no-stdin"):
        script = f'"$0" "$1" {option} "$2" "$3"; cat'
        ended = subprocess.run(
            ["sh", "-c", script, *argv], env=environment, input=b"rest", capture_output=True, timeout=30
        )
        assert ended.stdout == b"end\nrest"


def test_arguments_are_refused_unless_the_owner_allows_them(shell: Shell) -> None:
    ended = shell.run("true", "--", "argument")
    said = ended.stderr.decode()
    assert (ended.returncode, said.count("\n")) == (111, 1)
    assert (
        "refuses the job: arguments are not allowed here; the owner can allow them with: cservice --allow-args" in said
    )


def test_wrong_arguments_of_a_client_slow_no_worker(application: Application, service: StartService) -> None:
    """Regression: the worker counted its own refusals, and the client's complaints about them."""
    worker = service("true")
    for _ in range(4):
        assert application.run("--", "argument").returncode == 111
    assert application.run().returncode == 0
    assert not any(" slowed " in line for line in worker.lines)


def test_arguments_pass_by_no_shell(application: Application, service: StartService) -> None:
    service("printf", "[%s]", options=["--allow-args"])
    words = ["a b", "$HOME", "*", "", "--", "-n", "ä\n"]
    ended = application.run("--", *words)
    assert ended.stdout.decode() == "".join(f"[{word}]" for word in words)


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_a_standard_descriptor_that_is_closed_here_is_closed_there(closed: int, shell: Shell) -> None:
    argv, environment = shell.client(f"[ ! -e /proc/self/fd/{closed} ]")
    sign = "<" if closed == 0 else ">"
    ended = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}{sign}&-', "sh", *argv],
        env=environment,
        input=b"",
        capture_output=True,
        timeout=30,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")


def test_all_standard_descriptors_may_be_closed(shell: Shell) -> None:
    argv, environment = shell.client("exit 7")
    assert (
        subprocess.run(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *argv], env=environment, timeout=30).returncode == 7
    )


# The ancestor's lines for programs


@pytest.fixture
def errors(tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """Runs cexec with its error lines going to a file: the exit status and those lines."""

    def run(argv: list[str], environment: dict[str, str], **more: str) -> tuple[int, str]:
        path = tmp_path / "errors"
        with path.open("wb") as file:
            fd = fcntl.fcntl(file, fcntl.F_DUPFD, ABOVE_MAXFD)
            try:
                settings = {**environment, **more, "CEXEC_FD_FOR_ERRORS": str(fd)}
                ended = subprocess.run(argv, env=settings, input=b"", pass_fds=[fd], capture_output=True, timeout=30)
            finally:
                os.close(fd)
        return ended.returncode, path.read_text()

    return run


Errors = Callable[..., tuple[int, str]]


def test_silence_of_the_cluster_is_told_to_programs(application: Application, errors: Errors) -> None:
    argv, environment = application.client()
    assert errors(argv, environment, CEXEC_GROUP=ELSEWHERE, CEXEC_TIMEOUT_ACCEPT="1") == (
        111,
        "[cluster] failed to respond after 1 seconds\n",
    )


def test_an_exit_status_other_than_0_is_told_to_programs(shell: Shell, errors: Errors) -> None:
    assert errors(*shell.client("exit 1")) == (1, "127.0.0.1 exited with code 1\n")
    assert errors(*shell.client("exit 0")) == (0, "")


def test_a_test_alert_is_told_to_programs(shell: Shell, errors: Errors) -> None:
    assert errors(*shell.client("exit 0"), CEXEC_RATOUT_TEST="1") == (0, "127.0.0.1 test alert\n")


def test_a_worker_that_goes_away_is_told_to_programs(shell: Shell, errors: Errors) -> None:
    argv, environment = shell.client(
        "kill -9 $(cut -d' ' -f4 /proc/$$/stat)"
    )  # the shell's parent is the job's process
    argv[2:2] = ["--retries", "0"]
    assert errors(argv, environment) == (111, "127.0.0.1 disconnected unexpectedly\n")


def test_a_refusal_is_told_to_programs(shell: Shell, errors: Errors) -> None:
    argv, environment = shell.client("true", "--", "argument")
    status, lines = errors(argv, environment)
    assert status == 111
    assert lines.startswith("127.0.0.1 refused: arguments are not allowed here")


def test_the_error_descriptor_is_not_the_programs(shell: Shell, errors: Errors) -> None:
    assert errors(*shell.client('[ "$(ls /proc/self/fd | wc -l)" = 4 ]')) == (0, "")  # the fourth is of ls


# Ctrl-C


def test_ctrl_c_ends_a_call_that_waits_without_a_word(application: Application) -> None:
    argv, environment = application.client(environment={"CEXEC_GROUP": ELSEWHERE})
    for seconds in (0.0, 0.6):  # after it has begun to wait
        with subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as client:
            wait_until(lambda: all_asleep(client.pid))
            time.sleep(seconds)
            client.send_signal(signal.SIGINT)
            assert client.communicate(timeout=PATIENCE)[1] == b""
            assert client.returncode == -signal.SIGINT


def test_ctrl_c_while_modules_are_loaded_shows_no_traceback(application: Application) -> None:
    argv, environment = application.client(environment={"CEXEC_GROUP": ELSEWHERE})
    ended = subprocess.run([argv[0], "-c", EARLY, *argv[1:]], env=environment, capture_output=True, timeout=30)
    assert (ended.returncode, ended.stderr) == (-signal.SIGINT, b"")


def test_a_client_writes_no_core_file(application: Application, service: StartService) -> None:
    """It has a key in its memory."""
    service("sh", "-c", "cat; read line < /dev/null; exec sleep 600")
    argv, environment = application.client()
    if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0:
        skip_for_want_of("core files")
    argv = ["sh", "-c", 'ulimit -S -c $(ulimit -H -c); exec "$@"', "sh", *argv]
    with subprocess.Popen(argv, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        assert client.stdin is not None and client.stdout is not None
        client.stdin.write(b"x")
        client.stdin.flush()
        assert client.stdout.read(1) == b"x"
        limits = Path(f"/proc/{client.pid}/limits").read_text()
        client.kill()
    (core,) = [line for line in limits.splitlines() if line.startswith("Max core file size")]
    assert core.split()[4] == "0"
