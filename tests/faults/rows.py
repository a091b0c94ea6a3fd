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
GROUPS = (WORKER, STREAM, CLIENT, NETWORK, STORAGE)
MODULES = ("worker_rows", "stream_rows", "client_rows", "network_rows", "relay_rows", "nat_rows", "storage_rows")
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
) -> Callable[[Inject], Inject]:
    def add(inject: Inject) -> Inject:
        assert name not in ROWS and bool(reason) == (limit != GOAL), name
        ROWS[name] = Row(name, group, text, inject, layout, plan, worker_options, limit, reason, quick)
        return inject

    return add


def all_rows() -> list[Row]:
    """Every row, group by group."""
    for module in MODULES:
        importlib.import_module(f"tests.faults.{module}")
    return sorted(ROWS.values(), key=lambda one: GROUPS.index(one.group))
