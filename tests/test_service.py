"""The harness of the other tests: what a `cservice` leaves behind does not go unnoticed.  A shell script plays it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests import service
from tests.service import Application, Service

Start = Callable[[str], Service]


class NoApplication(Application):
    """Names without files."""

    def __init__(self, directory: Path) -> None:
        self.secret = directory / "app"


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Runs a shell script in the place of cservice."""

    def run(script: str) -> Service:
        monkeypatch.setattr(service, "command", lambda *_: ["sh", "-c", script])
        return Service(NoApplication(tmp_path), ["true"])

    monkeypatch.setattr(service, "QUIET_DEADLINE", 0.3)
    return run


def test_one_that_leaves_nothing_is_fine(start: Start) -> None:
    running = start("echo ready >&2; echo more >&2; exec sleep 60")
    assert running.wait_for("more") == "more"
    assert running.lines == ["ready", "more"]
    assert running.started() == []
    running.close()
    assert running.wait() == -15


def test_one_that_says_nothing_is_told_from_one_that_runs(start: Start) -> None:
    with pytest.raises(AssertionError, match="ended without"):
        start("exit 1")


def test_waiting_for_a_line_that_never_comes_shows_the_lines(start: Start) -> None:
    running = start("echo ready >&2; exec sleep 60")
    with pytest.raises(AssertionError, match=r"silent for 0\.1 seconds without 'more':\nready"):
        running.wait_for("more", 0.1)
    running.close()


def test_a_detached_process_is_noticed_and_ended(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.service.QUIET_DEADLINE", 1.0)
    running = start("setsid sleep 60 2>&- & echo ready >&2; exec sleep 60")
    (left,) = running.started()
    with pytest.raises(AssertionError, match="processes are left"):
        running.close()
    assert not left.is_running()


def test_an_open_descriptor_is_noticed(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.service.QUIET_DEADLINE", 1.0)
    go = tmp_path / "go"
    script = f"echo ready >&2; until test -e {go}; do sleep 0.05; done; exec 5>{tmp_path}/file; echo open >&2"
    running = start(f"{script}; while :; do sleep 0.1; done")
    go.touch()
    running.wait_for("open")
    with pytest.raises(AssertionError, match="descriptors are open"):
        running.close()


def test_a_traceback_is_noticed(start: Start) -> None:
    running = start("echo ready >&2; echo 'Traceback (most recent call last):' >&2; exec sleep 60")
    running.wait_for("Traceback")
    with pytest.raises(AssertionError, match="Traceback"):
        running.close()
