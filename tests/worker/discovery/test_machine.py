"""What this machine is, and by which addresses it can be called."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cexec.net.interfaces import Interface
from cexec.protocol.datagrams.requirements import MACHINE, quantity
from cexec.worker.discovery import machine
from cexec.worker.discovery.machine import attributes, own_addresses, usable_memory


def test_every_worker_tells_the_same_attributes() -> None:
    found = attributes()
    assert set(found) == set(MACHINE)
    assert (found["os"], found["arch"]) == (os.uname().sysname.lower(), os.uname().machine)
    assert (quantity(found["cpus"]) or 0) > 0 and (quantity(found["mem"]) or 0) > 1 << 20


@pytest.mark.parametrize(
    ("group", "limits", "memory"),
    [
        ("0::/a/b\n", {"a/memory.max": "max\n", "a/b/memory.max": "1048576\n"}, 1048576),
        ("0::/a/b\n", {"a/memory.max": "4096\n", "a/b/memory.max": "8192\n"}, 4096),
        ("0::/a\n", {}, None),
        ("4:memory:/a\n3:cpu:/x\n", {"memory/a/memory.limit_in_bytes": "8192\n", "x/memory.max": "1"}, 8192),
        ("4:memory:/a\n", {"memory/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ("0::/../escape\n", {"escape/memory.max": "77\n"}, 77),
        ("garbage\n\n", {}, None),
        ("0::/a\0b\n4:memory:/\0\n", {}, None),  # found by fuzzing: no file can be called so
        ("0::/a\n", {"a/memory.max": "9" * 5000}, None),  # so many digits are a ValueError
        ("0::/a\n", {"a/memory.max": "\u00b2"}, None),  # and so is a digit of another kind
    ],
)
def test_the_memory_is_what_the_control_groups_allow(
    tmp_path: Path, group: str, limits: dict[str, str], memory: int | None
) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(group)
    for name, text in limits.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert usable_memory(str(tmp_path / "proc"), str(tmp_path / "cgroup")) == (memory or total)


def test_a_loopback_address_is_ours_only_for_clients_here(monkeypatch: pytest.MonkeyPatch) -> None:
    loopback, outer = Interface("lo", 1, 0x49), Interface("eth0", 2, 0x1043)
    loopback.add_ipv4("127.0.0.1", 8, None)
    loopback.ipv6.append("::1")
    outer.add_ipv4("10.0.0.1", 24, None)
    outer.ipv6.append("fe80::1")
    monkeypatch.setattr(machine, "interfaces", lambda: [loopback, outer])
    everything = {"127.0.0.1", "::1", "10.0.0.1", "fe80::1"}
    for client in ("127.0.0.1", "10.0.0.1", "fe80::1%eth0"):
        assert own_addresses(client) == everything
    for client in ("10.0.0.2", "fe80::2%eth0", "127.0.0.2"):
        assert own_addresses(client) == {"10.0.0.1", "fe80::1"}
