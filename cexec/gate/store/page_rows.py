"""What the page shows of the past: samples of the cluster, and the workers that were seen.

Contract: functions of a connection, for `Database.write` and `Database.read`.  Samples and workers are kept for KEPT
seconds.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Any

KEPT = 86400.0  # seconds (ours)

TABLES = (
    "CREATE TABLE sample (at REAL NOT NULL, app TEXT NOT NULL, content TEXT NOT NULL, "
    "PRIMARY KEY (at, app)) WITHOUT ROWID",
    "CREATE TABLE seen_worker (uuid TEXT PRIMARY KEY, app TEXT NOT NULL, at REAL NOT NULL, content TEXT NOT NULL) "
    "WITHOUT ROWID",
)


def insert_samples(connection: sqlite3.Connection, at: float, samples: dict[str, dict[str, float]]) -> None:
    """Adds what was measured of each application, and forgets what is too old."""
    rows = [(at, app, json.dumps(content)) for app, content in samples.items()]
    connection.executemany("INSERT OR REPLACE INTO sample VALUES (?, ?, ?)", rows)
    connection.execute("DELETE FROM sample WHERE at < ?", [at - KEPT])
    connection.execute("DELETE FROM seen_worker WHERE at < ?", [at - KEPT])


def samples_since(connection: sqlite3.Connection, since: float) -> list[tuple[float, str, dict[str, float]]]:
    """Returns time, application and content of each sample, the oldest first."""
    rows = connection.execute("SELECT at, app, content FROM sample WHERE at >= ? ORDER BY at", [since])
    return [(at, app, json.loads(content)) for at, app, content in rows]


def insert_workers(connection: sqlite3.Connection, workers: list[tuple[float, dict[str, Any]]]) -> None:
    """Notes when each of these workers was last seen."""
    rows = [(one["uuid"], one["app"], at, json.dumps(one)) for at, one in workers]
    connection.executemany("INSERT OR REPLACE INTO seen_worker VALUES (?, ?, ?, ?)", rows)


def workers_since(connection: sqlite3.Connection, since: float) -> list[tuple[float, dict[str, Any]]]:
    """Returns when each worker was last seen, and what was known of it then."""
    rows = connection.execute("SELECT at, content FROM seen_worker WHERE at >= ?", [since])
    return [(at, json.loads(content)) for at, content in rows]
