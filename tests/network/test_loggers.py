"""Loggers on other hosts: alerts on networks that lose datagrams, by multicast DNS, through unicast groups."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeLab, StartService
from tests.lab import Host
from tests.loggers import Crat
from tests.needs import require_tool
from tests.service import Application, Service
from tests.waiting import comes_true, wait_until

MDNS = {"CEXEC_GROUP": "mdns"}
LOSS = 30  # percent
StartCrat = Callable[..., Crat]


@pytest.fixture
def crat(lab: MakeLab, application: Application, tmp_path: Path) -> Iterator[StartCrat]:
    """Starts a `crat --json` on a host."""
    with ExitStack() as stack:

        def start(host: Host, **options: Any) -> Crat:
            started = Crat(tmp_path, "--json", application.public, host=host, **options)
            stack.callback(started.close)
            return started

        yield start


def run_jobs(application: Application, host: Host, count: int, at_once: int = 4) -> None:
    """So many jobs of `cat`, each with bytes of its own."""
    numbers = iter(range(count))
    lock = threading.Lock()
    wrong: list[str] = []

    def work() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            result = application.run(input=b"%d" % number, host=host, timeout=100)
            if (result.returncode, result.stdout) != (0, b"%d" % number):
                wrong.append(f"{number}: {result.returncode} {result.stderr!r}")

    threads = [threading.Thread(target=work) for _ in range(at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def started(services: list[Service]) -> int:
    """How many jobs they have started: the other side of the account."""
    return sum(" started " in line for service in services for line in service.lines)


def closed(logger: Crat) -> Counter[str]:
    """How many closing lines each job has."""
    ends = ("completed by", "gave up", "vanished from")
    return Counter(event["job"] for event in logger.events() if any(end in event["event"] for end in ends))


def missing(logger: Crat) -> int:
    """How many jobs the gaps that were reported count."""
    gaps = [event for event in logger.events() if event["event"].startswith("gap: ")]
    return sum(gap["last"] - gap["first"] + 1 for gap in gaps)


@pytest.mark.parametrize("count", [25, pytest.param(1000, marks=[pytest.mark.campaign, pytest.mark.timeout(900)])])
def test_with_30_percent_of_all_datagrams_lost_every_job_has_one_closing_line(
    lab: MakeLab, application: Application, service: StartService, crat: StartCrat, count: int
) -> None:
    require_tool("nft")
    client, *workers, logging = lab(4).hosts
    services = [service("cat", host=host, options=["-j", "4", "--name", f"n{host.number}"]) for host in workers]
    logger = crat(logging)
    for host in (client, *workers, logging):
        host.drop(LOSS)
    run_jobs(application, client, count)
    assert started(services) == count
    logger.wait_until(lambda: len(closed(logger)) + missing(logger) >= count, 150)
    assert len(closed(logger)) + missing(logger) == count
    assert set(closed(logger).values()) == {1}
    assert len(closed(logger)) >= 0.99 * count  # nine copies are rarely lost all


@pytest.mark.campaign
@pytest.mark.timeout(300)
def test_jobs_of_which_nothing_was_heard_are_a_gap(
    lab: MakeLab, application: Application, service: StartService, crat: StartCrat
) -> None:
    require_tool("nft")
    client, worker, logging = lab(3).hosts
    running = service("cat", host=worker, options=["-j", "4"])
    logger = crat(logging)
    run_jobs(application, client, 10)
    logger.wait_for("completed by", 10)
    logging.drop(100)
    run_jobs(application, client, 7)
    time.sleep(45)  # the seconds in which the worker sends all copies that it ever sends
    logging.clear_rules()
    run_jobs(application, client, 3)
    logger.wait_for("gap: 7 alerts of", timeout=90)
    assert started([running]) == 20
    assert len(closed(logger)) == 13 and set(closed(logger).values()) == {1}
    assert missing(logger) == 7


def test_a_logger_is_found_by_workers_and_by_clients_with_multicast_dns(
    lab: MakeLab, application: Application, service: StartService, crat: StartCrat
) -> None:
    """The worker's word on what was done, and the client's on what failed, which its last datagram says."""
    client, worker, logging = lab(3).hosts
    logger = crat(logging, environment=MDNS)
    service("sh", "-c", "read word; test $word = die && kill -9 $PPID; sleep 0", host=worker, environment=MDNS)
    for host in (worker, logging):
        host.drop(100, "meta pkttype { broadcast, multicast } udp dport 3010")

    def told() -> bool:
        """A job is done, and the logger hears of it; it may be a while until the worker has found the logger."""
        assert application.run(input=b"live\n", host=client, environment=MDNS).returncode == 0
        return comes_true(lambda: any("completed by 10.77.0.2" in line for line in logger.lines()), 5.0)

    wait_until(told)
    assert "10.77.0.1 " in logger.wait_for("completed by 10.77.0.2")[0]
    worker.drop(100, "udp dport 3010", "output")  # what is heard from now on is the client's
    assert application.run("--retries", "0", input=b"die\n", host=client, environment=MDNS).returncode == 111
    assert "10.77.0.1 rats out 10.77.0.2" in logger.wait_for("rats out")[0]
    assert "10.77.0.1 gave up" in logger.wait_for("gave up")[0]


def test_alerts_of_a_client_with_a_unicast_group_reach_the_logger_through_the_workers_groups(
    lab: MakeLab, application: Application, service: StartService, crat: StartCrat
) -> None:
    client, worker, logging = lab(3).hosts
    logger = crat(logging)
    service("sh", "-c", "kill -9 $PPID; sleep 30", host=worker)
    client.drop(100, "ip daddr 10.77.0.3", "output")  # it speaks to the worker alone
    unicast = {"CEXEC_GROUP": worker.address}
    assert application.run("--retries", "1", host=client, environment=unicast).returncode == 111
    (line,) = logger.wait_for("gave up")
    assert "10.77.0.1 gave up for app.pub" in line
    assert sum("10.77.0.1 rats out 10.77.0.2" in line for line in logger.lines()) == 2
    assert len(logger.lines()) == 3
