"""This machine's packet filter, for explanations.

Contract: `read_chains()` reads the rules with nft(8) and, if nft cannot read them, with iptables(8) and ip6tables(8).
Like these programs it needs root, and says in words which rules it could not read.  It raises nothing.  `blockers`
(from `packet_filter`) then names the rules that may stop a flow.
"""

from __future__ import annotations

from cexec.system.host.iptables import parse_iptables
from cexec.system.host.nftables import parse_nftables
from cexec.system.host.packet_filter import INPUT, OUTPUT, Chain, Flow, blockers

__all__ = ["INPUT", "OUTPUT", "Chain", "Flow", "blockers", "read_chains"]

SEARCH = ":/usr/local/sbin:/usr/sbin:/sbin"  # directories that the PATH of ordinary users lacks
_DEADLINE = 5.0  # seconds (ours) that a listing may take


def read_chains() -> tuple[list[Chain], str]:
    """Returns the chains of this machine, and why some could not be read, or an empty text."""
    chains: list[Chain] = []
    text, problem = _run(["nft", "-j", "list", "ruleset"])
    if not problem:
        try:
            chains = parse_nftables(text)
        except ValueError:
            problem = "nft printed rules that cannot be understood"
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
    """Returns the output of a program, and why there is none, or an empty text."""
    import os
    import shutil
    import subprocess

    path = shutil.which(argv[0], path=os.environ.get("PATH", os.defpath) + SEARCH)
    if path is None:
        return "", f"{argv[0]} is not installed"
    try:
        result = subprocess.run([path, *argv[1:]], capture_output=True, timeout=_DEADLINE)
    except (OSError, subprocess.SubprocessError):
        return "", f"{argv[0]} cannot be run"
    if result.returncode == 0:
        return result.stdout.decode(errors="replace"), ""
    if b"JSON" in result.stderr:
        return "", f"{argv[0]} is built without JSON"
    return "", f"this user may not run: {' '.join(argv)}"
