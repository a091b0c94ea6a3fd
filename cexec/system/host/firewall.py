"""What in this machine's packet filter may stop cexec: for explanations, so it guesses rather than proves.

Contract: `read_chains()` reads the rules with nft(8) or, where that knows none, iptables(8) and ip6tables(8); it needs
root as they do, and says in words what it could not read.  `blockers(chains, flow)` names the first rule, or policy, of
each chain that may stop a flow; conditions that it does not understand (addresses, rates, marks) count as met.
`parse_nftables` and `parse_iptables` take the text that `nft list ruleset` and `iptables -S` print.
"""

from __future__ import annotations

import re

ACCEPT, DROP, JUMP, RETURN = "accept", "drop", "jump", "return"
INPUT, OUTPUT = "input", "output"
_HOOKS = {INPUT: INPUT, "prerouting": INPUT, "ingress": INPUT, OUTPUT: OUTPUT, "postrouting": OUTPUT}
_SEARCH = ":/usr/local/sbin:/usr/sbin:/sbin"  # where ordinary users do not look
_DEADLINE = 5.0  # seconds (ours) that a listing may take
_DEEPEST = 16  # (ours) jumps that are followed
_HIGHEST_PORT = 65535


class Flow:
    """Packets of one kind; a port is None when any will do."""

    def __init__(self, hook: str, protocol: str, *, to: int | None = None, source: int | None = None) -> None:
        self.hook = hook
        self.protocol = protocol
        self.ports = {"dport": to, "sport": source}


class Rule:
    """One rule: `ports` and `protocols` are conditions; `plain`: it has no others; `never`: it is not about us."""

    def __init__(self, text: str, verdict: str, target: str = "") -> None:
        self.text = text
        self.verdict = verdict
        self.target = target
        self.protocols: list[tuple[bool, set[str]]] = []  # whether it is negated
        self.ports: list[tuple[str, bool, list[tuple[int, int]]]] = []  # dport or sport, negated, ranges
        self.plain = True
        self.never = False

    def concerns(self, flow: Flow) -> bool:
        """Whether packets of the flow may meet it."""
        if self.never:
            return False
        if any((flow.protocol in names) == negated for negated, names in self.protocols):
            return False
        for side, negated, ranges in self.ports:
            port = flow.ports[side]
            if port is not None and any(low <= port <= high for low, high in ranges) == negated:
                return False
        return True

    def covers(self, flow: Flow) -> bool:
        """Whether all of them do."""
        return self.concerns(flow) and self.plain and all(flow.ports[side] is not None for side, _, _ in self.ports)


class Chain:
    """Rules in their order; `hook` is empty for one that is only jumped to."""

    def __init__(self, table: str, name: str) -> None:
        self.table = table
        self.name = name
        self.hook = ""
        self.drops = False  # by policy
        self.rules: list[Rule] = []

    def __str__(self) -> str:
        return f"{self.table} {self.name}"


def blockers(chains: list[Chain], flow: Flow) -> list[str]:
    """The rules and policies that may stop the flow, in words."""
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
    """The rule that may stop the flow, `_ACCEPTED`, or None at the end of the chain."""
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


# nft list ruleset

_NFT_PORTS = re.compile(r"\b(\w+) (dport|sport) (!= )?(\{[^}]*\}|\S+)")
_NFT_HEADER = re.compile(r"\b(tcp|udp|sctp|dccp|icmp|icmpv6) \w+")
_NFT_PROTOCOL = re.compile(r"\b(?:meta l4proto|ip protocol|ip6 nexthdr) (!= )?(\{[^}]*\}|\S+)")
_NFT_NEVER = re.compile(r'\bct state (?:\{ )?invalid|\b(?:iif|iifname|oif|oifname) "lo"')
_NFT_HARMLESS = re.compile(r'counter packets \d+ bytes \d+|counter|comment "[^"]*"|log(?: prefix "[^"]*")?|with \S.*')
_NFT_VERDICT = re.compile(r"(?:^| )(accept|drop|reject|return|(?:jump|goto) \S+)(?: |$)")


def parse_nftables(text: str) -> list[Chain]:
    """The filtering chains of `nft list ruleset`."""
    chains: list[Chain] = []
    sets: dict[tuple[str, str], str] = {}
    table = block = ""
    for line in re.sub(r",\n\s*", ", ", text).splitlines():
        words = line.split()
        if words[:1] == ["table"]:
            table = " ".join(words[1:3])
        elif words[:1] in (["chain"], ["set"], ["map"]) and words[-1] == "{":
            block = words[0]
            name = words[1]
            if block == "chain":
                chains.append(Chain(table, name))
        elif words == ["}"]:
            block = ""
        elif block == "set" and words[:1] == ["elements"]:
            sets[table, name] = line.partition("=")[2].strip()
        elif block == "chain" and words[:1] == ["type"]:
            chains[-1].hook = _HOOKS.get(words[3], "") if words[1] == "filter" else ""
            chains[-1].drops = "policy drop" in line
        elif block == "chain" and words:
            _add_nft_rule(chains[-1], line.strip(), sets)
    return chains


