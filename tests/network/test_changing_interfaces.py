"""Workers whose network changes while they serve: noticed within 10 s, and the groups are joined again."""

from __future__ import annotations

import time

import pytest

from cexec.net.group_sockets import REFRESH_INTERVAL
from tests.conftest import MakeLab, StartService
from tests.service import Application

# A multicast group, because without a membership on the interface nothing of it is heard.
GROUP = {"CEXEC_GROUP": "239.7.7.7"}
LATE = 1.0  # seconds that a line of the log may take beyond the interval, on a busy machine


@pytest.mark.campaign
def test_interfaces_that_come_change_or_go_are_noticed_within_ten_seconds(
    lab: MakeLab, service: StartService, application: Application
) -> None:
    client, comes, changes, goes = lab(4).hosts
    comes.link(up=False)
    services = [
        service("cat", host=host, environment=GROUP, options=["--name", f"n{host.number}"])
        for host in (comes, changes, goes)
    ]
    start = time.monotonic()
    comes.link(up=True)
    changes.ip(f"address delete {changes.address}/24 dev eth0", "address add 10.77.0.33/24 dev eth0")
    goes.link(up=False)
    assert "239.7.7.7%eth0" in services[0].wait_for(" listening addresses=", REFRESH_INTERVAL + LATE)
    assert "eth0" not in services[2].wait_for(" listening addresses=", REFRESH_INTERVAL + LATE)
    while time.monotonic() < start + REFRESH_INTERVAL + LATE:
        time.sleep(0.1)  # nothing tells that the second one has joined again: what it hears is the same
    goes.link(up=True)
    for number in (2, 3):
        result = application.run("--on", f"n{number}", input=b"x", host=client, environment=GROUP, timeout=10)
        assert (result.returncode, result.stdout) == (0, b"x"), result.stderr
    services[2].wait_for(lambda line: " listening addresses=" in line and "eth0" in line, REFRESH_INTERVAL + LATE)
    assert application.run("--on", "n4", input=b"x", host=client, environment=GROUP, timeout=10).returncode == 0
