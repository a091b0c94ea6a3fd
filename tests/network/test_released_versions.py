"""Today's commands and those of cexec 0.1.0 work together, whichever is on which side; both revisions are met."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from cexec.python.sync_client import Client
from tests.conftest import MakeLab, StartService
from tests.environment import ROOT, clean_environment, command, local_environment
from tests.lab import Lab
from tests.needs import skip_for_want_of
from tests.screen import Screen
from tests.service import Application, Service
from tests.slot_holder import ENDED, RUNNING, WANTED, SlotHolder

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


def test_a_worker_of_0_1_0_starts_where_cboot_has_been(
    released: Path, application: Application, service: StartService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Regression: cboot made the directory of its sockets among the records of jobs, each of which 0.1.0 reads.

    So tests with a worker of 0.1.0 failed behind those of cboot, if both came to the same process.
    """
    hosts = tmp_path / "hosts"
    hosts.write_text("nowhere.invalid\n")
    with tempfile.TemporaryDirectory(dir="/tmp") as run:  # a short name, or cboot takes another directory
        monkeypatch.setenv("XDG_RUNTIME_DIR", run)
        argv = command("cboot", "--status", hosts, application.secret)
        subprocess.run(argv, env=local_environment(), capture_output=True, timeout=60)
        assert sorted(os.listdir(run)) == ["cexec", "cexec-boot"]
        with monkeypatch.context() as patch:
            patch.setattr("tests.service.command", lambda name, *words: old_command(released, name, *words))
            worker = service("cat", environment={"PYTHONPATH": str(released)})
        assert application.run(input=b"x").stdout == b"x"
        worker.wait_for("finished")
        worker.close()


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


