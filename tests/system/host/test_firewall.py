"""The guess at which rules of a packet filter stop cexec: rule sets as nft(8) and iptables(8) print them."""

from __future__ import annotations

import sys

import pytest

from cexec.system.host import firewall
from cexec.system.host.firewall import INPUT, OUTPUT, Flow, blockers, parse_iptables, parse_nftables, read_chains
from tests.conftest import MakeLab
from tests.needs import require_tool

ANNOUNCEMENT = Flow(OUTPUT, "udp", to=3010)
ANSWER = Flow(INPUT, "udp", source=3010)
CONNECTION = Flow(INPUT, "tcp", to=41000)

NFTABLES = """\
table inet filter {
	set ports {
		type inet_service
		elements = { 80, 3010,
			3020-3030 }
	}

	chain more {
		%(more)s
	}

	chain input {
		type filter hook input priority filter; policy %(policy)s;
		%(input)s
	}

	chain output {
		type filter hook output priority filter; policy accept;
		%(output)s
	}
}
table ip nat {
	chain output {
		type nat hook output priority -100; policy accept;
		udp dport 3010 drop
	}
}
"""


def nftables(flow: Flow, *, input: str = "", output: str = "", more: str = "", policy: str = "accept") -> list[str]:
    text = NFTABLES % {"input": input, "output": output, "more": more, "policy": policy}
    return blockers(parse_nftables(text), flow)


@pytest.mark.parametrize("rule", [
    "drop",
    "udp dport 3010 drop",
    "udp dport { 22, 3000-3020 } counter packets 7 bytes 99 reject",
    "udp dport @ports drop",
    "udp dport != 80 drop",
    "meta l4proto udp drop",
    "meta l4proto { tcp, udp } th dport 3010 drop",
    "ip protocol udp meta pkttype broadcast reject with icmp type port-unreachable",
    'log prefix "accept " drop',
    "ip daddr 10.0.0.0/8 drop",
])  # fmt: skip
def test_a_rule_that_may_stop_announcements_is_named(rule: str) -> None:
    assert nftables(ANNOUNCEMENT, output=rule) == [f"the rule `{rule}` of inet filter output"]


@pytest.mark.parametrize("rule", [
    "accept",
    "udp dport 3011 drop",
    "udp sport 3010 accept",
    "udp dport != 3010 drop",
    "udp dport != @ports drop",
    "tcp dport 3010 drop",
    "tcp flags syn drop",
    "meta l4proto != udp drop",
    "meta l4proto { tcp, icmp } drop",
    "icmp type echo-request drop",
    "ct state invalid drop",
    'oifname "lo" drop',
    'udp dport 3010 counter packets 0 bytes 0 comment "drop"',
    "udp dport vmap { 80 : accept, 3010 : drop }",
    "udp dport 3010 accept\n\t\tdrop",
])  # fmt: skip
def test_a_rule_that_does_not_is_not(rule: str) -> None:
    assert nftables(ANNOUNCEMENT, output=rule) == []


def test_an_exception_from_a_drop_counts_only_if_it_is_for_all_packets() -> None:
    assert nftables(CONNECTION, input="tcp dport 41000-41010 accept\n\t\tdrop") == []
    assert nftables(CONNECTION, input="ip saddr 10.0.0.7 tcp dport 41000 accept\n\t\tdrop")
    assert nftables(CONNECTION, input="ct state established,related accept\n\t\tdrop")
    assert nftables(ANSWER, input="udp dport 5353 accept\n\t\tdrop")  # to which port an answer comes is not known


def test_a_policy_is_named_too() -> None:
    assert nftables(CONNECTION, policy="drop", input='iif "lo" accept') == [
        "the policy of inet filter input, which drops what no rule accepts"
    ]
    assert nftables(CONNECTION, policy="drop", input="tcp dport { 22, 41000 } accept") == []
    assert nftables(ANNOUNCEMENT, policy="drop") == []


def test_jumps_are_followed() -> None:
    drops = "udp sport 3010 drop"
    assert nftables(ANSWER, input="jump more", more=drops) == [f"the rule `{drops}` of inet filter input"]
    assert nftables(ANSWER, more=drops) == []
    assert nftables(ANSWER, input="goto more\n\t\tdrop", more="udp sport 3010 accept") == []
    assert nftables(ANSWER, input="tcp dport 22 jump more\n\t\taccept", more=drops) == []
    assert nftables(ANSWER, input="jump more\n\t\taccept", more=f"return\n\t\t{drops}") == []
    assert nftables(ANSWER, input="jump more", more="jump more") == []  # which the kernel refuses


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
    assert parse_nftables("") == parse_iptables("", "iptables") == []
    assert parse_nftables("# Warning: table ip filter is managed by iptables-nft, do not touch!\n") == []
    for text in ("table", "chain x {", "table inet x {\n\tchain y {\n\t\tdrop", "}\n}\n}", "-A", "-A INPUT -j"):
        blockers(parse_nftables(text) + parse_iptables(text, "iptables"), ANSWER)


def test_without_the_tools_it_is_said_that_nothing_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firewall, "_SEARCH", "")
    monkeypatch.setenv("PATH", "/nonexistent")
    assert read_chains() == ([], "nft is not installed")


def test_the_rules_of_a_real_machine_are_read(lab: MakeLab) -> None:
    require_tool("nft")
    (host,) = lab([(1,)]).hosts
    host.drop(30, "udp dport 3010", hook="output")
    script = """
import sys
from cexec.system.host.firewall import *
chains, problem = read_chains()
print(blockers(chains, Flow(OUTPUT, "udp", to=3010)), problem)
"""
    shown = host.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert shown == "['the rule `udp dport 3010 numgen random mod 100 < 30 drop` of inet lab output'] \n"
