"""Programs that clients bring: cexec --program and cservice --allow-programs together."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.environment import clean_environment, command
from tests.service import Application

Start = Callable[..., Any]
OWN = f"{os.uname().sysname.lower()}-{os.uname().machine}"
PLACE = "{program}"


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    return str(path)


def test_a_program_is_sent_once_and_then_found(application: Application, service: Start, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    options = ["--allow-programs", "--allow-args", "--empty-program-cache", "--program-cache", str(cache)]
    started = service("nice", PLACE, "first", options=options)
    mine = script(tmp_path / "mine", 'echo "$@"; cat; exit 3')
    large = tmp_path / "mine"
    large.write_text(large.read_text() + "#" * 3_000_000)  # more than a window
    program = ["--program", f"{OWN}={mine}", "--program", f"other-machine={mine}"]
    for _ in range(2):
        done = application.run(*program, "--", "a b", input=b"input")
        assert (done.returncode, done.stdout, done.stderr) == (3, b"first a b\ninput", b"")
    first, second = started.lines_with("finished", 2)
    assert "received=30000" in first and "received=5 " in second
    assert len([name for name in os.listdir(cache) if len(name) == 64]) == 1
    (tmp_path / "sent").write_text("x")
    done = application.run("--program", f"any={script(tmp_path / 'two', 'ls')}", "--send", str(tmp_path / "sent"))
    assert (done.returncode, done.stdout) == (0, b"sent\n")
    started.close()
    assert os.listdir(cache) == ["lock"]


def test_what_is_not_allowed_is_said(application: Application, service: Start, tmp_path: Path) -> None:
    mine = script(tmp_path / "mine", "true")
    plain = service("cat")
    brief = {"CEXEC_TIMEOUT_ACCEPT": "3"}
    done = application.run("--program", f"any={mine}", environment=brief)
    assert done.returncode == 111 and b"does not allow programs (cservice --allow-programs)" in done.stderr
    plain.close()
    service(PLACE, options=["--allow-programs", "--program-cache", str(tmp_path / "cache")])
    done = application.run("--program", f"linux-none={mine}", environment=brief)
    assert done.returncode == 111 and b"not none" in done.stderr
    done = application.run()
    assert done.returncode == 111 and b"cexec --program PLATFORM=FILE" in done.stderr


def test_cmap_brings_a_program_too(application: Application, service: Start, tmp_path: Path) -> None:
    started = service(PLACE, options=["--allow-programs", "--allow-args", "--program-cache", str(tmp_path / "cache")])
    mine = script(tmp_path / "mine", 'echo "$1 $(cat)"')
    argv = command("cmap", "-k", "--program", f"{OWN}={mine}", "--stdin-text", "in {}", application.public)
    argv += ["--", "{}", ":::", "a", "b", "c"]
    done = subprocess.run(argv, env=clean_environment(), capture_output=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"a in a\nb in b\nc in c\n", b"")
    assert len(started.lines_with("finished", 3)) == 3


def test_cmap_says_at_once_that_a_worker_has_none_of_the_platforms_and_asks_it_once(
    application: Application, service: Start, tmp_path: Path
) -> None:
    started = service(PLACE, options=["-j", "1", "--allow-programs", "--program-cache", str(tmp_path / "cache")])
    mine = script(tmp_path / "mine", "true")
    programs = ["--program", f"linux-none={mine}", "--program", f"none-x={mine}"]
    argv = command("cmap", *programs, "--stdin-text", "{}", application.public, ":::", *map(str, range(100)))
    environment = clean_environment({"CEXEC_TIMEOUT_ACCEPT": "4"})
    with subprocess.Popen(argv, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert f"gets no task: there is no program for {OWN}, only for linux-none, none-x" in process.stderr.readline()
        assert process.wait(30) == 111
        assert re.fullmatch(r"cmap: no worker of \S+ fits: \S+: there is no program for .*\n", process.stderr.read())
    assert len(started.lines_with("refused", 1)) == 1


def test_cmap_ends_soon_when_workers_refuse_what_no_other_would_take(application: Application, service: Start) -> None:
    """Regression: each task was refused by itself, and the worker slowed further with each."""
    started = service("cat", options=["-j", "1"])
    argv = command("cmap", application.public, "--", "{}", ":::", *map(str, range(100)))
    done = subprocess.run(argv, env=clean_environment(), capture_output=True, text=True, timeout=30)
    assert done.returncode == 111
    told, end = done.stderr.splitlines()
    assert "gets no task: arguments are not allowed here" in told
    assert re.search("fits: .*arguments are not allowed here.*; 100 tasks not done", end)
    assert len(started.lines_with("refused", 1)) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--allow-programs"], b"{program}"),
        (["--program-cache", "x"], b"needs --allow-programs"),
        (["--empty-program-cache"], b"needs --allow-programs"),
    ],
)
def test_a_service_that_makes_no_sense_does_not_start(
    application: Application, options: list[str], words: bytes
) -> None:
    argv = command("cservice", *options, application.secret, "cat")
    done = subprocess.run(argv, env=clean_environment(), capture_output=True, timeout=30)
    assert done.returncode == 100 and words in done.stderr