def _add_nft_rule(chain: Chain, text: str, sets: dict[tuple[str, str], str]) -> None:
    bare = re.sub(r'(?:comment|prefix) "[^"]*"', "", text)
    found = _NFT_VERDICT.search(bare)
    if found is None or " vmap " in bare:
        return
    word, _, target = found[1].partition(" ")
    verdict = {"reject": DROP, "goto": JUMP}.get(word, word)
    rule = Rule(text, verdict, target)
    rule.never = _NFT_NEVER.search(bare) is not None
    rest = bare[: found.start()]
    for match in _NFT_PROTOCOL.finditer(rest):
        rule.protocols.append((bool(match[1]), set(match[2].strip("{}").replace(",", " ").split())))
    rule.protocols += [(False, {match[1]}) for match in _NFT_HEADER.finditer(rest)]
    for match in _NFT_PORTS.finditer(rest):
        elements = sets.get((chain.table, match[4][1:]), "") if match[4].startswith("@") else match[4]
        if elements:
            rule.ports.append((match[2], bool(match[3]), _ranges(elements.strip("{} "), "-")))
    rule.plain = not _NFT_HARMLESS.sub("", _NFT_PORTS.sub("", _NFT_PROTOCOL.sub("", rest))).strip()
    chain.rules.append(rule)


def _ranges(text: str, dash: str) -> list[tuple[int, int]]:
    """Ports and ranges of ports, separated by commas; names and whatever else is not a number count as any port."""
    found: list[tuple[int, int]] = []
    for part in text.replace(" ", "").split(","):
        low, is_range, high = part.partition(dash)
        try:
            found.append((int(low), int(high) if is_range else int(low)))
        except ValueError:
            found.append((0, _HIGHEST_PORT))
    return found


# iptables -S

_CHAINS = {"INPUT": INPUT, "OUTPUT": OUTPUT}
_VERDICTS = {"ACCEPT": ACCEPT, "DROP": DROP, "REJECT": DROP, "RETURN": RETURN}
_IPTABLES_COMMENT = re.compile(r'-m comment --comment (?:"(?:[^"\\]|\\.)*"|\S+)')
_PORT_OPTIONS = {"--dport": "dport", "--dports": "dport", "--sport": "sport", "--sports": "sport"}


def parse_iptables(text: str, table: str) -> list[Chain]:
    """The chains of `iptables -S`, to be called `table`."""
    chains: dict[str, Chain] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or words[0] not in ("-P", "-N", "-A"):
            continue
        chain = chains.setdefault(words[1], Chain(table, words[1]))
        if words[0] == "-P":
            chain.hook = _CHAINS.get(words[1], "")
            chain.drops = words[2:] != ["ACCEPT"]
        elif words[0] == "-A":
            rule = _iptables_rule(line, _IPTABLES_COMMENT.sub("", line).split()[2:])
            if rule is not None:
                chain.rules.append(rule)
    return list(chains.values())


def _iptables_rule(line: str, words: list[str]) -> Rule | None:
    for option in ("-j", "-g"):
        if option in words[:-1]:
            where = words.index(option)
            break
    else:
        return None
    target = words[where + 1]
    rule = Rule(line, _VERDICTS.get(target, JUMP), target)
    negated = False
    rest = words[:where]
    while rest:
        word = rest.pop(0)
        if word == "!":
            negated = True
            continue
        value = rest.pop(0) if rest else ""
        if word == "-p":
            rule.protocols.append((negated, {value}))
        elif word in _PORT_OPTIONS:
            rule.ports.append((_PORT_OPTIONS[word], negated, _ranges(value, ":")))
        elif word != "-m":
            rule.plain = False
            lo = word in ("-i", "-o") and value == "lo"
            rule.never = rule.never or (not negated and (lo or value == "INVALID"))
        negated = False
    return rule


# reading


def read_chains() -> tuple[list[Chain], str]:
    """The chains of this machine, and what could not be read, in words."""
    text, problem = _run(["nft", "list", "ruleset"])
    chains = parse_nftables(text)
    if problem:
        for program in ("iptables", "ip6tables"):
            text, another = _run([program, "-S"])
            chains += parse_iptables(text, program)
            problem = "" if not another else problem
    for program, names in (("iptables-legacy", "ip_tables_names"), ("ip6tables-legacy", "ip6_tables_names")):
        if _has_legacy_filter(names):  # the kernel's older filter, which nft does not show
            text, another = _run([program, "-S"])
            chains += parse_iptables(text, program)
    return chains, problem


def _has_legacy_filter(names: str) -> bool:
    try:
        with open(f"/proc/net/{names}") as file:
            return "filter" in file.read().split()
    except OSError:
        return False


def _run(argv: list[str]) -> tuple[str, str]:
    """What a program prints; in words, why it prints nothing."""
    import os
    import shutil
    import subprocess

    path = shutil.which(argv[0], path=os.environ.get("PATH", os.defpath) + _SEARCH)
    if path is None:
        return "", f"{argv[0]} is not installed"
    try:
        result = subprocess.run([path, *argv[1:]], capture_output=True, text=True, timeout=_DEADLINE)
    except (OSError, subprocess.SubprocessError):
        return "", f"{argv[0]} cannot be run"
    return (result.stdout, "") if result.returncode == 0 else ("", f"this user may not run: {' '.join(argv)}")
