"""The table of the campaign's rows: each fault is a function that injects it into a running scene.

Contract: `@row(name, group, text)` adds a function to ROWS, in the order of the table; the modules of injectors do so
when `all_rows()` imports them.  `text` is what the table of docs/reliability.md shows.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from tests.faults.load import Plan
from tests.faults.scene import Layout, Scene

WORKER, STREAM, CLIENT, NETWORK, STORAGE = "worker", "stream", "client", "network", "storage"
HOSTILE, TIME, LOAD, LOCAL = "hostile", "time", "load", "local"
GROUPS = (WORKER, STREAM, CLIENT, NETWORK, STORAGE, HOSTILE, TIME, LOAD, LOCAL)
MODULES = (
    "worker_rows", "stream_rows", "client_rows", "network_rows", "relay_rows", "nat_rows", "storage_rows",
    "stranger_rows", "insider_rows", "clock_rows", "load_rows", "local_rows", "storm_rows",
)  # fmt: skip
# What a fault hits, for the sums of the table.  A datagram is nothing that cexec relies on, so those are counted apart.
PROCESS, CONNECTION, HOST, DISK, OFFSET, DATAGRAM = "process", "connection", "host", "disk", "byte", "datagram"
DISCRETE = (PROCESS, CONNECTION, HOST, DISK, OFFSET)
USUAL_KINDS = {
    WORKER: PROCESS, STREAM: OFFSET, CLIENT: PROCESS, NETWORK: HOST, STORAGE: DISK, HOSTILE: CONNECTION, TIME: HOST,
    LOAD: PROCESS, LOCAL: PROCESS,
}  # fmt: skip
GOAL = 2.0  # seconds from the end of a fault to the next success, if the row gives no reason for more

Inject = Callable[[Scene], None]


@dataclass(frozen=True)
class Row:
    """One fault.  `reason` says why jobs need longer than GOAL, up to `limit` seconds, after it."""

    name: str
    group: str
    text: str
    inject: Inject
    layout: Layout
    plan: Plan
    worker_options: tuple[str, ...] = ()
    limit: float = GOAL
    reason: str = ""
    quick: bool = False  # it also runs in the usual test run
    kind: str = ""  # what its faults hit, if it is not what the group says

    @property
    def hits(self) -> str:
        return self.kind or USUAL_KINDS[self.group]


ROWS: dict[str, Row] = {}


def row(
    name: str,
    group: str,
    text: str,
    *,
    layout: Layout = Layout(),  # noqa: B008 - it is immutable
    plan: Plan = Plan(),  # noqa: B008
    worker_options: tuple[str, ...] = (),
    limit: float = GOAL,
    reason: str = "",
    quick: bool = False,
    kind: str = "",
) -> Callable[[Inject], Inject]:
    def add(inject: Inject) -> Inject:
        assert name not in ROWS and bool(reason) == (limit != GOAL), name
        ROWS[name] = Row(name, group, text, inject, layout, plan, worker_options, limit, reason, quick, kind)
        return inject

    return add


def all_rows() -> list[Row]:
    """Every row, group by group."""
    for module in MODULES:
        importlib.import_module(f"tests.faults.{module}")
    return sorted(ROWS.values(), key=lambda one: GROUPS.index(one.group))
