"""Jobs that wait for a slot while the ways to their clients change: relays are restarted, addresses are others.

Real relays on hosts of the lab.  The only slot is held by a job that ends when the test says so.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from cexec.protocol.base.limits import QUEUED_LIFETIME
from tests.conftest import MakeLab, StartService
from tests.environment import clean_environment, command
from tests.lab import Host, Lab
from tests.relaying import Proxy, traffic
from tests.service import Application, Service
from tests.waiting import comes_true, wait_until

ROW = [(1, 2), (2, 3)]
CHAIN = [(1, 2), (2, 4), (4, 3)]
LOOP = [(1, 11, 12), (11, 12, 3)]  # two relays between the same networks
ANNOUNCEMENT = 340  # bytes; what else an idle host sends has less than 100
ACCEPT = 10.0  # seconds that a client waits while it knows of no worker
PROMPT = 2.0  # seconds from a free slot to the start of the job
StartProxy = Callable[[Host], Proxy]


@pytest.fixture
def proxy(lab: MakeLab) -> Iterator[StartProxy]:
    """Starts a `cproxy` on a host, between its two networks, by IPv4 and by IPv6: it is two ways for each worker."""
    with ExitStack() as stack:

        def start(host: Host) -> Proxy:
            started = Proxy(host, host.address)
            stack.callback(started.close)
            return started

        yield start


class Waiting:
    """A worker on host 3 whose slot is taken, and a client on host 1 whose job waits for it."""

    def __init__(self, application: Application, made: Lab, service: StartService) -> None:
        self._application = application
        self._host = made.host(3)
        self.worker: Service = service("cat", options=["-j", "1"], host=self._host)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL}
        argv = command("cexec", application.public)
        self._first = self._host.popen(argv, env=clean_environment(), **pipes)
        self.worker.wait_for("started")
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        environment = clean_environment({"CEXEC_TIMEOUT_ACCEPT": str(ACCEPT)})
        self._second = made.host(1).popen(argv, env=environment, stdin=subprocess.DEVNULL, **pipes)
        wait_until(self._is_queued)

    @property
    def waits(self) -> bool:
        """The second client has not given up."""
        return self._second.poll() is None

    def _is_queued(self) -> bool:
        argv = command("cps", "--json", self._application.public)
        listed = self._host.run(argv, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        return bool(listed.stdout and json.loads(listed.stdout)["waiting"])

    def free_the_slot(self) -> float:
        """Ends the job that holds it; returns the seconds until the other job has been done."""
        begin = time.monotonic()
        self._first.communicate(timeout=20)
        _, errors = self._second.communicate(timeout=100)
        took = time.monotonic() - begin
        assert self._second.returncode == 0, errors
        return took

    def close(self) -> None:
        for client in (self._first, self._second):
            client.kill()
            client.communicate()


@pytest.fixture
def start_waiting(application: Application, service: StartService) -> Iterator[Callable[[Lab], Waiting]]:
    with ExitStack() as stack:

        def start(made: Lab) -> Waiting:
            waiting = Waiting(application, made, service)
            stack.callback(waiting.close)
            return waiting

        yield start


def wait_for_a_copy(relay: Host) -> None:
    """Waits until the relay on this host has passed a copy of the announcement on."""
    before = traffic(relay)
    wait_until(lambda: traffic(relay) > before + ANNOUNCEMENT)


@pytest.mark.parametrize(
    ("restarts", "measured"), [(2, False), (3, False), pytest.param(3, True, marks=pytest.mark.campaign)]
)
def test_a_job_that_waits_while_its_relay_is_restarted_starts_as_soon_as_a_slot_is_free(
    lab: MakeLab, proxy: StartProxy, start_waiting: Callable[[Lab], Waiting], restarts: int, measured: bool
) -> None:
    """Regression: the four oldest ways were kept, so no worker connected to the third relay: 111 after 70 s."""
    made = lab(ROW)
    relay = proxy(made.host(2))
    waiting = start_waiting(made)
    for _ in range(restarts):
        relay.kill()
        relay = proxy(made.host(2))
        wait_for_a_copy(made.host(2))
    took = waiting.free_the_slot()
    assert not [line for line in waiting.worker.lines if "unreachable" in line]  # it need not try the old ones
    assert not measured or took < PROMPT


@pytest.mark.campaign
@pytest.mark.timeout(200)
def test_a_client_whose_relay_is_restarted_again_and_again_hears_all_the_time_that_its_job_is_queued(
    lab: MakeLab, proxy: StartProxy, start_waiting: Callable[[Lab], Waiting]
) -> None:
    made = lab(ROW)
    relay = proxy(made.host(2))
    waiting = start_waiting(made)
    for _ in range(3):
        relay.kill()
        relay = proxy(made.host(2))
        wait_for_a_copy(made.host(2))
        assert not comes_true(lambda: not waiting.waits, QUEUED_LIFETIME + ACCEPT)
    waiting.free_the_slot()


@pytest.mark.parametrize("measured", [False, pytest.param(True, marks=pytest.mark.campaign)])
def test_a_job_that_waits_while_both_its_relays_are_killed_starts_when_one_is_back(
    lab: MakeLab, proxy: StartProxy, start_waiting: Callable[[Lab], Waiting], measured: bool
) -> None:
    made = lab(LOOP)
    relays = [proxy(made.host(number)) for number in (11, 12)]
    waiting = start_waiting(made)
    for relay in relays:
        relay.kill()
    proxy(made.host(12))
    wait_for_a_copy(made.host(12))
    took = waiting.free_the_slot()
    assert not [line for line in waiting.worker.lines if "unreachable" in line]
    assert not measured or took < PROMPT


def test_a_job_that_waits_while_the_relay_behind_another_one_is_restarted_starts(
    lab: MakeLab, proxy: StartProxy, start_waiting: Callable[[Lab], Waiting]
) -> None:
    """The relay that is near to the worker keeps its address, and has another port for each relay behind it."""
    made = lab(CHAIN)
    relay = proxy(made.host(2))
    proxy(made.host(4))
    waiting = start_waiting(made)
    for _ in range(2):
        relay.kill()
        relay = proxy(made.host(2))
        wait_for_a_copy(made.host(4))
    waiting.free_the_slot()
    assert not [line for line in waiting.worker.lines if "unreachable" in line]


def test_a_slot_that_is_free_while_the_relay_is_gone_is_used_when_it_is_back(
    lab: MakeLab, proxy: StartProxy, start_waiting: Callable[[Lab], Waiting]
) -> None:
    """Regression: after five connections that failed, the announcement was forgotten although its client asked."""
    made = lab(ROW)
    relay = proxy(made.host(2))
    waiting = start_waiting(made)
    relay.kill()
    proxy(made.host(2))
    assert waiting.free_the_slot() < 30


def test_a_job_that_waits_while_its_client_gets_another_address_starts(
    lab: MakeLab, start_waiting: Callable[[Lab], Waiting]
) -> None:
    made = lab([(1, 3)])
    waiting = start_waiting(made)
    made.host(1).ip(
        "address add 10.77.0.99/24 broadcast 10.77.0.255 dev eth0",
        "address del 10.77.0.1/24 dev eth0",
    )
    before = traffic(made.host(1))
    wait_until(lambda: traffic(made.host(1)) > before + ANNOUNCEMENT)
    waiting.free_the_slot()
