"""By which address others know this host."""

from __future__ import annotations

import sys

from cexec.net.groups import parse_groups
from cexec.net.route import address_towards
from tests.conftest import MakeLab
from tests.lab import HAS_IPV6

CODE = """
import sys
from cexec.net.groups import parse_groups
from cexec.net.route import address_towards
print(*(address_towards(entry) or "none" for entry in parse_groups(sys.argv[1])))
"""


def test_the_loopback_knows_us_as_itself() -> None:
    (entry,) = parse_groups("127.0.0.1")
    assert address_towards(entry) == "127.0.0.1"


def test_hosts_and_broadcasts_know_us_by_the_address_on_their_network(lab: MakeLab) -> None:
    host = lab([(1, 2), (2, 3)]).host(2)
    group = "10.77.0.1,10.77.1.255:4000,10.77.1.3,192.0.2.1"
    expected = ["10.77.0.2", "10.77.1.2", "10.77.1.2", "none"]
    if HAS_IPV6:
        group += ",fd77:1::3,fe80::3%eth1"
        expected += ["fd77:1::2", "fe80::2"]
    found = host.run([sys.executable, "-c", CODE, group], capture_output=True, text=True, check=True)
    assert found.stdout.split() == expected
