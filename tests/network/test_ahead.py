"""Jobs in advance with a real cservice: a link with a delay, a rival, and a worker that is killed with two tasks."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from tests.campaigns import cmap
from tests.conftest import MakeLab, StartService
from tests.faults.link import BadCable
from tests.network.test_leases import DEADLINE, Client, Run, play
from tests.service import Application, Service
from tests.waiting import wait_until

DELAY = 0.2  # seconds, each way
TASKS = 40
# Tells when it begins and ends, by the seconds since the start of the machine.
TIMED = "read begin rest < /proc/uptime; sleep 0.1; read end rest < /proc/uptime; echo $begin $end"


def test_a_worker_behind_a_slow_link_does_not_wait_for_a_round_trip(
    tmp_path: Path, lab: MakeLab, service: StartService, application: Application
) -> None:
    """Without jobs in advance the pause before each task is a round trip at least, on any machine."""
    hosts = lab(2)
    client, worker = hosts.hosts
    service("sh", "-c", TIMED, options=["-j", "1"], host=worker)
    with BadCable(hosts, client) as cable:
        cable.set(delay=DELAY)
        done = client.run(
            cmap(application, "--array", f"1-{TASKS}", "--results", tmp_path / "results"),
            capture_output=True, timeout=4 * DEADLINE,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    times = sorted(tuple(map(float, path.read_text().split())) for path in (tmp_path / "results").rglob("stdout"))
    assert len(times) == TASKS
    pauses = [begin - end for (_, end), (begin, _) in pairwise(times)]
    assert sum(pause < DELAY for pause in pauses) >= TASKS // 4, pauses


@pytest.fixture
def serve(service: StartService) -> Callable[..., Service]:
    """A worker that runs what its clients say."""
    return lambda slots, *options: service("sh", "-c", 'eval "$PEER_RUN"', options=["-j", str(slots), *options])


@pytest.mark.parametrize("weight", [1, 3])
def test_a_rival_gets_its_share_beside_a_lease_with_jobs_in_advance(
    application: Application, serve: Callable[..., Service], weight: int
) -> None:
    serve(1)
    done: list[str] = []

    def counted() -> list[str]:
        """The jobs since both have had some, when neither has been allowed any more to go ahead."""
        if len(set(done)) < 2:
            return []
        return done[max(done.index(kind) for kind in set(done)) + 20 :]

    async def plain() -> None:
        client = Client(application, weight)
        while len(counted()) < 120:
            await client.run("true")
            done.append("plain")
        client.release()

    async def in_advance() -> None:
        client = Client(application)
        run = Run("true")
        lease = await client.give(run)
        following: list[Run] = []

        def beside() -> None:
            if not following and len(counted()) < 120:
                following.append(Run("true"))
                assert lease.give_ahead(following[0].job, 1)

        while True:
            await lease.run(run.job, lambda once: None, beside=beside)
            done.append("in advance")
            if not following:
                if len(counted()) >= 120:
                    break
                following.append(Run("true"))
                assert await lease.offered(DEADLINE)
                lease.give(following[0].job.go())
            run = following.pop()
        client.release()

    async def both() -> None:
        await asyncio.gather(plain(), in_advance())

    play(both())
    # Which of the two waits when a slot is free depends on the machine, so a draw of 120 is as good as a random one.  A
    # lease that need not be drawn again would have nearly all.
    shares = Counter(counted()[:120])
    assert shares["plain"] / 120 == pytest.approx(weight / (1 + weight), abs=0.2), shares


@pytest.mark.parametrize("kill_at", [8, 15])
def test_a_worker_that_is_killed_with_two_tasks_loses_none_and_doubles_none(
    tmp_path: Path, lab: MakeLab, service: StartService, application: Application, kill_at: int
) -> None:
    """Each task is committed once, and none counts as one that kills its worker (--crash-limit 1)."""
    client, first, second = lab(3).hosts
    runs = tmp_path / "runs"
    script = f'echo "$1" >> {runs}; sleep 0.05; echo "done $1"'
    options = ["-j", "1", "--allow-args"]
    doomed = service("sh", "-c", script, "sh", options=options, host=first)
    argv = cmap(
        application, "--array", f"1-{TASKS}", "--results", tmp_path / "results", "--joblog", tmp_path / "joblog",
        "--crash-limit", "1", "--", "{}",
    )  # fmt: skip
    with client.popen(argv, cwd=tmp_path) as running:
        wait_until(lambda: runs.exists() and len(runs.read_text().split()) >= kill_at)
        doomed.kill()
        service("sh", "-c", script, "sh", options=options, host=second)
        assert running.wait(4 * DEADLINE) == 0
    outputs = sorted(path.read_text() for path in (tmp_path / "results").rglob("stdout"))
    assert outputs == sorted(f"done {number}\n" for number in range(1, TASKS + 1))
    rows = [line.split("\t") for line in (tmp_path / "joblog").read_text().splitlines()[1:]]
    assert sorted(int(row[0]) for row in rows) == list(range(1, TASKS + 1))
    assert {row[6] for row in rows} == {"0"}
    again = Counter(runs.read_text().split()).most_common(3)
    assert [count for _, count in again if count > 1] in ([], [2], [2, 2])  # at most the two that were in flight
