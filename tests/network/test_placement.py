"""Where jobs go, with real processes on hosts of the lab: docs/placement.md, whose simulations have the exact numbers.

The hosts share the CPUs of this machine, so each says its load by --load-command, and jobs sleep instead of working.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeLab, StartService
from tests.environment import clean_environment, command
from tests.service import Application, Service
from tests.waiting import PATIENCE, all_asleep, wait_until

IDLE = ("--load-command", "echo 0")
WARM_UP = 10  # jobs
full = pytest.mark.campaign


def most_at_once(service: Service) -> int:
    """The most jobs that it had at one time."""
    running = most = 0
    for line in service.lines:
        running += (" started " in line) - (" finished " in line)
        most = max(most, running)
    return most


def say_name(name: str, seconds: float = 0.0, status: int = 0) -> tuple[str, ...]:
    return ("sh", "-c", f"sleep {seconds}; echo {name}; exit {status}")


# The census


# The campaign has the seconds that it takes, the start of Python included.
@pytest.mark.parametrize(("runs", "seconds"), [(2, math.inf), pytest.param(10, 0.3, marks=full)])
def test_cps_shows_eight_hosts_soon(
    lab: MakeLab, service: StartService, application: Application, runs: int, seconds: float
) -> None:
    client, *workers = lab(9).hosts
    for host in workers:
        service("cat", host=host, options=["--name", f"n{host.number}", *IDLE])
    took = []
    for _ in range(runs):
        start = time.monotonic()
        result = client.run(command("cps", "--json", application.public), stdout=subprocess.PIPE, text=True)
        took.append(time.monotonic() - start)
        rows = [json.loads(line) for line in result.stdout.splitlines()]
        assert sorted(row["name"] for row in rows) == sorted(f"n{host.number}" for host in workers)
        assert {row["address"] for row in rows} <= {f"10.77.0.{host.number}" for host in workers} | {
            f"fe80::{host.number:x}" for host in workers
        }
    assert min(took) < seconds, took


# Who gets the jobs: on a busy machine the hosts' delays are not what they mean to be, so the exact numbers are those of
# the campaigns and of tests/protocol/decisions/test_simulation.py.


@pytest.mark.parametrize("jobs", [20, pytest.param(100, marks=full)])
def test_a_busy_host_loses_to_an_idle_one(
    lab: MakeLab, service: StartService, application: Application, jobs: int
) -> None:
    client, busy, idle = lab(3).hosts
    service(*say_name("busy"), host=busy, options=["-j", "2", "--load-command", "echo 0.9"])
    service(*say_name("idle"), host=idle, options=["-j", "2", *IDLE])
    application.run_many(client, 3, 1)  # so that they know that they are two
    won = Counter(application.run_many(client, jobs, 1))
    assert won["idle"] >= (0.95 if jobs >= 100 else 0.5) * jobs, won


@full
@pytest.mark.timeout(300)
def test_work_is_in_proportion_to_speed(lab: MakeLab, service: StartService, application: Application) -> None:
    jobs = 420
    client, *workers = lab(4).hosts
    speeds = (1, 2, 4)
    for host, speed in zip(workers, speeds, strict=True):
        options = ["-j", "8", "--speed", str(speed), *IDLE]
        service(*say_name(str(speed), 1.0), host=host, options=options)
    application.run_many(client, 10, 5)
    won = Counter(application.run_many(client, jobs, 10, timeout=250))
    for speed in speeds:
        assert won[str(speed)] == pytest.approx(jobs * speed / 7, rel=0.25), won


@full
def test_many_clients_at_once_fill_all_hosts_evenly_and_none_beyond_its_slots(
    lab: MakeLab, service: StartService, application: Application
) -> None:
    client, *workers = lab(9).hosts
    services = [service(*say_name(str(host.number), 1.0), host=host, options=["-j", "2", *IDLE]) for host in workers]
    won = Counter(application.run_many(client, 50, 50))
    assert max(won.values()) <= 1.3 * 50 / 8, won
    assert [most_at_once(one) for one in services] == [2] * 8


def test_many_clients_at_once_fill_all_hosts_and_none_beyond_its_slots(
    lab: MakeLab, service: StartService, application: Application, tmp_path: Path
) -> None:
    """No job ends before all slots are taken."""
    client, *workers = lab(5).hosts
    script = f"until test -e {tmp_path}/full; do sleep 0.05; done"
    services = [service("sh", "-c", script, host=host, options=["-j", "2", *IDLE]) for host in workers]
    clients = [client.popen(command("cexec", "-n", application.public)) for _ in range(25)]
    wait_until(lambda: [most_at_once(one) for one in services] == [2] * 4)
    (tmp_path / "full").touch()
    assert [one.wait(PATIENCE) for one in clients] == [0] * 25
    assert [most_at_once(one) for one in services] == [2] * 4


@pytest.mark.parametrize("jobs", [60, pytest.param(200, marks=full)])
@pytest.mark.timeout(200)
def test_a_host_that_fails_at_once_does_not_eat_the_queue(
    lab: MakeLab, service: StartService, application: Application, jobs: int
) -> None:
    client, broken, *healthy = lab(5).hosts
    service(*say_name("broken", status=1), host=broken, options=["-j", "2", *IDLE])
    for host in healthy:
        service(*say_name("healthy", 0.5), host=host, options=["-j", "2", *IDLE])
    won = Counter(application.run_many(client, jobs, 8, timeout=150))
    assert won["broken"] < (0.1 if jobs >= 200 else 0.2) * jobs, won


def weighted(application: Application, weight: int) -> list[str]:
    return command("cexec", "-n", "--weight", str(weight), application.public, f"W={weight}")


def test_weights_count_among_those_that_wait(
    lab: MakeLab, service: StartService, application: Application, tmp_path: Path
) -> None:
    client, host = lab(2).hosts
    script = f"test $PEER_W != 2 || until test -e {tmp_path}/go; do sleep 0.02; done; echo $PEER_W"
    worker = service("sh", "-c", script, host=host, options=["-j", "1"])
    reading, writing = os.pipe()  # one for all, so that the order of the ends is the order of the lines
    quiet: dict[str, Any] = {"env": clean_environment(), "stdout": writing, "stderr": subprocess.DEVNULL}
    running = [subprocess.Popen(client.inside(weighted(application, 2)), **quiet)]
    try:
        worker.wait_for(" started ")
        argvs = [client.inside(weighted(application, weight)) for weight in (1, 3) * 16]
        running += [subprocess.Popen(argv, **quiet) for argv in argvs]
        os.close(writing)
        wait_until(lambda: all_asleep(worker.pid, *(one.pid for one in running)))
        (tmp_path / "go").touch()
        with os.fdopen(reading) as lines:
            assert next(lines) == "2\n"
            ended = Counter(next(lines).strip() for _ in range(16))
            assert 10 <= ended["3"] <= 14, ended  # 12, if none of them left
    finally:
        for one in running:
            one.kill()
            one.wait()


@full
@pytest.mark.timeout(200)
def test_weights_share_one_slot_in_proportion(lab: MakeLab, service: StartService, application: Application) -> None:
    client, worker = lab(2).hosts
    service("sh", "-c", "sleep 0.2; echo $PEER_W", host=worker, options=["-j", "1"])
    ended: list[str] = []
    script = 'seq 1000 | xargs -P 10 -I{} "$@"'
    parts = [["sh", "-c", script, "sh", *weighted(application, weight)] for weight in (1, 3)]
    # one pipe for both, so that the order of the ends is the order of the lines
    reading, writing = os.pipe()
    running = [
        subprocess.Popen(client.inside(loop), env=clean_environment(), stdout=writing, start_new_session=True)
        for loop in parts
    ]
    os.close(writing)
    try:
        with os.fdopen(reading) as lines:
            for line in lines:
                ended.append(line.strip())
                if len(ended) == WARM_UP + 200:
                    break
    finally:
        for one in running:
            os.killpg(one.pid, 9)
            one.wait()
    del ended[:WARM_UP]  # when not all of them were waiting yet
    assert ended.count("3") / ended.count("1") == pytest.approx(3.0, rel=0.15), Counter(ended)


# Who is meant


def test_needs_names_and_addresses_choose_the_host(
    lab: MakeLab, service: StartService, application: Application
) -> None:
    client, *workers = lab(4).hosts
    for host, labels in zip(workers, ([], ["--label", "gpu=a100"], ["--label", "rack=7"]), strict=True):
        service(*say_name(f"n{host.number}"), host=host, options=["--name", f"n{host.number}", *labels, *IDLE])
    choices = {
        ("--need", "gpu"): "n3",
        ("--need", "rack=5"): "n4",
        ("--on", "n2"): "n2",
        ("--on", "n9,10.77.0.4"): "n4",
        ("--on", "fd77:0:0::3"): "n3",
        ("--not", "n2 n4"): "n3",
        ("--not", "10.77.0.2,fe80::4", "--need", "cpus=0.1,mem=16M"): "n3",
    }
    for options, name in choices.items():
        result = application.run("-n", *options, host=client)
        assert (result.returncode, result.stdout.decode().strip()) == (0, name), (options, result.stderr)
    ancestors = {"CEXEC_REJECT_SERVERS": "10.77.0.2,10.77.0.3", "CEXEC_TIMEOUT_ACCEPT": "20"}
    assert application.run("-n", host=client, environment=ancestors).stdout == b"n4\n"


def test_when_nobody_fits_it_says_who_is_there_and_what_they_lack(
    lab: MakeLab, service: StartService, application: Application
) -> None:
    client, *workers = lab(4).hosts
    for host in workers:
        service("cat", host=host, options=["--name", f"n{host.number}", "--label", f"rack={host.number}"])
    impatient = {"CEXEC_TIMEOUT_ACCEPT": "3"}
    result = application.run("-n", "--need", "rack=4,gpu", host=client, environment=impatient)
    assert result.returncode == 111
    text = result.stderr.decode()
    assert "fits: 3 workers exist; " in text
    assert "n2: has rack=2, not 4, has no gpu" in text and "n4: has no gpu" in text


def test_a_named_worker_is_waited_for(lab: MakeLab, service: StartService, application: Application) -> None:
    client, first, late = lab(3).hosts
    service(*say_name("first"), host=first, options=["--name", "first"])
    argv = command("cexec", "-n", "--on", "late", application.public)
    impatient = clean_environment({"CEXEC_TIMEOUT_ACCEPT": "0.5"})
    waiting = client.popen(argv, env=impatient, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(1.5)
    service(*say_name("late"), host=late, options=["--name", "late"])
    output, _ = waiting.communicate(timeout=20)
    assert (waiting.returncode, output) == (0, "late\n")


# Who comes and goes


def test_who_comes_and_goes_on_other_hosts_is_seen_at_once(
    lab: MakeLab, service: StartService, application: Application
) -> None:
    client, first, second = lab(3).hosts
    staying = service("cat", host=first, options=["--name", "first"])
    argv = command("cps", "--watch", "--json", "--interval", "0", application.public)
    watched = client.popen(argv, stdout=subprocess.PIPE, text=True)
    try:

        def seen() -> tuple[str, str]:
            told = json.loads(watched.stdout.readline())  # type: ignore[union-attr]
            return told["event"], told["name"]

        assert seen() == ("worker", "first")
        leaving = service("cat", host=second, options=["--name", "second"])
        assert seen() == ("worker", "second")
        leaving.close()
        assert seen() == ("gone", "second")
        staying.close()
        assert seen() == ("gone", "first")
    finally:
        watched.kill()
        watched.communicate()


# Several on one host


def test_a_unicast_announcement_reaches_every_cservice_of_its_host(
    lab: MakeLab, service: StartService, application: Application, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Two applications, two workers of one of them: the kernel gives the datagram to only one of three sockets."""
    client, worker = lab(2).hosts
    other = Application(tmp_path_factory.mktemp("other"), "other")
    for key, name in ((application, "a"), (other, "b"), (application, "c")):
        service(*say_name(name), application=key, host=worker, options=["--name", name])
    unicast = {"CEXEC_GROUP": worker.address, "CEXEC_TIMEOUT_ACCEPT": "10"}
    for key, name in ((application, "a"), (other, "b"), (application, "c")):
        result = key.run("-n", "--on", name, host=client, environment=unicast, timeout=15)
        assert (result.returncode, result.stdout.decode().strip()) == (0, name), result.stderr
    shown = client.run(
        command("cps", "--json", application.public), env=clean_environment(unicast), stdout=subprocess.PIPE, text=True
    )
    assert re.findall(r'"name": "(\w)"', shown.stdout) == ["a", "c"]
