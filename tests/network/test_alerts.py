"""crat sees every job of a group: completed, failed, repeated, given up, under an unknown key, with loss."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.campaigns import cmap
from tests.environment import LOOPBACK_GROUP, command, local_environment
from tests.loggers import Crat
from tests.service import Application, Service
from tests.tampering import TO_CLIENT, Damage, Tamperer
from tests.waiting import wait_until

Start = Callable[..., Any]


@pytest.fixture
def crat(application: Application, tmp_path: Path) -> Iterator[Crat]:
    logger = Crat(tmp_path, application.public)
    yield logger
    logger.close()


def test_each_job_has_one_closing_line(application: Application, service: Start, crat: Crat) -> None:
    service("sh", "-c", 'read status; exit "$status"', options=("-j", "2"))
    for status in (0, 7, 0):
        assert application.run(input=b"%d\n" % status).returncode == status
    lines = crat.wait_for("completed by", 3)
    assert [line.split(" time=")[0].rsplit(" ", 1)[1] for line in lines] == ["0", "7", "0"]
    assert all(" for app.pub exit code " in line and "client=default" in line for line in lines)
    assert len(crat.lines()) == 3


def test_a_failed_attempt_is_ratted_out_and_the_job_given_up(
    application: Application, service: Start, crat: Crat
) -> None:
    service("sh", "-c", "kill -9 $PPID; sleep 30")
    assert application.run("--retries", "1", input=b"").returncode == 111
    crat.wait_for("gave up")
    assert sum("rats out" in line for line in crat.lines()) == 2
    assert sum("complaint=disconnected" in line for line in crat.lines()) == 2
    assert sum("completed" in line for line in crat.lines()) == 0


def test_a_job_whose_exit_frame_is_lost_is_told_with_both_ends(application: Application, tmp_path: Path) -> None:
    """Regression: the closing line said that the job was completed, and hid that the client had given up."""
    hearing, announcing = ({"CEXEC_GROUP": LOOPBACK_GROUP, "CEXEC_UDP_PORT": port} for port in ("3021", "3022"))
    logger = Crat(tmp_path, application.public, environment=hearing)
    # The outputs end before the program does, so that the exit frame is a record of its own and the last one.
    program = ["sh", "-c", "cat; exec >&- 2>&-; sleep 0.5"]
    worker = Service(application, program, ["--speed", "1"], environment=hearing)
    with Tamperer(3022, 3021) as whole:
        assert application.run(input=b"some input", environment=announcing).returncode == 0
    # In the middle of it: the frames before it may be one record more or less than they were this time.
    cut = Damage(TO_CLIENT, cut=whole.carried[TO_CLIENT] - 50)
    with Tamperer(3022, 3021, cut):
        assert application.run("--retries", "0", input=b"some input", environment=announcing).returncode == 111
        # The client's last words are a datagram that the tamperer still has to pass on.
        job = logger.wait_for("gave up")[0].split(" job=")[1].split()[0]
        wait_until(lambda: sum(job in line for line in logger.lines()) == 3, explain=logger.lines)
    told = [line for line in logger.lines() if job in line]
    assert sum(" rats out " in line for line in told) == 1
    # The worker and the client do not wait for one another: whoever speaks last, that line tells both ends.
    _, later = [line for line in told if " rats out " not in line]
    assert (
        "gave up for app.pub after 127.0.0.1 completed it with exit code 0 time=" in later
        or "completed by 127.0.0.1 for app.pub exit code 0 after the client gave up time=" in later
    )
    worker.close()
    logger.close()


def test_cmap_rats_out_a_killed_worker_once_for_each_task_that_it_ran(
    application: Application, service: Start, crat: Crat
) -> None:
    """Nobody but the client can: the worker has no time to say anything."""
    worker = service("sleep", "60", options=("-j", "2"))
    argv = cmap(application, ":::", "1", "2")
    with subprocess.Popen(argv, env=local_environment({"CEXEC_TIMEOUT_ACCEPT": "5"})) as process:
        worker.lines_with(" started ", 2)
        worker.kill()
        assert process.wait(30) == 111  # there is no other worker
    lines = crat.wait_for("rats out", 2)
    assert all("127.0.0.1 rats out 127.0.0.1 for app.pub" in line for line in lines)
    assert all("client=default" in line and "complaint=disconnected" in line for line in lines)
    assert len({line.split(" job=")[1].split()[0] for line in lines}) == len(crat.lines()) == 2


def test_nobody_answers(application: Application, crat: Crat) -> None:
    assert application.run(environment={"CEXEC_TIMEOUT_ACCEPT": "0.5"}).returncode == 111
    (line,) = crat.wait_for("gave up for app.pub")
    assert 'complaint="no answer"' in line


def test_another_application_is_an_unknown_key(application: Application, service: Start, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Application(tmp_path / "other", "other")
    logger = Crat(tmp_path, other.public)
    service("true")
    for _ in range(2):
        assert application.run().returncode == 0
    logger.wait_for("unknown key (0x")
    logger.close()
    assert len(logger.lines()) == 1


def test_statistics_on_demand_and_a_moved_log(
    application: Application, service: Start, crat: Crat, tmp_path: Path
) -> None:
    service("cat")
    assert application.run(input=b"12345").stdout == b"12345"
    crat.wait_for("completed by")
    (tmp_path / "crat.log").rename(tmp_path / "old.log")
    crat.process.send_signal(signal.SIGHUP)
    wait_until((tmp_path / "crat.log").exists)
    crat.process.send_signal(signal.SIGUSR1)
    crat.wait_until(lambda: len(crat.lines()) >= 2)
    head, row = crat.lines()
    values = dict(zip(head.split(), row.split(), strict=True))
    assert (values["jobs"], values["received"], values["sent"]) == ("1", "5", "5")


def test_without_names_it_takes_what_is_here_and_says_when_there_is_nothing(tmp_path: Path) -> None:
    environment = local_environment({"HOME": str(tmp_path)})
    done = subprocess.run(command("crat"), cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=20)
    assert done.returncode == 111
    assert "no client key *.pub here" in done.stderr