def test_a_client_that_would_hear_that_its_slot_is_wanted_does_not_ask_a_worker_of_0_1_0(
    released: Path, application: Application, service: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It refuses a job with an option that it does not know."""
    monkeypatch.setattr("tests.service.command", lambda name, *words: old_command(released, name, *words))
    worker = service("sh", "-c", 'eval "$PEER_RUN"', options=["-j", "1"], environment={"PYTHONPATH": str(released)})
    monkeypatch.undo()
    with SlotHolder(application) as holder:
        holder.heard(RUNNING)
        assert not holder.knows
        argv, environment = application.client("RUN=echo mine")
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(argv, env=environment, **pipes) as other:  # type: ignore[call-overload]
            with pytest.raises(subprocess.TimeoutExpired):
                other.wait(3)
            assert holder.words.count(WANTED) == holder.words.count(ENDED) == 0
            holder.leave()
            assert other.communicate(timeout=60)[0] == b"mine\n"
    assert "refused" not in "\n".join(worker.lines)


def test_a_worker_of_0_1_0_is_not_asked_for_a_terminal(
    released: Path, application: Application, service: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would refuse the job; a client that must have a terminal says why there is none."""
    monkeypatch.setattr("tests.service.command", lambda name, *words: old_command(released, name, *words))
    service("sh", "-c", "test -t 1; echo $?", environment={"PYTHONPATH": str(released)})
    monkeypatch.undo()
    argv, environment = application.client()
    with Screen() as screen:
        assert screen.end(screen.run(argv, environment)) == 0
        assert screen.lines() == ["1"]
    ended = application.run("-t", environment={"CEXEC_TIMEOUT_ACCEPT": "2"})
    assert ended.returncode == 111 and b"gives no terminal (cservice --no-tty, or an older cexec)" in ended.stderr


def test_a_client_of_0_1_0_at_a_terminal_uses_a_service_that_wants_one(
    released: Path, application: Application, service: StartService
) -> None:
    service("sh", "-c", "test -t 1; echo $?", options=["--tty"])
    with Screen() as screen:
        environment = local_environment({"PYTHONPATH": str(released)})
        assert screen.end(screen.run(old_command(released, "cexec", application.public), environment)) == 0
        assert screen.lines() == ["1"]


def test_a_client_of_0_1_0_holds_and_awaits_slots_beside_one_that_hears(
    released: Path, application: Application, service: StartService
) -> None:
    """It is told nothing.  Nor is it told of: it cannot prove where it receives, so it waits until a slot is free."""
    worker = service("sh", "-c", 'eval "$PEER_RUN"', options=["-j", "2"])
    environment = local_environment({"PYTHONPATH": str(released)})

    def start(script: str) -> subprocess.Popen[bytes]:
        argv = old_command(released, "cexec", application.public, f"RUN={script}")
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(argv, env=environment, **pipes)  # type: ignore[call-overload, no-any-return]

    with start("cat") as first, SlotHolder(application) as holder:
        holder.heard(RUNNING)
        assert len(worker.lines_with(" started ", 2)) == 2
        with start("echo second") as second:
            with pytest.raises(subprocess.TimeoutExpired):
                second.wait(3)
            assert holder.words.count(WANTED) == 0
            assert first.communicate(b"first", timeout=60) == (b"first", b"")
            assert second.communicate(timeout=60)[0] == b"second\n"
    assert (first.returncode, second.returncode) == (0, 0)


class Row:
    """Client, relay and worker on hosts 1, 2 and 3; those that `old` names are of 0.1.0."""

    def __init__(self, made: Lab, released: Path, application: Application, old: Sequence[str]) -> None:
        self._released = released
        self._application = application
        self._old = old
        self.made = made
        self.relay: subprocess.Popen[bytes] | None = None

    def environment(self, role: str, **changes: str) -> dict[str, str]:
        return clean_environment({**({"PYTHONPATH": str(self._released)} if role in self._old else {}), **changes})

    def command(self, role: str, name: str, *words: object) -> list[str]:
        if role in self._old:
            return old_command(self._released, name, *words)
        return command(name, *map(str, words))

    def join(self) -> None:
        """Starts the relay."""
        argv = self.command("relay", "cproxy", "10.77.0.2")
        self.relay = self.made.host(2).popen(argv, env=self.environment("relay"), stderr=subprocess.PIPE)
        assert self.relay.stderr is not None and b"relaying" in self.relay.stderr.readline()

    def close(self) -> None:
        if self.relay is not None:
            self.relay.terminate()
            self.relay.communicate(timeout=30)

    def serve(self, service: StartService, monkeypatch: pytest.MonkeyPatch, *program: str, options: str) -> Service:
        """A worker."""
        with monkeypatch.context() as patched:
            patched.setattr("tests.service.command", lambda name, *words: self.command("worker", name, *words))
            changes = {"PYTHONPATH": str(self._released)} if "worker" in self._old else None
            return service(*program, options=options.split(), host=self.made.host(3), environment=changes)

    def start(self, host: int, role: str, name: str, *words: str, **changes: str) -> subprocess.Popen[bytes]:
        """A client of the version that `role` has."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        argv = self.command(role, name, *words)
        return self.made.host(host).popen(argv, env=self.environment(role, **changes), **pipes)


@pytest.fixture
def row(old: str, released: Path, application: Application, lab: MakeLab) -> Iterator[Row]:
    made = Row(lab([(1, 2), (2, 3)]), released, application, old.split())
    try:
        made.join()
        yield made
    finally:
        made.close()


def of_old(*roles: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("old", roles, ids=[role.replace(" ", "+") for role in roles])


@of_old("relay", "client", "worker", "relay client", "relay worker", "client worker")
def test_a_job_waits_for_its_slot_behind_a_relay(
    row: Row, application: Application, service: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relay and a worker of 0.1.0 do not know proofs, and a client of 0.1.0 has none."""
    worker = row.serve(service, monkeypatch, "cat", options="-j 1")
    with row.start(3, "any", "cexec", str(application.public)) as first:
        worker.wait_for("started")
        with row.start(1, "client", "cexec", str(application.public), CEXEC_TIMEOUT_ACCEPT="3") as second:
            with pytest.raises(subprocess.TimeoutExpired):  # it is queued, so its accept timeout does not count
                second.wait(4)
            assert first.communicate(b"first", timeout=30)[0] == b"first"
            assert second.communicate(b"second", timeout=30)[0] == b"second"
    assert (first.returncode, second.returncode) == (0, 0)


@of_old("relay", "relay client", "relay worker")
def test_an_idle_worker_is_found_through_a_relay_of_0_1_0(
    row: Row, application: Application, service: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    row.serve(service, monkeypatch, "cat", options="-j 1")
    with row.start(1, "client", "cexec", str(application.public)) as client:
        assert client.communicate(b"data", timeout=30)[0] == b"data"
    assert client.returncode == 0


@of_old("relay", "relay client", "relay worker", "client", "worker")
def test_tasks_and_a_job_for_all_go_through_a_relay(
    row: Row, application: Application, service: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No worker beyond a relay of 0.1.0 knows that the client has proved itself: each gets one connection."""
    for _ in range(2):
        row.serve(service, monkeypatch, "sh", "-c", options="--allow-args -j 2")
    numbers = [str(number) for number in range(TASKS)]
    with row.start(1, "client", "cmap", "-k", str(application.public), "--", "echo {}", ":::", *numbers) as tasks:
        output, errors = tasks.communicate(timeout=90)
    assert (tasks.returncode, output.decode().split()) == (0, numbers), errors
    with row.start(1, "client", "cexec", "--all", "--expect", "2", str(application.public), "--", "echo here") as every:
        output, errors = every.communicate(timeout=60)
    assert (every.returncode, output) == (0, b"here\nhere\n"), errors


@SIDES
def test_censuses_and_alerts(
    mixed: tuple[Service, Run], application: Application, old_side: str, released: Path
) -> None:
    """A logger and `cps` of the client's version, and a worker of the other one."""
    _, run = mixed
    argv, of_old = command("crat", str(application.public)), None
    if old_side == "client":
        argv, of_old = old_command(released, "crat", application.public), {"PYTHONPATH": str(released)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(argv, env=local_environment(of_old), **pipes) as crat:  # type: ignore[call-overload]
        try:
            assert any("listening" in line for line in crat.stderr)
            assert run("cps", str(application.public)).stdout.endswith(b" ok\n")  # one worker, which is healthy
            assert run("cexec", str(application.public), "--", "exit 5").returncode == 5
            assert "exit code 5" in next(crat.stdout)
        finally:
            crat.terminate()


@pytest.mark.parametrize("old_side", ["worker"])
def test_the_python_api_works_with_an_old_worker(mixed: tuple[Service, Run], application: Application) -> None:
    with Client(application.public) as client:
        assert client.run(b"data", args=["cat; exit 3"]).returncode == 3
        results = client.map((b"%d" % number for number in range(TASKS)), args=["cat"])
        assert [one.stdout for one in results] == [b"%d" % number for number in range(TASKS)]
        with client.start(args=["cat"]) as job:
            job.stdin.write(b"hello")
            assert job.stdout.readexactly(5) == b"hello"
        (worker,) = client.workers()
        assert worker.version == "0.1.0"
