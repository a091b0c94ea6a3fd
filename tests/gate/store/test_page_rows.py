"""What the page shows of the past: kept for a day, replaced by what is newer, forgotten afterwards."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from cexec.gate.store import page_rows

NOW = 1_000_000.0


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    opened = sqlite3.connect(":memory:")
    for statement in page_rows.TABLES:
        opened.execute(statement)
    yield opened
    opened.close()


def worker(uuid: str, load: float = 0.0) -> dict[str, Any]:
    return {"uuid": uuid, "app": "app", "load": load}


def test_samples_come_back_the_oldest_first(connection: sqlite3.Connection) -> None:
    page_rows.insert_samples(connection, NOW + 60, {"app": {"slots": 2}})
    page_rows.insert_samples(connection, NOW, {"app": {"slots": 1}, "other": {"slots": 7}})
    assert page_rows.samples_since(connection, NOW) == [
        (NOW, "app", {"slots": 1}),
        (NOW, "other", {"slots": 7}),
        (NOW + 60, "app", {"slots": 2}),
    ]
    assert page_rows.samples_since(connection, NOW + 1) == [(NOW + 60, "app", {"slots": 2})]


def test_a_worker_is_known_as_it_was_last_seen(connection: sqlite3.Connection) -> None:
    page_rows.insert_workers(connection, [(NOW, worker("a")), (NOW, worker("b"))])
    page_rows.insert_workers(connection, [(NOW + 60, worker("a", 0.5))])
    found = sorted(page_rows.workers_since(connection, NOW), key=lambda one: str(one[1]["uuid"]))
    assert found == [(NOW + 60, worker("a", 0.5)), (NOW, worker("b"))]


def test_what_is_a_day_old_is_forgotten(connection: sqlite3.Connection) -> None:
    page_rows.insert_workers(connection, [(NOW, worker("a"))])
    page_rows.insert_samples(connection, NOW, {"app": {"slots": 1}})
    page_rows.insert_samples(connection, NOW + page_rows.KEPT, {"app": {"slots": 2}})
    assert len(page_rows.samples_since(connection, 0)) == 2 and len(page_rows.workers_since(connection, 0)) == 1
    page_rows.insert_samples(connection, NOW + page_rows.KEPT + 1, {"app": {"slots": 3}})
    assert [content["slots"] for _, _, content in page_rows.samples_since(connection, 0)] == [2, 3]
    assert page_rows.workers_since(connection, 0) == []
