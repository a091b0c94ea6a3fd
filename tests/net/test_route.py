"""By which address others know this host."""

from __future__ import annotations

import sys

from cexec.net.groups import parse_groups
from cexec.net.route import OWN, address_towards, link_of
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


LINKS = """
import sys
from cexec.net.route import link_of
print(*(link_of(host.partition("%")[0], int(host.partition("%")[2] or 0)) for host in sys.argv[1].split(",")))
"""


def test_this_host_is_on_no_link_but_its_own() -> None:
    assert link_of("127.0.0.1") == OWN


def test_what_is_no_address_is_nowhere() -> None:
    assert [link_of(text) for text in ("", "no address", "10.0.0.256", "10.0.0.1.2", "::g")] == [None] * 5


def test_hosts_on_a_link_are_told_from_those_behind_a_router(lab: MakeLab) -> None:
    host = lab([(1, 2), (2, 3)]).host(2)
    host.ip("route add 192.0.2.0/24 via 10.77.1.3")
    named = host.run(["ip", "-o", "link", "show"], capture_output=True, text=True, check=True).stdout
    found = {line.split(": ")[1].partition("@")[0]: line.split(":")[0] for line in named.splitlines()}
    hosts = "10.77.0.1,10.77.1.3,10.77.0.2,192.0.2.9,198.51.100.1,10.77.0.255,224.0.0.1"
    expected = [found["eth0"], found["eth1"], "0", "None", "None", "None", "None"]
    if HAS_IPV6:
        hosts += f",fd77:1::3,fe80::3%{found['eth1']},2001:db8::1"
        expected += [found["eth1"], found["eth1"], "None"]
    told = host.run([sys.executable, "-c", LINKS, hosts], capture_output=True, text=True, check=True)
    assert told.stdout.split() == expected
