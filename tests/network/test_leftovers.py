"""Whatever clients do, and however many, the worker is afterwards as it was before (N6 of docs/protocol.md)."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import StartService
from tests.service import Application, Service
from tests.waiting import all_asleep, comes_true

RSS_GROWTH = 2_000_000  # bytes that the heap of a Python process varies by
TIME_WAIT = "TIME_WAIT"  # a connection that is over, which the kernel remembers for a minute


def open_sockets() -> set[tuple[object, ...]]:
    every = psutil.net_connections("inet")
    return {(one.type, one.laddr, one.raddr, one.pid, one.fd) for one in every if one.status != TIME_WAIT}


class Footprint:
    """What there is on this machine, as far as a worker or its jobs could have left it.

    `others`: the sockets that there were before the worker.  Earlier tests left them, and they may go at any time.
    """

    def __init__(self, worker: Service, directories: list[Path], others: set[tuple[object, ...]]) -> None:
        self.others = others
        self.counts = {
            "descriptors": worker.descriptors(),
            "processes": len(worker.started()),
            "sockets": len(open_sockets() - others),
            "files": sorted(str(path) for directory in directories for path in directory.rglob("*")),
        }
        self.memory = psutil.Process(worker.pid).memory_info().rss

    def check(self, before: Footprint) -> None:
        assert self.counts == before.counts
        assert self.memory <= before.memory + RSS_GROWTH, f"{self.memory - before.memory} bytes more"


@pytest.fixture
def leaves_nothing(application: Application, service: StartService, tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Starts a worker that has done some jobs; at the end of the test everything must be as it was then."""
    directories = [tmp_path / "temporary", tmp_path / "home"]
    for directory in directories:
        directory.mkdir()
    environment = {"TMPDIR": str(directories[0]), "HOME": str(directories[1])}
    started: list[tuple[Service, Footprint]] = []

    def start(*program: str, options: tuple[str, ...] = ()) -> Service:
        others = open_sockets()
        worker = service(*program, options=options, environment=environment)
        for _ in range(10):
            assert application.run().returncode == 0
        started.append((worker, settled(worker, directories, others)))
        return worker

    yield start
    for worker, before in started:
        settled(worker, directories, before.others, before).check(before)


def settled(
    worker: Service, directories: list[Path], others: set[tuple[object, ...]], before: Footprint | None = None
) -> Footprint:
    """The footprint when it is as before, or when it stays: a job's process tidies up after its client has gone."""
    looks: list[Footprint] = []

    def look() -> bool:
        quiet = before is not None or all_asleep(*worker.pids())
        looks.append(Footprint(worker, directories, others))
        expected = before or (looks[-2] if looks[1:] else None)
        return quiet and expected is not None and looks[-1].counts == expected.counts

    comes_true(look, pause=0.2)
    return looks[-1]


Start = Callable[..., Service]


def run_in_a_row(application: Application, count: int) -> None:
    argv, environment = application.client()
    for number in range(count):
        ended = subprocess.run(argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True)
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b""), f"run {number}"


def run_at_once(application: Application, count: int, *arguments: str, **settings: str) -> None:
    argv, environment = application.client(*arguments, environment=settings)
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    clients = [subprocess.Popen(argv, env=environment, **pipes) for _ in range(count)]  # type: ignore[call-overload]
    ends = [(*client.communicate(), client.returncode) for client in clients]
    assert ends == [(b"done\n", b"", 0)] * count


@pytest.mark.parametrize("runs", [25, pytest.param(1000, marks=[pytest.mark.campaign, pytest.mark.timeout(900)])])
def test_runs_in_a_row_leave_nothing(runs: int, application: Application, leaves_nothing: Start) -> None:
    leaves_nothing("true")
    run_in_a_row(application, runs)


@pytest.mark.parametrize("clients", [25, pytest.param(100, marks=pytest.mark.campaign)])
def test_clients_at_once_leave_nothing(clients: int, application: Application, leaves_nothing: Start) -> None:
    leaves_nothing("echo", "done")
    run_at_once(application, clients)


def test_jobs_that_break_off_leave_nothing(application: Application, leaves_nothing: Start) -> None:
    leaves_nothing("sh", "-c", "echo begun >&2; sleep ${PEER_TIME:-0}; cat", options=("-j", "8"))
    argv, environment = application.client("TIME=60")
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    for _ in range(3):
        clients = [subprocess.Popen(argv, env=environment, **pipes) for _ in range(4)]  # type: ignore[call-overload]
        for client in clients:
            with client:
                assert client.stderr is not None and client.stderr.readline() == b"begun\n"
                client.kill()
    assert application.run("TIME=0").returncode == 0


# All slots busy


def test_24_jobs_at_once_on_2_slots_all_succeed(application: Application, leaves_nothing: Start) -> None:
    """The accept timeout counts only while no worker is known: the last ones wait longer."""
    leaves_nothing("sh", "-c", "sleep ${PEER_TIME:-0}; echo done", options=("-j", "2"))
    run_at_once(application, 24, "TIME=0.5", CEXEC_TIMEOUT_ACCEPT="4")


@pytest.mark.campaign
@pytest.mark.timeout(900)
def test_200_jobs_of_2_seconds_at_once_on_2_slots_all_succeed(application: Application, leaves_nothing: Start) -> None:
    leaves_nothing("sh", "-c", "sleep ${PEER_TIME:-0}; echo done", options=("-j", "2"))
    run_at_once(application, 200, "TIME=2", CEXEC_TIMEOUT_ACCEPT="5")
