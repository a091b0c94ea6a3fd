"""Jobs through a relay over links that are narrow, slow, or now and then not there; and what a NAT lets through."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

from tests.conftest import MakeLab, StartService
from tests.environment import clean_environment
from tests.lab import Host, Lab
from tests.needs import require_tool, skip_for_want_of
from tests.relaying import Proxy
from tests.service import Application, Service
from tests.waiting import PATIENCE

ROW = [(1, 2), (2, 3)]
DATA = bytes(range(256)) * 800  # 200 KB
MAPPING = 2  # seconds after which the NAT forgets a UDP mapping that nobody uses
IMPATIENT = {"CEXEC_TIMEOUT_ACCEPT": "2"}  # the seconds that a client waits unless a QUEUED arrives
# seconds that the only slot is busy: longer than a mapping lives; longer than one QUEUED keeps a client waiting
WAITS = [4, pytest.param(32, marks=[pytest.mark.campaign, pytest.mark.timeout(120)])]


@pytest.fixture
def row(lab: MakeLab, service: StartService) -> Lab:
    """A client, a relay, and a worker that serves `cat`."""
    made = lab(ROW)
    service("cat", options=["-j", "4"], host=made.host(3))
    return made


@pytest.fixture
def relay(row: Lab) -> Iterator[Proxy]:
    proxy = Proxy(row.host(2), "10.77.0.2", "10.77.1.255")
    yield proxy
    proxy.close()


def test_a_link_of_600_bytes(application: Application, row: Lab, relay: Proxy) -> None:
    row.host(3).mtu(600, 1)
    row.host(2).mtu(600, 1)
    assert application.run(input=DATA, host=row.host(1)).stdout == DATA


def test_a_link_of_1_megabit_a_second(application: Application, row: Lab, relay: Proxy) -> None:
    require_tool("tc")
    row.host(3).limit_rate("1mbit", 1)
    row.host(2).limit_rate("1mbit", 1)
    start = time.monotonic()
    assert application.run(input=DATA, host=row.host(1)).stdout == DATA
    assert time.monotonic() - start > 1.2  # 1.6 s for each direction, which overlap; less what a bucket lets through


@pytest.mark.campaign
def test_a_link_that_swallows_large_packets_is_a_failure_within_a_minute(
    application: Application, row: Lab, relay: Proxy
) -> None:
    """A black hole of path MTU discovery: small packets pass, so the job starts."""
    require_tool("nft")
    row.host(3).drop(100, "meta l4proto tcp meta length > 700")
    start = time.monotonic()
    result = application.run("--retries", "0", input=DATA, host=row.host(1), timeout=100)
    assert (result.returncode, result.stdout) == (111, b"")
    assert time.monotonic() - start < 60


@pytest.mark.campaign
@pytest.mark.timeout(300)
def test_a_link_that_goes_every_5_seconds_loses_nothing_silently(
    application: Application, row: Lab, relay: Proxy
) -> None:
    stopping = threading.Event()

    def cut() -> None:
        up = True
        while not stopping.wait(5):
            up = not up
            row.host(3).link(up)
        if not up:
            row.host(3).link(True)

    thread = threading.Thread(target=cut)
    thread.start()
    statuses = []
    try:
        for number in range(20):
            data = DATA + b"%d" % number
            result = application.run(input=data, host=row.host(1), timeout=120)
            assert result.returncode in (0, 111), result.stderr
            assert result.returncode or result.stdout == data
            assert data.startswith(result.stdout)
            statuses.append(result.returncode)
            time.sleep(0.5)  # so that the jobs meet all phases of the link
    finally:
        stopping.set()
        thread.join()
    assert statuses.count(0) >= 15


@pytest.fixture
def nat(lab: MakeLab) -> Lab:
    """Host 1 is inside; host 2 is its NAT, which forgets soon; host 3 is outside and knows nothing of the inside."""
    require_tool("nft")
    made = lab(ROW)
    made.host(1).ip("route add default via 10.77.0.2")
    timeouts = [f"netfilter/nf_conntrack_udp_timeout{kind}" for kind in ("", "_stream")]
    made.host(2).nft(
        "add table ip nat",
        "add chain ip nat out { type nat hook postrouting priority 100; }",
        "add rule ip nat out oifname eth1 masquerade",
    )
    settings = [("ipv4/ip_forward", 1), *((name, MAPPING) for name in timeouts)]
    script = " && ".join(f"echo {value} > /proc/sys/net/{name}" for name, value in settings)
    if made.host(2).run(["sh", "-c", script], capture_output=True).returncode != 0:
        skip_for_want_of("a NAT (connection tracking in a network namespace)")
    return made


def check_that_a_job_waits_its_turn(
    application: Application, host: Host, worker: Service, seconds: int, group: dict[str, str] | None = None
) -> None:
    """The worker's one slot is busy for so long; its QUEUED must come, or the second client gives up."""
    environment = {**IMPATIENT, **(group or {})}
    argv, _ = application.client(f"TIME={seconds}")
    with host.popen(argv, env=clean_environment(environment), stdin=subprocess.DEVNULL) as first:
        worker.wait_for("started")
        start = time.monotonic()
        second = application.run("TIME=0", input=DATA, host=host, environment=environment, timeout=seconds + PATIENCE)
        assert (second.returncode, second.stdout) == (0, DATA), second.stderr
        assert time.monotonic() - start > seconds - MAPPING  # our start of the clock may come late
        assert first.wait(PATIENCE) == 0


@pytest.mark.parametrize("seconds", WAITS)
def test_a_relay_on_the_nat_lets_a_job_wait_longer_than_a_mapping_lives(
    application: Application, nat: Lab, service: StartService, seconds: int
) -> None:
    worker = service("sh", "-c", "sleep $PEER_TIME; cat", options=["-j", "1"], host=nat.host(3))
    proxy = Proxy(nat.host(2), "10.77.0.2", "10.77.1.255")
    try:
        check_that_a_job_waits_its_turn(application, nat.host(1), worker, seconds)
    finally:
        proxy.close()


@pytest.mark.parametrize("seconds", WAITS)
def test_a_worker_behind_a_nat_that_hears_a_client_outside_needs_no_relay(
    application: Application, nat: Lab, service: StartService, seconds: int
) -> None:
    """The NAT passes on to it what comes for the UDP port; its connections and its QUEUED go out as they do anyway."""
    nat.host(2).nft(
        "add chain ip nat in { type nat hook prerouting priority -100; }",
        "add rule ip nat in iifname eth1 udp dport 3010 dnat to 10.77.0.1",
    )
    worker = service("sh", "-c", "sleep $PEER_TIME; cat", options=["-j", "1"], host=nat.host(1))
    check_that_a_job_waits_its_turn(application, nat.host(3), worker, seconds, {"CEXEC_GROUP": "10.77.1.2"})


def test_a_client_behind_a_nat_without_a_relay_is_told_that_workers_cannot_reach_it(
    application: Application, nat: Lab, service: StartService
) -> None:
    worker = service("cat", options=["--name", "outside"], host=nat.host(3))
    patience = {"CEXEC_TIMEOUT_ACCEPT": "3", "CEXEC_GROUP": nat.host(3).address}
    result = application.run(host=nat.host(1), environment=patience)
    assert (result.returncode, result.stdout) == (111, b"")
    assert b"worker outside heard you, but cannot connect to 10.77.1.2:" in result.stderr
    assert "client=10.77.1.2:" in worker.wait_for("unreachable")
