"""Rules as iptables(8) and ip6tables(8) print them.

Contract: `parse_iptables` takes the text of `iptables -S` and returns its chains.  It never raises: lines that it does
not understand are passed over.
"""

from __future__ import annotations

import re

from cexec.system.host.packet_filter import ACCEPT, ANY_PORT, DROP, INPUT, JUMP, OUTPUT, RETURN, Chain, Rule

_CHAINS = {"INPUT": INPUT, "OUTPUT": OUTPUT}
_VERDICTS = {"ACCEPT": ACCEPT, "DROP": DROP, "REJECT": DROP, "RETURN": RETURN}
_IPTABLES_COMMENT = re.compile(r'-m comment --comment (?:"(?:[^"\\]|\\.)*"|\S+)')
_PORT_OPTIONS = {"--dport": "dport", "--dports": "dport", "--sport": "sport", "--sports": "sport"}


def parse_iptables(text: str, table: str) -> list[Chain]:
    """Returns the chains; `table` is how they are called."""
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
            rule.ports.append((_PORT_OPTIONS[word], negated, _ranges(value)))
        elif word != "-m":
            rule.plain = False
            lo = word in ("-i", "-o") and value == "lo"
            rule.never = rule.never or (not negated and (lo or value == "INVALID"))
        negated = False
    return rule


def _ranges(text: str) -> list[tuple[int, int]]:
    """Reads ports and ranges of ports, separated by commas; a part that is not a number counts as any port."""
    found: list[tuple[int, int]] = []
    for part in text.split(","):
        low, is_range, high = part.partition(":")
        try:
            found.append((int(low), int(high) if is_range else int(low)))
        except ValueError:
            found.append(ANY_PORT)
    return found
