"""Colours where people look: help pages and tags, on a terminal only."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.cluster import Cluster
from tests.conftest import StartService
from tests.environment import ROOT, command, local_environment
from tests.screen import Screen
from tests.service import Application

COMMANDS = sorted(path.name for path in (ROOT / "bin").iterdir())


def plain(argv: list[str], **environment: str) -> bytes:
    return subprocess.run(argv, env=local_environment(environment), capture_output=True, timeout=60).stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_a_help_page_has_colours_on_a_terminal_only(name: str) -> None:
    argv = command(name, "--help")
    with Screen(100, 200) as screen:
        assert screen.end(screen.run(argv, local_environment({"COLUMNS": "100"}))) == 0
        coloured = [line.rstrip() for line in screen.story()]
        assert screen.colours("--help") == {"cyan"} and b"\x1b[1mUsage:" in screen.raw
        before = len(screen.raw)
        assert screen.end(screen.run(argv, local_environment({"NO_COLOR": "1"}))) == 0
        assert b"\x1b" not in screen.raw[before:]
    written = plain(argv, FORCE_COLOR="1", COLUMNS="100")
    assert b"\x1b" not in written
    assert coloured == [line.rstrip() for line in written.decode().splitlines() if line.strip()]


def test_tags_of_tasks_have_colours_of_their_own(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    argv = cluster.argv("--tag", "-k", "--peer", "RUN=echo {}", ":::", "one", "two")
    with Screen() as screen:
        assert screen.end(screen.run(argv, local_environment())) == 0
        assert [line.split() for line in screen.story()] == [["one", "one"], ["two", "two"]]
        assert b"mone\x1b[0m\tone" in screen.raw and screen.colours("one") != screen.colours("two")
    assert plain(argv, FORCE_COLOR="1") == b"one\tone\ntwo\ttwo\n"
    with Screen() as screen, open(tmp_path / "out", "wb") as out:
        assert screen.end(screen.run(argv, local_environment(), {1: out})) == 0
    assert (tmp_path / "out").read_bytes() == b"one\tone\ntwo\ttwo\n"
    cluster.service.close()


def test_names_of_workers_have_colours_of_their_own(service: StartService, application: Application) -> None:
    for name in ("alpha", "beta"):
        service("echo", "out", options=["--name", name])
    argv, environment = application.client("-n", "--all", "--expect", "2", "--tag")
    with Screen() as screen:
        assert screen.end(screen.run(argv, environment)) == 0
        assert sorted(screen.story()) == ["alpha: out", "beta: out"]
        assert screen.colours("alpha:") != screen.colours("beta:")
    assert b"\x1b" not in plain(argv, FORCE_COLOR="1")
