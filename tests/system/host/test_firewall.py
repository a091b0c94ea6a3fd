"""The rules of this machine's packet filter, read with its tools."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cexec.system.host import firewall
from cexec.system.host.firewall import OUTPUT, Flow, blockers, read_chains
from tests.conftest import MakeLab
from tests.needs import require_tool
from tests.system.host.nft import listing


def install(directory: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program in place of the system's."""
    monkeypatch.setattr(firewall, "SEARCH", "")
    monkeypatch.setenv("PATH", str(directory))
    (directory / name).write_text(f"#!/bin/sh\n{script}\n")
    (directory / name).chmod(0o755)


def test_nft_is_asked_for_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "listing").write_text(listing(output="udp dport 3010 drop"))
    install(tmp_path, "nft", f'[ "$*" = "-j list ruleset" ] && exec /bin/cat {tmp_path}/listing', monkeypatch)
    chains, problem = read_chains()
    rule = "the rule `udp dport 3010 drop` of inet filter output"
    assert (blockers(chains, Flow(OUTPUT, "udp", to=3010)), problem) == ([rule], "")


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("echo '{'", "nft printed rules that cannot be understood"),
        ("echo '[]'", "nft printed rules that cannot be understood"),
        ("echo 'Operation not permitted (you must be root)' >&2; exit 1", "this user may not run: nft -j list ruleset"),
        ("echo 'Error: JSON support not compiled-in' >&2; exit 1", "nft is built without JSON"),
    ],
)
def test_if_nft_fails_iptables_is_asked(
    script: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "nft", script, monkeypatch)
    assert read_chains() == ([], problem)
    for program in ("iptables", "ip6tables"):
        install(tmp_path, program, "echo '-P OUTPUT DROP'", monkeypatch)
    chains, remaining = read_chains()
    assert ([str(chain) for chain in chains if chain.drops], remaining) == (["iptables OUTPUT", "ip6tables OUTPUT"], "")


def test_without_the_tools_it_is_said_that_nothing_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firewall, "SEARCH", "")
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
