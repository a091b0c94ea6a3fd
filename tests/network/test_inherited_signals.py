"""What the caller of a worker, a logger or a relay says by its signals: ignored, a terminal that goes, all at once."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from cexec.protocol.base.keys import OwnerKey
from cexec.protocol.base.revocation import RevocationList, encode_list
from cexec.system.storage.keyfile import read_key
from tests.commands.test_signal_state import signals
from tests.environment import command, local_environment
from tests.service import Application, Service
from tests.terminal import Terminal
from tests.waiting import PATIENCE, all_asleep, wait_until

INT_HUP_IGNORED = "trap '' INT HUP; exec \"$@\""  # what a shell without job control and nohup do to what they start
ALL_IGNORED = "trap '' HUP INT QUIT TERM; exec \"$@\""
PROGRAM = ["sh", "-c", 'echo ready; read line; echo "got $line"']


def start_job(application: Application) -> subprocess.Popen[bytes]:
    """A client whose program waits for a line of input."""
    argv, environment = application.client()
    client = subprocess.Popen(argv, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert client.stdout is not None
    assert client.stdout.readline() == b"ready\n"
    return client


@contextmanager
def running_job(application: Application) -> Iterator[subprocess.Popen[bytes]]:
    """The same, ended at the end."""
    client = start_job(application)
    try:
        yield client
    finally:
        client.kill()
        client.communicate()


def finish(client: subprocess.Popen[bytes]) -> None:
    """The job gets its line and ends well."""
    assert client.communicate(b"it\n", timeout=PATIENCE)[0] == b"got it\n"
    assert client.returncode == 0


def own_processes(service: Service) -> list[psutil.Process]:
    """cservice, its supervisor and its job processes, without the programs of jobs."""
    return [p for p in map(psutil.Process, service.pids()) if "cservice" in " ".join(p.cmdline())]


SERVICES = pytest.mark.parametrize(
    "words",
    [("cservice", "SECRET", "cat"), ("crat", "PUBLIC"), ("cproxy", "127.0.0.1", "127.0.0.255")],
    ids=lambda w: w[0],
)


@contextmanager
def behind(script: str, words: tuple[str, ...], application: Application) -> Iterator[subprocess.Popen[bytes]]:
    """A service of SERVICES that such a shell starts, as soon as it waits; it is killed at the end."""
    paths = {"PUBLIC": application.public, "SECRET": application.secret}
    argv = ["sh", "-c", script, "sh", *command(words[0], *(paths.get(word, word) for word in words[1:]))]
    process = subprocess.Popen(argv, env=local_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        wait_until(lambda: signal.SIGTERM in signals(process.pid, "SigCgt") and all_asleep(process.pid))
        yield process
    finally:
        process.kill()
        process.communicate()


def end_by_sigterm(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 0


@SERVICES
def test_sigint_and_sighup_that_were_ignored_stay_ignored(words: tuple[str, ...], application: Application) -> None:
    """Regression: `cservice app cat &` in a script died of the Ctrl-C that was meant for the script."""
    with behind(INT_HUP_IGNORED, words, application) as process:
        assert {signal.SIGINT, signal.SIGHUP} <= signals(process.pid, "SigIgn")
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: process.poll() is not None or all_asleep(process.pid))
        assert process.poll() is None
        end_by_sigterm(process)


@SERVICES
def test_sigterm_ends_what_was_started_with_all_signals_ignored(
    words: tuple[str, ...], application: Application
) -> None:
    """Regression: a worker whose caller ignored SIGTERM could be ended by SIGKILL only."""
    with behind(ALL_IGNORED, words, application) as process:
        end_by_sigterm(process)


def test_a_worker_whose_terminal_goes_away_drains_and_says_so(application: Application, tmp_path: Path) -> None:
    log = tmp_path / "log"
    argv = command("cservice", application.secret, *PROGRAM)
    terminal = Terminal(argv, local_environment(), {0: os.devnull, 1: os.devnull, 2: str(log)})
    with terminal:
        wait_until(lambda: log.exists() and "serving" in log.read_text())
        found = {p.pid: p for p in psutil.process_iter(["cmdline", "ppid"]) if p.info["cmdline"] == argv}
        (worker,) = [p for p in found.values() if p.info["ppid"] not in found]  # the others are its own
        client = start_job(application)
    try:
        wait_until(lambda: "stopping" in log.read_text())
        worker.send_signal(signal.SIGHUP)  # the kernel and the shell may both send it
        wait_until(lambda: all_asleep(worker.pid))
        finish(client)
    finally:
        client.kill()
        client.communicate()
    wait_until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)
    assert 'stopping jobs=1 reason="SIGHUP: its terminal has gone"' in log.read_text()
    assert "ending" not in log.read_text() and "Traceback" not in log.read_text()


def test_a_worker_without_a_terminal_reads_its_lists_again(application: Application) -> None:
    service = Service(application, PROGRAM, wrapper=["setsid"])
    with running_job(application) as client:
        service.signal(signal.SIGHUP)
        service.wait_for("reread")
        owner = read_key(os.fspath(application.secret), (OwnerKey,))
        assert isinstance(owner, OwnerKey)
        listed = RevocationList(owner.authority_public, owner.fingerprint, 1, {999: "x"})
        Path(f"{application.secret}.revoked").write_text(encode_list(listed, owner.authority_seed))
        service.signal(signal.SIGHUP)
        service.wait_for("a new list has come")
        finish(client)
    assert not any("stopping" in line for line in service.lines)
    service.close()


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGUSR2"])
def test_user_signals_never_end_a_worker(application: Application, name: str) -> None:
    """Also if each of its processes gets one, as from `pkill -USR1 cservice`."""
    service = Service(application, PROGRAM)
    with running_job(application) as client:
        for process in own_processes(service):
            process.send_signal(getattr(signal, name))
        finish(client)
    assert application.run(input=b"it\n").stdout == b"ready\ngot it\n"
    service.close()


def test_user_signals_have_their_usual_effect_on_the_program(application: Application) -> None:
    service = Service(application, ["sh", "-c", "kill -USR1 $$; echo alive"])
    result = application.run()
    assert (result.returncode, result.stdout) == (128 + signal.SIGUSR1, b"")
    service.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_a_signal_to_every_process_of_the_service_lets_jobs_finish(
    application: Application, number: signal.Signals
) -> None:
    """As from `systemctl stop` with KillMode=mixed, or Ctrl-C at the worker's terminal."""
    service = Service(application, PROGRAM)
    with running_job(application) as client:
        ours = own_processes(service)
        assert len(ours) >= 3  # with the supervisor and the process of the job
        for process in ours:
            process.send_signal(number)
        service.wait_for("stopping")
        finish(client)
    assert service.wait() == 0
    service.close()
