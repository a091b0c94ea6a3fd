"""Today's commands and those of cexec 0.1.0 work together, whichever is on which side; both revisions are met."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import MakeLab, StartService
from tests.environment import ROOT, clean_environment, command, local_environment
from tests.needs import skip_for_want_of
from tests.service import Application, Service

RELEASED = "0234596"  # the commit of 0.1.0
SIDES = pytest.mark.parametrize("old_side", ["worker", "client"])
TASKS = 60

Run = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree of 0.1.0, from the history of this repository."""
    tree = tmp_path_factory.mktemp("released")
    archive = subprocess.run(["git", "-C", ROOT, "archive", RELEASED, "cexec", "bin"], capture_output=True, check=False)
    if archive.returncode:
        skip_for_want_of("the history of this repository, with version 0.1.0")
    subprocess.run(["tar", "-x", "-C", tree], input=archive.stdout, check=True)
    return tree


def old_command(tree: Path, name: str, *arguments: object) -> list[str]:
    return [sys.executable, str(tree / "bin" / name), *map(str, arguments)]


@pytest.fixture
def mixed(
    old_side: str, released: Path, application: Application, service: StartService, monkeypatch: pytest.MonkeyPatch
) -> tuple[Service, Run]:
    """A worker that runs `sh -c`, and what runs a client of the other version."""
    of_old = {"PYTHONPATH": str(released)}
    if old_side == "worker":
        monkeypatch.setattr("tests.service.command", lambda name, *words: old_command(released, name, *words))
    options = ["--allow-args", "-j", "2"]
    worker = service("sh", "-c", options=options, environment=of_old if old_side == "worker" else None)
    monkeypatch.undo()

    def run(name: str, *words: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        argv = old_command(released, name, *words) if old_side == "client" else command(name, *words)
        environment = local_environment(of_old if old_side == "client" else None)
        return subprocess.run(argv, env=environment, input=data, capture_output=True, timeout=60, check=False)

    return worker, run


@SIDES
def test_the_old_side_is_the_released_one(old_side: str, released: Path, application: Application) -> None:
    argv = old_command(released, "cexec", "--version")
    told = subprocess.run(argv, env=local_environment({"PYTHONPATH": str(released)}), capture_output=True, check=True)
    assert b"0.1.0" in told.stdout
    assert not (released / "cexec" / "protocol" / "connection").exists()


@SIDES
def test_one_job(mixed: tuple[Service, Run], application: Application) -> None:
    _, run = mixed
    data = os.urandom(3_000_000)
    ended = run("cexec", str(application.public), "--", "cat; echo said >&2; exit 3", data=data)
    assert (ended.returncode, ended.stderr) == (3, b"said\n")
    assert ended.stdout == data


@SIDES
def test_jobs_over_leases(mixed: tuple[Service, Run], application: Application) -> None:
    worker, run = mixed
    words = ["-k", str(application.public), "--", "echo {}; test {} != 7", ":::", *map(str, range(TASKS))]
    ended = run("cmap", *words)
    assert ended.returncode == 1, ended.stderr
    assert ended.stdout.decode().split() == [str(number) for number in range(TASKS)]
    assert len(worker.lines_with(" finished ", TASKS)) == TASKS


@SIDES
def test_a_job_on_every_worker(mixed: tuple[Service, Run], application: Application, service: StartService) -> None:
    """One more worker, of today."""
    _, run = mixed
    service("sh", "-c", options=["--allow-args"])
    ended = run("cexec", "--all", "--expect", "2", str(application.public), "--", "echo here")
    assert (ended.returncode, ended.stdout) == (0, b"here\nhere\n"), ended.stderr


@SIDES
def test_a_job_that_waits_for_its_slot(
    old_side: str, released: Path, application: Application, service: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client of 0.1.0 cannot prove where it receives, and a worker of 0.1.0 asks for no proof."""
    of_old = {"PYTHONPATH": str(released)}
    if old_side == "worker":
        monkeypatch.setattr("tests.service.command", lambda name, *words: old_command(released, name, *words))
    worker = service("cat", options=["-j", "1"], environment=of_old if old_side == "worker" else None)
    monkeypatch.undo()
    argv = [application.public]
    make = old_command(released, "cexec", *argv) if old_side == "client" else command("cexec", *argv)
    environment = local_environment({**(of_old if old_side == "client" else {}), "CEXEC_TIMEOUT_ACCEPT": "5"})
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(make, env=environment, **pipes) as first:  # type: ignore[call-overload]
        worker.wait_for("started")
        with subprocess.Popen(make, env=environment, **pipes) as second:  # type: ignore[call-overload]
            with pytest.raises(subprocess.TimeoutExpired):  # it waits beyond its accept timeout, because it is queued
                second.wait(8)
            assert first.communicate(b"first", timeout=30)[:1] == (b"first",)
            assert second.communicate(b"second", timeout=30)[:1] == (b"second",)
    assert (first.returncode, second.returncode) == (0, 0)


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_a_relay_of_0_1_0_between_client_and_worker_of_today(
    busy: bool, released: Path, application: Application, lab: MakeLab, service: StartService
) -> None:
    """It passes no proofs on."""
    made = lab([(1, 2), (2, 3)])
    argv = old_command(released, "cproxy", "10.77.0.2")
    environment = clean_environment({"PYTHONPATH": str(released)})
    worker = service("cat", options=["-j", "1"], host=made.host(3))
    with made.host(2).popen(argv, env=environment, stderr=subprocess.PIPE) as relay:
        try:
            assert relay.stderr is not None and b"relaying" in relay.stderr.readline()
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
            cexec = command("cexec", application.public)
            with made.host(3).popen(cexec, env=clean_environment(), **pipes) as first:
                worker.wait_for("started")
                if not busy:
                    assert first.communicate(b"first", timeout=30)[0] == b"first"
                with made.host(1).popen(cexec, env=clean_environment(), **pipes) as second:
                    if busy:
                        with pytest.raises(subprocess.TimeoutExpired):
                            second.wait(3)
                        assert first.communicate(b"first", timeout=30)[0] == b"first"
                    assert second.communicate(b"second", timeout=30)[0] == b"second"
            assert (first.returncode, second.returncode) == (0, 0)
        finally:
            relay.terminate()
            relay.communicate(timeout=30)
