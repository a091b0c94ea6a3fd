"""What the paths of PCCI tell of a pool beside its jobs: the command as it was given, and the names of its workers.

Contract: `TABLES` as in the other schemas; `insert` remembers a pool and forgets those that are older than any pool is
kept; `find` returns None for a pool that was started otherwise.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass

TABLES = ("CREATE TABLE pcci_pool (number INTEGER PRIMARY KEY, command TEXT NOT NULL, workers TEXT NOT NULL)",)
KEPT = 31 * 86_400_000  # milliseconds (ours)


@dataclass(frozen=True, slots=True)
class PcciPool:
    """`workers`: what the client calls each worker, by its UUID."""

    number: int
    command: str
    workers: dict[str, str]


def insert(connection: sqlite3.Connection, pool: PcciPool) -> None:
    row = [pool.number, pool.command, json.dumps(pool.workers)]
    connection.execute("INSERT OR REPLACE INTO pcci_pool VALUES (?, ?, ?)", row)
    connection.execute("DELETE FROM pcci_pool WHERE number < ?", [pool.number - KEPT])


def find(connection: sqlite3.Connection, number: int) -> PcciPool | None:
    row = connection.execute("SELECT command, workers FROM pcci_pool WHERE number = ?", [number]).fetchone()
    return None if row is None else PcciPool(number, row[0], json.loads(row[1]))
