"""Rule sets as iptables(8) prints them, and the guess at which of their rules stop cexec."""

from __future__ import annotations

import pytest

from cexec.system.host.iptables import parse_iptables
from cexec.system.host.packet_filter import INPUT, OUTPUT, Flow, blockers

ANNOUNCEMENT = Flow(OUTPUT, "udp", to=3010)
CONNECTION = Flow(INPUT, "tcp", to=41000)

IPTABLES = """\
-P INPUT %(policy)s
-P FORWARD DROP
-P OUTPUT ACCEPT
-N more
%(rules)s
"""


def iptables(flow: Flow, *rules: str, policy: str = "ACCEPT") -> list[str]:
    return blockers(parse_iptables(IPTABLES % {"policy": policy, "rules": "\n".join(rules)}, "iptables"), flow)


@pytest.mark.parametrize("rule", [
    "-A OUTPUT -j DROP",
    "-A OUTPUT -p udp -m udp --dport 3010 -j DROP",
    "-A OUTPUT -p udp -m multiport --dports 80,3000:3020 -j REJECT --reject-with icmp-port-unreachable",
    '-A OUTPUT -p udp -m comment --comment "no ! -j ACCEPT here" -m pkttype --pkt-type broadcast -j DROP',
    "-A OUTPUT ! -p tcp -j DROP",
    "-A OUTPUT -d 10.0.0.0/8 ! -o lo -j DROP",
])  # fmt: skip
def test_a_rule_of_iptables_that_may_stop_announcements_is_named(rule: str) -> None:
    assert iptables(ANNOUNCEMENT, rule) == [f"the rule `{rule}` of iptables OUTPUT"]


@pytest.mark.parametrize("rule", [
    "-A OUTPUT -p udp -m udp --dport 53 -j DROP",
    "-A OUTPUT -p udp -m udp ! --dport 3010 -j DROP",
    "-A OUTPUT -p tcp -j DROP",
    "-A OUTPUT ! -p udp -j DROP",
    "-A OUTPUT -o lo -j DROP",
    "-A OUTPUT -m conntrack --ctstate INVALID -j DROP",
    "-A OUTPUT -p udp -j LOG",
    "-A OUTPUT -p udp",
    "-A INPUT -p udp -m udp --dport 3010 -j DROP",
    "-A more -j DROP",
])  # fmt: skip
def test_a_rule_of_iptables_that_does_not_is_not(rule: str) -> None:
    assert iptables(ANNOUNCEMENT, rule) == []


def test_policies_and_chains_of_iptables() -> None:
    policy = "the policy of iptables INPUT, which drops what no rule accepts"
    assert iptables(CONNECTION, policy="DROP") == [policy]
    assert iptables(CONNECTION, "-A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT", policy="DROP") == [policy]
    assert iptables(CONNECTION, "-A INPUT -p tcp -m tcp --dport 41000 -j ACCEPT", policy="DROP") == []
    assert (
        iptables(CONNECTION, "-A INPUT -j more", "-A more -p tcp -m tcp --dport 41000 -j ACCEPT", policy="DROP") == []
    )
    drop = "-A more -p tcp -j DROP"
    assert iptables(CONNECTION, "-A INPUT -j more", drop) == [f"the rule `{drop}` of iptables INPUT"]


def test_what_is_no_rule_is_passed_over() -> None:
    assert parse_iptables("", "iptables") == []
    for text in ("-A", "-A INPUT -j", "chain x {", "-P\n-N\n", "-A INPUT -p", '-A INPUT -m comment --comment "'):
        assert blockers(parse_iptables(text, "iptables"), CONNECTION) == []
