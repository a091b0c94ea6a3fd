"""The attributes of this machine, which its workers tell: docs/protocol.md section 2.2.

Contract: `attributes()` has `os`, `arch`, `cpus` and `mem` (bytes) as text, without those that this system does not
tell.  `own_addresses` are those by which a client may call this host.  Nothing here raises.
"""

from __future__ import annotations

import os

from cexec.net.interfaces import interfaces
from cexec.protocol.datagrams.requirements import ARCH, CPUS, MEMORY, OS
from cexec.system.host.load import CGROUPS, PROC, number_in, usable_cpus


def attributes() -> dict[str, str]:
    """Returns the attributes that every worker has."""
    machine = os.uname()
    found = {OS: machine.sysname.lower(), ARCH: machine.machine, CPUS: f"{usable_cpus():.4g}"}
    memory = usable_memory()
    return {**found, MEMORY: str(memory)} if memory else found


def usable_memory(proc: str = PROC, cgroups: str = CGROUPS) -> int:
    """Returns the bytes of memory that this process may use, within its control groups; 0 if that is not known."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return 0
    return min([total, *_limits(proc, cgroups)])


def _limits(proc: str, cgroups: str) -> list[int]:
    """Returns the limits of this process's control group and of those above it."""
    found = []
    for line in _read(f"{proc}/self/cgroup").splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers and "memory" not in controllers.split(","):
            continue
        parts = [part for part in path.split("/") if part and part != ".."]
        root, name = (f"{cgroups}/memory", "memory.limit_in_bytes") if controllers else (cgroups, "memory.max")
        for depth in range(len(parts) + 1):
            limit = number_in(_read("/".join([root, *parts[:depth], name])))
            if limit is not None:
                found.append(limit)
    return found


def own_addresses(client: str) -> set[str]:
    """Returns the addresses by which a client may call this host; loopback ones only if the client is here, too.

    IPv6 addresses are without their scope.
    """
    outer: set[str] = set()
    loopback: set[str] = set()
    for one in interfaces():
        (loopback if one.loopback else outer).update(one.addresses())
    return outer | loopback if client.partition("%")[0] in outer | loopback else outer


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except (OSError, ValueError):  # no such name can be
        return ""
