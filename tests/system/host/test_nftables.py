"""Rule sets as nft(8) prints them in JSON, and the guess at which of their rules stop cexec."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from cexec.system.host.nftables import parse_nftables
from cexec.system.host.packet_filter import INPUT, OUTPUT, Flow, blockers
from tests.system.host.nft import RULES, listed_by_nft, listing

ANNOUNCEMENT = Flow(OUTPUT, "udp", to=3010)
ANSWER = Flow(INPUT, "udp", source=3010)
CONNECTION = Flow(INPUT, "tcp", to=41000)
FLOWS = (ANNOUNCEMENT, ANSWER, CONNECTION)


def nftables(flow: Flow, *, input: str = "", output: str = "", more: str = "", policy: str = "accept") -> list[str]:
    return blockers(parse_nftables(listing(input=input, output=output, more=more, policy=policy)), flow)


@pytest.mark.parametrize("rule", [
    "drop",
    "udp dport 3010 drop",
    "udp dport { 22, 3000-3020 } counter packets 7 bytes 99 reject",
    "udp dport @ports drop",
    "udp dport != 80 drop",
    "meta l4proto udp drop",
    "meta l4proto { tcp, udp } th dport 3010 drop",
    "ip protocol udp meta pkttype broadcast reject with icmp port-unreachable",
    'log prefix "accept " drop',
    "ip daddr 10.0.0.0/8 drop",
    "udp dport >= 3000 drop",
    "udp dport <= 3010 drop",
    "udp dport 3000-3020 drop",
    "th dport 3010 drop",
    "ct state { invalid, new } drop",
    "ip protocol != { icmp, tcp } drop",
    "ip6 nexthdr udp drop",
    "limit rate 5/second drop",
    "udp dport 3010 numgen random mod 100 < 30 drop",
    "udp dport 3010 reject with icmpx admin-prohibited",
    "ip saddr . udp dport { 10.0.0.1 . 3010 } drop",
    "udp length 20 drop",
    'iif != "lo" drop',
    "log drop",
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
    "udp dport 3010 accept\ndrop",
    "udp dport > 3010 drop",
    "udp dport < 3010 drop",
    "tcp flags & (syn | ack) == syn drop",
    "ct state vmap { invalid : drop, established : accept }",
    "counter packets 0 bytes 0 accept\ndrop",
])  # fmt: skip
def test_a_rule_that_does_not_is_not(rule: str) -> None:
    assert nftables(ANNOUNCEMENT, output=rule) == []


def test_an_exception_from_a_drop_counts_only_if_it_is_for_all_packets() -> None:
    assert nftables(CONNECTION, input="tcp dport 41000-41010 accept\ndrop") == []
    assert nftables(CONNECTION, input="ip saddr 10.0.0.7 tcp dport 41000 accept\ndrop")
    assert nftables(CONNECTION, input="ct state established,related accept\ndrop")
    assert nftables(CONNECTION, input="limit rate 5/second accept\ndrop")
    assert nftables(ANSWER, input="udp dport 5353 accept\ndrop")  # to which port an answer comes is not known


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
    assert nftables(ANSWER, input="goto more\ndrop", more="udp sport 3010 accept") == []
    assert nftables(ANSWER, input="tcp dport 22 jump more\naccept", more=drops) == []
    assert nftables(ANSWER, input="jump more\naccept", more=f"return\n{drops}") == []
    assert nftables(ANSWER, input="jump more", more="jump more") == []  # which the kernel refuses


def test_rules_that_the_nft_of_this_machine_prints_are_the_recorded_ones() -> None:
    """Their text is that of `nft list ruleset`, but for numbers that it prints in hexadecimal."""
    shown, lines = listed_by_nft(RULES)
    live = next(chain for chain in parse_nftables(shown) if chain.name == "output" and chain.table == "inet filter")
    recorded = parse_nftables(listing(output="\n".join(RULES)))[2]
    assert live.rules == recorded.rules
    flags = [rule.text for rule in live.rules if rule.text not in lines]
    assert flags == ["tcp flags & syn,ack == syn drop"]  # nft: `tcp flags syn / syn,ack`
    assert len(live.rules) >= len(RULES) - 3  # those without a verdict are left out


def test_a_set_that_is_empty_or_unknown_may_hold_anything() -> None:
    shown = json.loads(listing(output="udp dport @ports drop", input="udp dport @ports accept\ndrop"))
    objects = shown["nftables"]
    holder = next(one["set"] for one in objects if "set" in one)
    wrong: list[Any] = [[], None, 7]
    for elements in wrong:
        holder["elem"] = elements
        chains = parse_nftables(json.dumps(shown))
        assert blockers(chains, ANNOUNCEMENT) == ["the rule `udp dport @ports drop` of inet filter output"]
        assert blockers(chains, Flow(INPUT, "udp", to=80)) == ["the rule `drop` of inet filter input"]
    objects.remove({"set": holder})
    assert blockers(parse_nftables(json.dumps(shown)), ANNOUNCEMENT)


def test_members_of_a_set_with_a_timeout_or_a_comment_are_ports_too() -> None:
    shown = json.loads(listing(output="udp dport @ports drop"))
    holder = next(one["set"] for one in shown["nftables"] if "set" in one)
    holder["elem"] = [{"elem": {"val": 3010, "timeout": 60}}]
    assert blockers(parse_nftables(json.dumps(shown)), ANNOUNCEMENT)
    holder["elem"] = [{"elem": {"val": {"range": [3011, 3020]}, "comment": "x"}}]
    assert not blockers(parse_nftables(json.dumps(shown)), ANNOUNCEMENT)


# Robustness


@pytest.mark.parametrize(
    "text", ["", "nonsense", "{", "[]", "7", "null", "{}", '{"nftables": {}}', "[" * 100_000, '{"a":' * 100_000,
             '{"nftables": [' + "9" * 5000 + "]}"],
)  # fmt: skip
def test_what_is_no_listing_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_nftables(text)


def test_an_empty_listing_has_no_chains() -> None:
    assert parse_nftables('{"nftables": [{"metainfo": {"json_schema_version": 1}}]}') == []


def nested(depth: int, build: Callable[[Any], Any]) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = build(value)
    return value


@pytest.mark.parametrize("build", [
    lambda value: [value],
    lambda value: {"set": [value]},
    lambda value: {"payload": {"protocol": value, "field": "dport"}},
    lambda value: {"prefix": {"addr": value, "len": 8}},
    lambda value: {"vmap": {"key": 1, "data": {"set": [[1, value if isinstance(value, dict) else {"x": 1}]]}}},
    lambda value: {"match": {"op": "==", "left": value, "right": value}} if not isinstance(value, dict) else
    {"match": {"op": "==", "left": 1, "right": value}},
])  # fmt: skip
def test_expressions_may_be_nested_deeply(build: Callable[[Any], Any]) -> None:
    """As deep as the parser of JSON goes."""
    shown = json.loads(listing(output="udp dport 3010 drop"))
    rule = next(one["rule"] for one in shown["nftables"] if "rule" in one and one["rule"]["chain"] == "output"
                and one["rule"]["family"] == "inet")  # fmt: skip
    for place in ("expr", "chain", "family", "table", "comment"):
        deep = nested(150, build)
        changed = {**rule, place: [deep, {"match": {"left": deep, "right": deep, "op": deep}}, {"drop": deep}]}
        objects = [{"rule": changed} if one == {"rule": rule} else one for one in shown["nftables"]]
        chains = parse_nftables(json.dumps({"nftables": [*objects, {"set": changed}, {"chain": changed}]}))
        for flow in FLOWS:
            assert all(len(text) < 100_000 for text in blockers(chains, flow))


WRONG: list[Any] = [None, True, -1, 10**30, 0.5, "", "@ports", "@", [], {}, [[]], {"set": None}, ["lo"], {"range": [1]},
         {"range": ["a", 5]}, {"drop": None}, {"jump": 7}, {"meta": None}, {"payload": 1}]  # fmt: skip


def damaged(value: Any, dice: random.Random) -> Any:
    """The same with some of its parts exchanged for others."""
    if dice.random() < 0.03:
        return dice.choice(WRONG)
    if isinstance(value, dict):
        return {dice.choice(["expr", "match", "drop", ""]) if dice.random() < 0.02 else key: damaged(one, dice)
                for key, one in value.items()}  # fmt: skip
    return [damaged(one, dice) for one in value] if isinstance(value, list) else value


def test_parts_of_wrong_types_raise_nothing() -> None:
    dice = random.Random(11)
    whole = json.loads(listing(input="\n".join(RULES), output="\n".join(RULES), more="jump more"))
    for _ in range(300):
        chains = parse_nftables(json.dumps({"nftables": [damaged(one, dice) for one in whole["nftables"]]}))
        for flow in FLOWS:
            blockers(chains, flow)
