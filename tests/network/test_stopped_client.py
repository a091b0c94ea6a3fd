"""A client that is stopped for seconds (SIGSTOP, Ctrl-Z) while its jobs end: every result counts, nobody is blamed."""

from __future__ import annotations

import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cexec.protocol.connection import frames
from tests.campaigns import cmap
from tests.conftest import StartService
from tests.environment import command, local_environment
from tests.fake_worker import LOOPBACK, SLOW, Connection, FakeWorker, HungUpError
from tests.loggers import Crat
from tests.service import Application
from tests.waiting import PATIENCE, wait_until

STOPPED = 4.0  # seconds, longer than a worker waits for an answer to its offer
TASKS = 40
OFFERS = 10  # more than workers may refuse a job, also if a client has cancelled some of them


@pytest.fixture
def crat(application: Application, tmp_path: Path) -> Iterator[Crat]:
    logger = Crat(tmp_path, application.public)
    yield logger
    logger.close()


def stop(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGSTOP)
    time.sleep(STOPPED)
    process.send_signal(signal.SIGCONT)


def withdraws(connection: Connection) -> None:
    """Offers itself to a client that is too slow to answer, as one is that was stopped at that moment.

    `cmap` searches more than once at a time, and hangs up where it has no task left for a worker.
    """
    with suppress(BrokenPipeError, ConnectionResetError, HungUpError):
        connection.shake().confirm().frame(frames.WITHDRAW, b"client did not answer in time").wait_for_end()


@pytest.mark.parametrize("name", ["cexec", "cmap"])
def test_offers_that_have_expired_are_no_refusals_and_nobody_complains(
    application: Application, service: StartService, crat: Crat, name: str
) -> None:
    """Regression: `cmap` complained about the worker, and after five such offers the job had failed."""
    argv = cmap(application, ":::", "1") if name == "cmap" else command("cexec", application.public)
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with (
        FakeWorker(application, withdraws, attempts=OFFERS) as fake,
        subprocess.Popen(argv, env=local_environment(LOOPBACK), **pipes) as client,
    ):
        wait_until(lambda: fake.played + fake.refused == OFFERS)
        service("echo", "done", environment=SLOW)  # it must not win before
        output, errors = client.communicate(timeout=PATIENCE)
    assert (client.returncode, output) == (0, b"done\n"), errors
    crat.wait_for("completed by")
    assert len(crat.lines()) == 1


def test_a_worker_of_all_that_takes_its_offer_back_did_not_fail(
    application: Application, service: StartService, crat: Crat
) -> None:
    """Regression: `cexec --all` said that it did not finish, exited with 111 and complained about it."""

    def play(connection: Connection) -> None:
        connection.shake(uptime=3600).confirm().frame(frames.WITHDRAW, b"worker is stopping").wait_for_end()

    service("echo", "done", environment=SLOW)
    with FakeWorker(application, play) as fake:
        done = application.run("--all", environment=LOOPBACK)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"done\n", b"")
    assert fake.played
    crat.wait_for("completed by")
    assert len(crat.lines()) == 1


@pytest.mark.parametrize("name", ["cexec", "cexec --all", "cmap"])
def test_no_job_runs_twice_and_no_worker_is_complained_about(
    application: Application, service: StartService, crat: Crat, tmp_path: Path, name: str
) -> None:
    """Regression: tasks of `cmap` ran twice, and the worker was complained about (0.1.0)."""
    ran = tmp_path / "ran"
    ran.touch()
    service("sh", "-c", f'echo "$1" >> {ran}; sleep 0.2; echo "$1"', "sh", options=["-j4", "--allow-args"])
    tasks = [str(number) for number in range(TASKS if name == "cmap" else 1)]
    argv = {
        "cexec": command("cexec", application.public, "--", *tasks),
        "cexec --all": command("cexec", "--all", application.public, "--", *tasks),
        "cmap": cmap(application, "--", "{}", ":::", *tasks),
    }[name]
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(argv, env=local_environment(), text=True, **pipes) as process:
        wait_until(ran.read_text)
        stop(process)
        output, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, sorted(output.split())) == (0, sorted(tasks)), errors
    assert Counter(ran.read_text().split()) == Counter(tasks)
    crat.wait_for("completed by", len(tasks))
    assert len(crat.lines()) == len(tasks), crat.lines()
