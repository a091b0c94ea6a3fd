"""Rule sets as `nft -j list ruleset` prints them, for tests.

Contract: `listing` makes a rule set out of rules in nft's language.  Their JSON is in nft_rules.json, as nft 1.0.6
prints it; `record()` makes that file anew, in a network namespace of its own.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.needs import find_tool, require_namespaces, require_tool

RECORDED = Path(__file__).parent / "nft_rules.json"
RULES: dict[str, dict[str, Any]] = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
PORTS = [80, 3010, {"range": [3020, 3030]}]  # the members of @ports
FRAME = """
table inet filter {
    set ports { type inet_service; flags interval; elements = { 80, 3010, 3020-3030 }; }
    chain more { }
    chain output {
        type filter hook output priority filter; policy accept;
%s
    }
}
"""


def listing(*, input: str = "", output: str = "", more: str = "", policy: str = "accept") -> str:
    """Each text is rules, one a line; beside them there is a chain that filters nothing."""
    base: dict[str, Any] = {"type": "filter", "prio": 0}
    objects: list[dict[str, Any]] = [
        {"metainfo": {"version": "1.0.6", "json_schema_version": 1}},
        {"table": {"family": "inet", "name": "filter", "handle": 1}},
        {"set": {"family": "inet", "table": "filter", "name": "ports", "type": "inet_service", "elem": PORTS}},
        _of("chain", "more"),
        _of("chain", "input", **base, hook="input", policy=policy),
        _of("chain", "output", **base, hook="output", policy="accept"),
        {"chain": {"family": "ip", "table": "nat", "name": "output", "type": "nat", "hook": "output", "prio": -100}},
        {"rule": {"family": "ip", "table": "nat", "chain": "output", **RULES["udp dport 3010 drop"]}},
    ]
    for chain, rules in (("more", more), ("input", input), ("output", output)):
        objects += [{"rule": {"family": "inet", "table": "filter", "chain": chain, **RULES[rule]}}
                    for rule in rules.splitlines()]  # fmt: skip
    return json.dumps({"nftables": objects})


def _of(kind: str, name: str, **values: Any) -> dict[str, Any]:
    return {kind: {"family": "inet", "table": "filter", "name": name, **values}}


def listed_by_nft(rules: Iterable[str]) -> tuple[str, list[str]]:
    """What the nft of this machine makes of these rules in the chain `output`: its JSON, and its lines of text."""
    require_namespaces()
    require_tool("nft")
    nft = find_tool("nft")
    script = f"{nft} -f - && {nft} -j list ruleset && {nft} list chain inet filter output"
    argv = ["unshare", "-n", "sh", "-c", script]
    result = subprocess.run(
        argv, input=FRAME % "\n".join(rules), capture_output=True, text=True, timeout=30, check=True
    )
    shown, _, text = result.stdout.partition("\n")
    return shown, [line.strip() for line in text.splitlines()]


def record() -> None:
    """Writes the file, with rules as this machine's nft prints them."""
    shown, _ = listed_by_nft(RULES)
    found = [one["rule"] for one in json.loads(shown)["nftables"] if "rule" in one]
    kept = [{key: rule[key] for key in ("expr", "comment") if key in rule} for rule in found]
    lines = [f"{json.dumps(text)}: {json.dumps(rule)}" for text, rule in zip(RULES, kept, strict=True)]
    RECORDED.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    record()
