"""The rules of a packet filter, and a guess which of them may stop a flow of packets.

Contract: `blockers(chains, flow)` names the first rule, or the policy, of each chain that may stop the flow.  It serves
explanations, so it guesses rather than proves: conditions that it does not understand (addresses, rates, marks) count
as met when a rule drops, and as not met when a rule accepts.  Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field

ACCEPT, DROP, JUMP, RETURN = "accept", "drop", "jump", "return"
INPUT, OUTPUT = "input", "output"
ANY_PORT = (0, 65535)
_DEEPEST = 16  # jumps: NFT_JUMP_STACK_SIZE of Linux


@dataclass(slots=True)
class Flow:
    """Packets of one kind; a port is None if it can be any."""

    hook: str
    protocol: str
    to: int | None = None
    source: int | None = None

    def port(self, side: str) -> int | None:
        return self.to if side == "dport" else self.source


@dataclass(slots=True)
class Rule:
    """One rule: its text, its verdict, where it jumps to, and those of its conditions that are understood."""

    text: str
    verdict: str
    target: str = ""
    protocols: list[tuple[bool, set[str]]] = field(default_factory=list)  # True if negated, names
    ports: list[tuple[str, bool, list[tuple[int, int]]]] = field(default_factory=list)  # side, True if negated, ranges
    plain: bool = True  # there are no other conditions
    never: bool = False  # it concerns packets that are never ours: of the loopback, or of no connection

    def concerns(self, flow: Flow) -> bool:
        """Returns True if packets of the flow may meet the conditions."""
        if self.never:
            return False
        if any((flow.protocol in names) == negated for negated, names in self.protocols):
            return False
        for side, negated, ranges in self.ports:
            port = flow.port(side)
            if port is not None and any(low <= port <= high for low, high in ranges) == negated:
                return False
        return True

    def covers(self, flow: Flow) -> bool:
        """Returns True if all packets of the flow meet the conditions."""
        return self.concerns(flow) and self.plain and all(flow.port(side) is not None for side, _, _ in self.ports)


@dataclass(slots=True)
class Chain:
    """Rules in their order; `hook` is empty for a chain that is only jumped to, `drops` is its policy."""

    table: str
    name: str
    hook: str = ""
    drops: bool = False
    rules: list[Rule] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.table} {self.name}"


def blockers(chains: list[Chain], flow: Flow) -> list[str]:
    """Returns the rules and policies that may stop the flow, in words."""
    by_name = {(chain.table, chain.name): chain for chain in chains}
    found: list[str] = []
    for chain in chains:
        if chain.hook != flow.hook:
            continue
        verdict = _walk(chain, flow, by_name, 0)
        if verdict is None and chain.drops:
            found.append(f"the policy of {chain}, which drops what no rule accepts")
        elif verdict is not None and verdict is not _ACCEPTED:
            found.append(f"the rule `{verdict.text}` of {chain}")
    return found


_ACCEPTED = Rule("", ACCEPT)


def _walk(chain: Chain, flow: Flow, by_name: dict[tuple[str, str], Chain], depth: int) -> Rule | None:
    """Returns the rule that may stop the flow, `_ACCEPTED`, or None at the end of the chain."""
    for rule in chain.rules:
        if not rule.concerns(flow):
            continue
        if rule.verdict == DROP:
            return rule
        if rule.verdict == JUMP and depth < _DEEPEST:
            target = by_name.get((chain.table, rule.target))
            result = None if target is None else _walk(target, flow, by_name, depth + 1)
            if result is not None and (result is not _ACCEPTED or rule.covers(flow)):
                return result
        elif rule.verdict in (ACCEPT, RETURN) and rule.covers(flow):
            return _ACCEPTED if rule.verdict == ACCEPT else None
    return None
