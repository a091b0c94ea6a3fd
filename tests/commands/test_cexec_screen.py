"""What a person sees of `cexec` on a terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import StartService
from tests.environment import command, local_environment
from tests.screen import Screen
from tests.service import Application

SPEAKS = "for i in 1 2 3 4 5 6 7 8 9; do echo out$i; sleep 0.3; done; printf end; sleep 0.5; echo ed"


@pytest.mark.parametrize("columns", [80, 20])
def test_progress_is_neither_glued_to_output_nor_erases_it(
    service: StartService, application: Application, columns: int
) -> None:
    service("sh", "-c", SPEAKS)
    with Screen(columns, 6) as screen:
        argv, environment = application.client("-n", "--progress")
        process = screen.run(argv, environment)
        assert screen.end(process) == 0
        assert screen.story() == [*(f"out{number}" for number in range(1, 10)), "ended"]
    assert b"down" in screen.raw


def test_an_upload_shows_per_cent(service: StartService, application: Application, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    service("sh", "-c", f"head -c 1000000; while [ ! -e {gate} ]; do sleep 0.1; done; cat")
    (tmp_path / "input").write_bytes(bytes(1_000_000))
    with Screen(120) as screen, open(tmp_path / "out", "wb") as out:
        argv, environment = application.client("--progress")
        script = ["sh", "-c", f'"$@" < {tmp_path}/input', "sh", *argv]
        process = screen.run(script, environment, {1: out})
        (line,) = screen.wait_for("up 977 KiB of 977 KiB 100%")
        gate.touch()
        assert screen.end(process) == 0 and "left" not in line
        assert screen.story() == []
    assert (tmp_path / "out").stat().st_size == 1_000_000


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"TERM": ""}])
def test_a_dumb_terminal_gets_output_alone(
    service: StartService, application: Application, environment: dict[str, str]
) -> None:
    service("sh", "-c", "echo one; sleep 1; echo two")
    with Screen() as screen:
        argv, ours = application.client("-n", "--progress", environment=environment)
        assert screen.end(screen.run(argv, ours)) == 0
        assert screen.raw == b"one\r\ntwo\r\n"


def test_errors_are_coloured_on_a_terminal_only(tmp_path: Path) -> None:
    argv = command("cexec", tmp_path / "none.pub")
    with Screen() as screen, open(tmp_path / "log", "wb") as log:
        assert screen.end(screen.run(argv, local_environment())) == 111
        assert screen.colours("cexec:") == {"red"} and screen.colours("none.pub") == {"default"}
        before = len(screen.raw)
        assert screen.end(screen.run(argv, local_environment({"NO_COLOR": "1"}))) == 111
        assert b"\x1b" not in screen.raw[before:] and len(screen.raw) > before
        assert screen.end(screen.run(argv, local_environment({"FORCE_COLOR": "1"}), {2: log})) == 111
    assert (tmp_path / "log").read_bytes().startswith(b"cexec: ")
