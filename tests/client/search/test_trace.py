"""`cexec --explain` without a network: steps to words, and the causes that this machine shows."""

from __future__ import annotations

from typing import Any

import pytest

from cexec.client.search import causes as client_causes
from cexec.client.search.causes import likely_causes
from cexec.client.search.trace import Trace
from cexec.net.groups import parse_groups
from cexec.net.interfaces import Interface
from cexec.protocol.base.certificate import ROLE_WORKER
from cexec.protocol.base.keys import OwnerKey
from cexec.protocol.datagrams.hello import QUEUED, REFUSED, UNREACHABLE, Hello
from cexec.system.host.nftables import parse_nftables
from tests.system.host.nft import listing

UP, BROADCAST, LOOPBACK = 0x41, 0x2, 0x8
KEY = OwnerKey(bytes(range(32)))


def hello(name: str, instance: int, load: float = 0.0, **values: Any) -> Hello:
    certificate = KEY.worker_key(name).identity.certificate
    assert certificate.role == ROLE_WORKER
    fields = {"purpose": 1, "host": name, "ciphers": [], "slots": 4, "running": 1, "speed": 2.0, **values}
    return Hello(instance=bytes([instance]) * 16, certificate=certificate, load=load, **fields)


class Clock:
    """A clock that goes on by a millisecond whenever it is read."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


@pytest.fixture
def trace() -> Trace:
    return Trace(fingerprint="1234-5678", groups=parse_groups("10.0.0.255,mdns"), udp_port=3010, clock=Clock())


def test_the_story_of_a_job(trace: Trace) -> None:
    one, two, three = hello("one", 1), hello("two", 2, 0.75), hello("three", 3, purpose=QUEUED, running=4)
    trace.attempt_begun(number=1, port=41234)
    trace.announced(number=1, to=["10.0.0.255"], failures={"mdns": "not installed"})
    trace.answered(hello=three, address="10.0.0.3")
    trace.connected(address="10.0.0.1")
    trace.connected(address="10.0.0.2")
    trace.offered(hello=two, address="10.0.0.2")
    trace.offered(hello=one, address="10.0.0.1")
    trace.won(hello=one, address="10.0.0.1", told=1)
    trace.started()
    trace.exited(status=3, sent=5, received=7)
    assert trace.lines() == [
        "explanation (milliseconds from the start): key 1234-5678, 10.0.0.255,mdns, UDP port 3010",
        "      1.0  attempt 1, listening on TCP port 41234",
        "      2.0  announcement 1 sent to 10.0.0.255",
        "      2.0  announcement 1 could not be sent to mdns: not installed",
        "      3.0  worker three at 10.0.0.3 is busy and will offer itself later: "
        "load 0.00, speed 2.00, 4 of 4 slots busy",
        "      4.0  connection from 10.0.0.1",
        "      5.0  connection from 10.0.0.2",
        "      6.0  worker two at 10.0.0.2 offers itself: load 0.75, speed 2.00, 1 of 4 slots busy",
        "      7.0  worker one at 10.0.0.1 offers itself: load 0.00, speed 2.00, 1 of 4 slots busy",
        "      8.0  worker one at 10.0.0.1 gets the job: the first of 2 to confirm, before two (load 0.75); "
        "GO is sent, and 1 other connection ended",
        "      9.0  the program has started",
        "     10.0  the program has ended with status 3: 5 bytes in, 7 bytes out",
        "each step took: announcing 1.0, first connection 2.0, confirmation and GO 4.0, start of the program 1.0, "
        "the program 1.0",
    ]


def test_the_steps_are_those_of_the_last_attempt(trace: Trace) -> None:
    one = hello("one", 1)
    for number in (1, 2):
        trace.attempt_begun(number=number, port=41234)
        trace.announced(number=1, to=["10.0.0.255"], failures={})
        trace.connected(address="10.0.0.1")
        trace.won(hello=one, address="10.0.0.1", told=0)
        if number == 1:
            trace.failed(reason="disconnected unexpectedly")
    lines = trace.lines()
    why = "the first to connect and confirm, and the only one so far"
    assert f"      4.0  worker one at 10.0.0.1 gets the job: {why}; GO is sent" in lines
    assert "      5.0  this attempt has failed: disconnected unexpectedly" in lines
    assert lines[-1] == "each step took: announcing 1.0, first connection 1.0, confirmation and GO 1.0"


def test_who_could_not_take_the_job(trace: Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def likely_causes(**facts: Any) -> list[str]:
        asked.append(facts)
        return ["one", "two"]

    monkeypatch.setattr(client_causes, "likely_causes", likely_causes)
    trace.attempt_begun(number=1, port=41234)
    trace.announced(number=1, to=["10.0.0.255"], failures={})
    trace.browsing()
    unreachable = hello("one", 1, purpose=UNREACHABLE, detail="10.0.0.9:41234: timed out")
    trace.answered(hello=unreachable, address="10.0.0.1")
    trace.answered(hello=hello("two", 2, purpose=REFUSED, detail="its clock says 1970"), address="10.0.0.2")
    trace.dropped(address="10.0.0.3", reason="could not read signature", hello=None)
    trace.dropped(address="10.0.0.4", reason="", hello=hello("four", 4))
    assert trace.lines()[3:] == [
        "      3.0  nobody has answered yet: looking for workers by multicast DNS",
        "      4.0  worker one at 10.0.0.1 has heard, but cannot connect to 10.0.0.9:41234: timed out",
        "      5.0  worker two at 10.0.0.2 refuses: its clock says 1970",
        "      6.0  connection from 10.0.0.3: could not read signature",
        "      7.0  worker four at 10.0.0.4: dropped",
        "each step took: announcing 1.0",
        "likely causes on this machine, in the order to look at them:",
        "  - one",
        "  - two",
    ]
    (facts,) = asked
    assert (facts["heard"], facts["reply_port"], facts["sent_to"]) == (True, 41234, ["10.0.0.255"])


@pytest.mark.parametrize("step", ["answered", "offered", "census", ""])
def test_where_announcements_arrive_the_causes_of_that_are_not_looked_for(
    step: str, trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_causes, "likely_causes", lambda *, heard, **_: [] if heard else ["cause"])
    if step == "census":
        trace.census_taken(found="1 worker exists; a: has no gpu")
    elif step == "answered":
        trace.answered(hello("one", 1, purpose=QUEUED), "10.0.0.1")
    elif step == "offered":
        trace.offered(hello("one", 1), "10.0.0.1")
    assert ("  - cause" in trace.lines()) == (step == "")
    assert any("likely causes" in line for line in trace.lines()) == (step == "")


def interface(name: str, flags: int, *addresses: str, kind: str = "") -> Interface:
    made = Interface(name, 2, flags, kind=kind)
    for address in addresses:
        text, _, prefix = address.partition("/")
        made.add_ipv4(text, int(prefix), None)
    return made


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> list[Interface]:
    """Has a loopback and one Ethernet; the test may add to it."""
    found = [interface("lo", UP | LOOPBACK, "127.0.0.1/8"), interface("eth0", UP | BROADCAST, "10.0.0.9/24")]
    monkeypatch.setattr(client_causes, "interfaces", lambda: found)
    monkeypatch.setattr(client_causes, "container_kind", lambda: "")
    monkeypatch.setattr(client_causes, "read_chains", lambda: ([], ""))
    return found


def causes(group: str | None = None, *, heard: bool = False, **facts: Any) -> list[str]:
    """Returns the suspicious things: all lines before the two that are always there."""
    given = {"udp_port": 3010, "reply_port": 41234, "sent_to": ["10.0.0.255"], "failures": {}, **facts}
    found = likely_causes(
        fingerprint="1234-5678", groups=None if group is None else parse_groups(group), heard=heard, **given
    )
    if heard:
        return found
    assert found[-2].startswith("the key: this one is 1234-5678, ")
    assert found[-1].startswith("the group: announcements went to 10.0.0.255, port 3010, ")
    return found[:-2]


def test_nothing_is_suspicious_on_a_usual_machine(machine: list[Interface]) -> None:
    assert causes() == []


def test_interfaces_without_broadcast_come_first(machine: list[Interface]) -> None:
    machine.append(interface("tun0", UP, "10.8.0.2/24"))
    machine.append(interface("wg0", 0, "10.9.0.2/24"))  # which is down
    (cause,) = causes()
    assert cause.startswith("interface tun0 (10.8.0.2) has no broadcast: ")
    assert causes("10.0.0.255") == []


def test_a_group_that_goes_nowhere_is_told(machine: list[Interface]) -> None:
    assert causes("127.255.255.255") == ["the group is the loopback's: only workers on this machine hear it"]
    assert causes("10.0.1.7", failures={"10.0.1.7": "network is unreachable"}) == [
        "announcements could not be sent to 10.0.1.7: network is unreachable"
    ]
    del machine[1]
    assert causes() == ["no interface but the loopback is up: only workers on this machine hear"]


RULES = listing(output="udp dport 3010 drop", policy="drop")


def test_the_firewall_is_asked_for_all_three_flows(machine: list[Interface], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_causes, "read_chains", lambda: (parse_nftables(RULES), ""))
    policy = "the policy of inet filter input, which drops what no rule accepts"
    rule = "the rule `udp dport 3010 drop` of inet filter output"
    expected = [
        f"firewall: announcements, UDP to port 3010, may be stopped by {rule}",
        f"firewall: connections of workers, TCP to port 41234, may be stopped by {policy}; "
        "open some ports and name them, as in CEXEC_LISTEN_PORTS=41000:41010",
        f"firewall: answers of workers, UDP from port 3010, may be stopped by {policy}",
    ]
    assert causes() == expected
    assert causes(heard=True) == expected[1:]  # since announcements do arrive
    monkeypatch.setattr(client_causes, "read_chains", lambda: ([], "this user may not run: nft list ruleset"))
    assert causes() == ["firewall: its rules could not be looked at: this user may not run: nft list ruleset"]


def test_a_container_is_told(machine: list[Interface], monkeypatch: pytest.MonkeyPatch) -> None:
    machine[1] = interface("eth0", UP | BROADCAST, "172.17.0.2/16", kind="veth")
    (cause,) = causes()
    assert (
        "container or a namespace, and eth0 (172.17.0.2) leads to a bridge inside its host: broadcasts do not" in cause
    )
    monkeypatch.setattr(client_causes, "container_kind", lambda: "docker")
    (cause,) = causes()
    assert cause.startswith("container: this is a container (docker), and eth0 (172.17.0.2) leads to")
    assert causes(heard=True) == []
