"""Several hosts with each kind of group: `cexec --all` reaches all of them, and a plain job one."""

from __future__ import annotations

import pytest

from tests.conftest import MakeLab, StartService
from tests.lab import HAS_IPV6
from tests.service import Application

HOSTS = 4


@pytest.mark.parametrize("group", [
    "",  # the default
    "10.77.0.255",
    "239.7.7.7",
    pytest.param("ff05::77", marks=pytest.mark.skipif(not HAS_IPV6, reason="this kernel has no IPv6")),
    ",".join(f"10.77.0.{number}" for number in range(2, HOSTS + 2)),
    "mdns",
], ids=["default", "broadcast", "IPv4-multicast", "IPv6-multicast", "unicast", "mdns"])  # fmt: skip
def test_all_hosts_are_found(group: str, lab: MakeLab, service: StartService, application: Application) -> None:
    client, *workers = lab(HOSTS + 1).hosts
    environment = {"CEXEC_GROUP": group} if group else {}
    names = {f"worker{worker.number}" for worker in workers}
    for worker in workers:
        service("cat", host=worker, environment=environment, options=["--name", f"worker{worker.number}", "-j", "1"])
    result = application.run(
        "--all", "--tag", "--expect", str(HOSTS), input=b"x", host=client, environment=environment, timeout=60
    )
    assert result.returncode == 0, result.stderr
    assert {line.partition(":")[0] for line in result.stdout.decode().splitlines()} == names
    assert application.run(input=b"hello", host=client, environment=environment).stdout == b"hello"
