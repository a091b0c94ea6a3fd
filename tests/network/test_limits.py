"""Limits as users meet them: files that are too many, workers that stand still, clients that take too much."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.environment import command, local_environment
from tests.service import Application
from tests.waiting import wait_until

Start = Callable[..., Any]
MEBIBYTE = 1 << 20


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--disk-limit", "1M", b"its files are more than 1 MiB, the most that a job may have here (cservice --disk-l"),
        ("--per-client", "files=1M", b"would take more than 1 MiB here; wait for its other jobs, or send less (cserv"),
    ],
)
def test_a_client_is_told_which_limit_its_files_have_met(
    application: Application, service: Start, tmp_path: Path, option: str, value: str, words: bytes
) -> None:
    place, large = tmp_path / "place", tmp_path / "large"
    place.mkdir()
    large.write_bytes(bytes(2 * MEBIBYTE))
    worker = service("true", options=[option, value], environment={"TMPDIR": str(place)})
    done = application.run("--send", f"{large}=large")
    assert (done.returncode, words in done.stderr) == (111, True), done.stderr
    worker.wait_for("refused")
    assert application.run().returncode == 0  # at once: the worker is not slowed by that
    assert list(place.iterdir()) == []


def test_a_worker_that_stands_still_loses_the_job(application: Application, service: Start) -> None:
    """The only worker gets it again, but others would have had two seconds before."""
    service("sh", "-c", '[ "$CEXEC_ATTEMPT" != 1 ] || exec sleep 1000; echo done')
    done = application.run("-n", "--progress-timeout", "1")
    assert (done.returncode, done.stdout) == (0, b"done\n"), done.stderr
    assert b"failed: no byte came or went for 1 s (--progress-timeout); running the job again" in done.stderr


def test_cmap_gives_a_worker_up_that_stands_still(application: Application, service: Start, tmp_path: Path) -> None:
    mark = tmp_path / "tried"
    service("sh", "-c", f'[ -e {mark} ] || {{ touch {mark}; exec sleep 1000; }}; echo "$PEER_PARAM_1"')
    argv = command("cmap", "--progress-timeout", "1", application.public, ":::", "x")
    done = subprocess.run(argv, env=local_environment(), capture_output=True, timeout=60, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert mark.exists()


def test_a_client_that_waits_is_told_which_limit_it_has_met(application: Application, service: Start) -> None:
    worker = service("cat", options=["-j", "1", "--max-weight", "10"])
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}

    def begin(*words: str) -> subprocess.Popen[bytes]:
        argv, environment = application.client(*words)
        return subprocess.Popen(argv, env=environment, **pipes)

    def waiting() -> bool:
        shown = subprocess.run(command("cps", "--json", application.public), env=local_environment(),
                               capture_output=True, timeout=60)  # fmt: skip
        return bool(shown.stdout and json.loads(shown.stdout)["waiting"])

    with begin() as first:
        worker.wait_for("started")
        with begin("--explain", "--weight", "1000") as second:
            wait_until(waiting)
            first.communicate(timeout=60)
            _, errors = second.communicate(timeout=60)
    assert second.returncode == 0
    assert b"it says: its weight of 1000 counts as 10 (cservice --max-weight N)" in errors, errors
