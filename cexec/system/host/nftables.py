"""Rules as nft(8) prints them in JSON (libnftables-json(5), schema version 1).

Contract: `parse_nftables` takes the text of `nft -j list ruleset` and returns its chains in their order.  `ValueError`
if the text is not such a listing.  A part of any other form than the manual's is passed over, or counts as a condition
that is not understood.  A rule's text is made from its expressions, much as `nft list ruleset` prints it.
"""

from __future__ import annotations

import json
from typing import Any, TypeAlias

from cexec.system.host.packet_filter import ACCEPT, ANY_PORT, DROP, INPUT, JUMP, OUTPUT, RETURN, Chain, Rule

Sets: TypeAlias = dict[tuple[str, str], list[Any]]  # table and name -> elements

_HOOKS = {INPUT: INPUT, "prerouting": INPUT, "ingress": INPUT, OUTPUT: OUTPUT, "postrouting": OUTPUT}
_VERDICTS = {"accept": ACCEPT, "drop": DROP, "reject": DROP, "return": RETURN, "jump": JUMP, "goto": JUMP}
_HARMLESS = ("counter", "log")  # statements that are no conditions
_TRANSPORTS = ("tcp", "udp", "sctp", "dccp", "udplite", "icmp", "icmpv6")
_PROTOCOL_FIELDS = (("ip", "protocol"), ("ip6", "nexthdr"))
_INTERFACES = ("iif", "iifname", "oif", "oifname")
_BARE_META = (*_INTERFACES, "skuid", "skgid")  # keys that nft prints without the word `meta`
_DEEPEST = 20  # (ours) expressions within expressions that are printed
_ELLIPSIS = "..."


def parse_nftables(text: str) -> list[Chain]:
    """Returns the filtering chains."""
    try:
        listing = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    objects = _field(listing, "nftables")
    if not isinstance(objects, list):
        raise ValueError("not a listing of nft")
    sets: Sets = {}
    chains: dict[tuple[str, str], Chain] = {}
    for one in objects:  # sets may stand behind the rules that name them
        if found := _field(one, "set"):
            elements = _field(found, "elem")
            sets[_table(found), _text(found, "name")] = elements if isinstance(elements, list) else []
    for one in objects:
        if found := _field(one, "chain"):
            chain = _chain(found)
            chains[chain.table, chain.name] = chain
        elif found := _field(one, "rule"):
            holder = chains.get((_table(found), _text(found, "chain")))
            rule = None if holder is None else _rule(found, holder.table, sets)
            if holder is not None and rule is not None:
                holder.rules.append(rule)
    return list(chains.values())


def _field(value: Any, name: str) -> Any:
    """Returns a member of an object; None if it has none, or is no object."""
    return value.get(name) if isinstance(value, dict) else None


def _text(value: Any, name: str) -> str:
    """Returns a member that is a text; an empty text for any other."""
    member = _field(value, name)
    return member if isinstance(member, str) else ""


def _only(value: Any) -> tuple[str, Any]:
    """Returns the name and value of the only member of an expression; the name is empty for anything else."""
    return next(iter(value.items())) if isinstance(value, dict) and len(value) == 1 else ("", None)


def _table(value: Any) -> str:
    return f"{_text(value, 'family')} {_text(value, 'table')}"


def _chain(value: Any) -> Chain:
    hook = _field(value, "hook")
    filters = _field(value, "type") == "filter" and isinstance(hook, str)
    return Chain(
        _table(value),
        _text(value, "name"),
        hook=_HOOKS.get(hook, "") if filters else "",
        drops=_field(value, "policy") == "drop",
    )


# Conditions


def _rule(value: Any, table: str, sets: Sets) -> Rule | None:
    """Returns the rule; None if it has no verdict."""
    expressions = _field(value, "expr")
    if not isinstance(expressions, list):
        return None
    verdicts = [at for at, one in enumerate(expressions) if _only(one)[0] in _VERDICTS]
    if not verdicts:
        return None
    name, details = _only(expressions[verdicts[0]])
    rule = Rule(_words(value, expressions), _VERDICTS[name], _text(details, "target"))
    for one in expressions[: verdicts[0]]:
        kind, details = _only(one)
        if kind == "match":
            _add_condition(rule, details, table, sets)
        elif kind not in _HARMLESS:
            rule.plain = False
    return rule


def _add_condition(rule: Rule, match: Any, table: str, sets: Sets) -> None:
    """Adds what a match says of protocol and ports; a match that says anything else makes the rule less plain."""
    operator, right = _field(match, "op"), _field(match, "right")
    kind, left = _only(_field(match, "left"))
    protocol, name = _field(left, "protocol"), _field(left, "field")
    key = _field(left, "key") if kind in ("meta", "ct") else None
    for one in [{kind: left}, *(left if isinstance(left, list) else [])]:  # a list: parts of `&` or of a concatenation
        if _text(_field(one, "payload"), "protocol") in _TRANSPORTS:
            rule.protocols.append((False, {_text(_field(one, "payload"), "protocol")}))
    if key == "l4proto" or (kind == "payload" and (protocol, name) in _PROTOCOL_FIELDS):
        if operator in ("==", "!="):
            rule.protocols.append((operator == "!=", {one for one in _elements(right) if isinstance(one, str)}))
            return
    elif kind == "payload" and name in ("dport", "sport"):
        ranges = _ranges(operator, right, table, sets)
        if ranges:
            rule.ports.append((name, operator == "!=", ranges))
            return
    elif operator in ("==", "in"):
        values = _elements(right)
        loopback = kind == "meta" and key in _INTERFACES and values == ["lo"]
        rule.never = rule.never or loopback or (kind == "ct" and key == "state" and values == ["invalid"])
    rule.plain = False


