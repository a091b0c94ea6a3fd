"""Files that go with a job and come back, limits, and the progress line: the commands together."""

from __future__ import annotations

import os
import pty
import select
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.service import Application
from tests.waiting import PATIENCE, comes_true

Start = Callable[..., Any]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "here"
    directory.mkdir()
    monkeypatch.chdir(directory)
    return directory


def test_files_go_and_come_back(application: Application, service: Start, here: Path) -> None:
    service("sh", "-c", "pwd; ls -A; cat one deep/two > sum; printf x > other")
    (here / "one").write_bytes(b"1" * 3_000_000)
    (here / "local").write_bytes(b"2" * 10)
    done = application.run("--send", "one", "--send", "local=deep/two", "--fetch", "sum=back/sum", "--fetch", "other")
    assert done.returncode == 111 and b"back" in done.stderr  # said before anything runs: no such directory
    (here / "back").mkdir()
    done = application.run("--send", "one", "--send", "local=deep/two", "--fetch", "sum=back/sum", "--fetch", "other")
    assert (done.returncode, done.stderr) == (0, b"")
    directory, *names = done.stdout.decode().split()
    assert names == ["deep", "one"]
    assert comes_true(lambda: not os.path.exists(directory))
    assert (here / "back" / "sum").read_bytes() == b"1" * 3_000_000 + b"2" * 10
    assert (here / "other").read_bytes() == b"x"
    assert sorted(os.listdir(here)) == ["back", "local", "one", "other"]


def test_a_result_that_is_missing_is_a_failure_and_nothing_is_named(
    application: Application, service: Start, here: Path
) -> None:
    service("sh", "-c", "printf new > there")
    (here / "there").write_text("old")
    done = application.run("--fetch", "there", "--fetch", "missing")
    assert done.returncode == 111
    assert b"cannot fetch missing" in done.stderr
    assert (here / "there").read_text() == "old"
    assert os.listdir(here) == ["there"]


@pytest.mark.parametrize("fetched", [True, False])
def test_after_a_failure_what_exists_is_fetched_unless_told_otherwise(
    application: Application, service: Start, here: Path, fetched: bool
) -> None:
    service("sh", "-c", "printf log > log; exit 7")
    options = [] if fetched else ["--no-fetch-on-failure"]
    assert application.run("--fetch", "log", "--fetch", "none", *options).returncode == 7
    assert os.listdir(here) == (["log"] if fetched else [])


@pytest.mark.parametrize("name", ["../x", "/x", "a/../x", "a//x", "."])
def test_names_that_lead_out_are_wrong_use(application: Application, here: Path, name: str) -> None:
    (here / "f").touch()
    assert application.run("--send", f"f={name}").returncode == 100
    assert application.run("--fetch", f"{name}=f").returncode == 100


def test_a_link_that_leads_out_is_not_fetched(application: Application, service: Start, here: Path) -> None:
    service("sh", "-c", "ln -s /etc/passwd link; mkdir d; ln -s /etc e")
    for name in ("link=x", "e/passwd=x", "d=x"):
        done = application.run("--fetch", name)
        assert done.returncode == 111, name
        assert os.listdir(here) == []


def test_a_time_limit_is_said(application: Application, service: Start) -> None:
    service("sleep", "30")
    done = application.run("--time-limit", "0.5")
    assert done.returncode == 143
    assert b"time limit of 0.5 s" in done.stderr


@pytest.mark.parametrize(
    "option",
    ["--nice=20", "--memory-limit=x", "--memory-limit=1K", "--cpu-limit=0", "--time-limit=a", "--time-limit=0"],
)
def test_an_impossible_limit_is_wrong_use(application: Application, option: str) -> None:
    done = application.run(option)
    assert done.returncode == 100 and option.partition("=")[0].encode() in done.stderr


def test_a_nice_value_reaches_the_program(application: Application, service: Start) -> None:
    service("nice")
    assert application.run("--nice", "7").stdout == b"7\n"


def test_progress_is_shown_on_a_terminal_and_taken_away(
    application: Application, service: Start, tmp_path: Path
) -> None:
    service("sh", "-c", f"until test -e {tmp_path}/seen; do sleep 0.05; done; cat")
    ours, theirs = pty.openpty()
    argv, environment = application.client("--progress")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    shown = b""
    with subprocess.Popen(argv, env=environment, stderr=theirs, **pipes) as client:  # type: ignore[call-overload]
        client.stdin.write(b"12345")
        client.stdin.close()
        client.stdin = None
        while b"up 5 B" not in shown and select.select([ours], [], [], PATIENCE)[0]:
            shown += os.read(ours, 65536)
        (tmp_path / "seen").touch()
        output, _ = client.communicate(timeout=PATIENCE)
    while not shown.endswith(b"\x1b[J") and select.select([ours], [], [], PATIENCE)[0]:  # the kernel may be late
        shown += os.read(ours, 65536)
    os.close(theirs)
    os.close(ours)
    assert (client.returncode, output) == (0, b"12345")
    assert b"up 5 B" in shown and shown.endswith(b"\x1b[J")


def test_progress_is_not_shown_elsewhere(application: Application, service: Start) -> None:
    service("sh", "-c", "sleep 1; cat")
    done = application.run("--progress", input=b"12345")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"12345", b"")
