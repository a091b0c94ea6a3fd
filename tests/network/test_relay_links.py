"""Jobs through a relay over links that are narrow, slow, or now and then not there."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from tests.conftest import MakeLab, StartService
from tests.lab import Lab
from tests.needs import require_tool
from tests.relaying import Proxy
from tests.service import Application

ROW = [(1, 2), (2, 3)]
DATA = bytes(range(256)) * 800  # 200 KB


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
            time.sleep(0.5)
    finally:
        stopping.set()
        thread.join()
    assert statuses.count(0) >= 15