def _elements(right: Any) -> list[Any]:
    """Returns the members of an anonymous set or a list, or the only value."""
    members = right if isinstance(right, list) else _field(right, "set")
    return members if isinstance(members, list) else [right]


def _ranges(operator: Any, right: Any, table: str, sets: Sets) -> list[tuple[int, int]]:
    """Returns ranges of ports; none if the set is not known or has nothing in it now."""
    low, high = ANY_PORT
    if operator in ("<", "<=", ">", ">="):
        if type(right) is not int:
            return [ANY_PORT]
        return [(low, right - (operator == "<"))] if operator[0] == "<" else [(right + (operator == ">"), high)]
    if isinstance(right, str) and right.startswith("@"):
        return [_range(one) for one in sets.get((table, right[1:]), [])]
    return [_range(one) for one in _elements(right)]


def _range(value: Any) -> tuple[int, int]:
    """Returns a port or a range; a value that is neither counts as any port."""
    inner = _field(_field(value, "elem"), "val")  # an element with a counter, a timeout or a comment
    value = value if inner is None else inner
    ends = _field(value, "range")
    ends = ends if isinstance(ends, list) and len(ends) == 2 else [value, value]
    return (ends[0], ends[1]) if type(ends[0]) is int and type(ends[1]) is int else ANY_PORT


# Text


def _words(rule: Any, expressions: list[Any]) -> str:
    """Returns a rule as text."""
    words = [_statement(one) for one in expressions]
    comment = _field(rule, "comment")
    return " ".join([*words, *([f'comment "{comment}"'] if isinstance(comment, str) else [])])


def _statement(value: Any, depth: int = 0) -> str:
    """Returns a condition, an action or a verdict as text."""
    kind, details = _only(value)

    def shown(name: str) -> str:
        return _expression(_field(details, name), depth + 1)

    if kind == "match":
        return _match(details, depth + 1)
    if kind == "counter" and details is not None:
        return f"counter packets {shown('packets')} bytes {shown('bytes')}"
    if kind == "log" and _field(details, "prefix") is not None:
        return f'log prefix "{shown("prefix")}"'
    if kind == "limit":
        return f"limit rate {shown('rate')}/{shown('per')}"
    if kind == "reject":
        reason = f"{shown('type')} {shown('expr')}".strip()
        return "reject" if reason in ("", "icmpx port-unreachable") else f"reject with {reason}"
    if kind in ("jump", "goto"):
        return f"{kind} {shown('target')}"
    if kind == "vmap":
        return f"{shown('key')} vmap {shown('data')}"
    if kind == "mangle":
        return f"{shown('key')} set {shown('value')}"
    return kind if details is None and kind else _expression(value, depth + 1)


def _match(details: Any, depth: int) -> str:
    operator, left, right = _text(details, "op"), _field(details, "left"), _field(details, "right")
    said = f"{operator} " if operator not in ("==", "in") or _only(left)[0] == "&" else ""
    if isinstance(right, str) and _text(_field(left, "meta"), "key") in _INTERFACES:
        return f'{_expression(left, depth)} {said}"{right}"'
    return f"{_expression(left, depth)} {said}{_expression(right, depth)}"


def _expression(value: Any, depth: int = 0) -> str:
    """Returns an expression as text; one that is not known as its names and values."""
    if depth > _DEEPEST:
        return _ELLIPSIS
    if isinstance(value, list):
        return ",".join(_expression(one, depth + 1) for one in value)
    kind, details = _only(value)
    if kind in ("meta", "ct") and isinstance(key := _field(details, "key"), str):
        return key if kind == "meta" and key in _BARE_META else f"{kind} {key}"
    if kind == "payload" and isinstance(name := _field(details, "field"), str):
        return f"{_expression(_field(details, 'protocol'), depth + 1)} {name}"
    if kind == "prefix":
        return f"{_expression(_field(details, 'addr'), depth + 1)}/{_expression(_field(details, 'len'), depth + 1)}"
    if kind in ("range", "concat", "set", "&", "|") and isinstance(details, list):
        between = {"range": "-", "concat": " . ", "set": ", "}.get(kind, f" {kind} ")
        text = between.join(_member(one, depth + 1) for one in details)
        return f"{{ {text} }}" if kind == "set" else text
    if kind == "numgen":
        mode, modulus = _field(details, "mode"), _field(details, "mod")
        return f"numgen {_expression(mode, depth + 1)} mod {_expression(modulus, depth + 1)}"
    if isinstance(value, dict):
        return " ".join(f"{name} {_expression(one, depth + 1)}".rstrip() for name, one in value.items())
    return "" if value is None else str(value)


def _member(value: Any, depth: int) -> str:
    """Returns a member of a set; that of a verdict map is a pair."""
    if isinstance(value, list) and len(value) == 2 and isinstance(value[1], dict):
        return f"{_expression(value[0], depth)} : {_statement(value[1], depth)}"
    return _expression(value, depth)
