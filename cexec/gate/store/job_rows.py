"""The statements about jobs, pools, outputs and events.

Contract: functions of a connection, for `Database.write` and `Database.read`.  Pages are cut by id (keyset), the newest
first, so that each takes the same time.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cexec.gate.store.job_records import EventRecord, JobRecord, JobState, PoolRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cexec.gate.store.output_log import KeptOutput

JOB_COLUMNS = (
    "id, app, owner, pool, instance, args, state, exit_status, signal, reason, worker, attempts, submitted, started, "
    "ended, expired, files"
)
POOL_COLUMNS = "id, number, app, owner, submitted, ended"
EVENT_COLUMNS = "id, at, job, pool, app, state, exit_status, signal, worker"


@dataclass(frozen=True, slots=True)
class Reference:
    """What an `Idempotency-Key` has led to: a job or a pool, by a request with this hash."""

    request: bytes
    job: str | None
    pool: str | None


@dataclass(frozen=True, slots=True)
class Filter:
    """Which jobs are listed: `apps` None for all; `after`: the id behind which the page begins."""

    apps: frozenset[str] | None
    state: JobState | None
    after: str | None
    limit: int


def insert_job(connection: sqlite3.Connection, job: JobRecord) -> EventRecord:
    """Adds a job, with the event of its first state."""
    places = ", ".join("?" * 17)
    connection.execute(f"INSERT INTO job ({JOB_COLUMNS}) VALUES ({places})", _values(job))
    return _add_event(connection, job, job.submitted)


def update_job(
    connection: sqlite3.Connection, job: JobRecord, at: float, outputs: Iterable[KeptOutput] = ()
) -> EventRecord:
    """Replaces what is known of a job, with an event; `outputs`: how they are kept, if it is over."""
    connection.execute(
        "UPDATE job SET state=?, exit_status=?, signal=?, reason=?, worker=?, instance=?, attempts=?, started=?, "
        "ended=?, files=? WHERE id=?",
        (job.state.value, job.exit_status, job.signal, job.reason, job.worker, job.instance, job.attempts, job.started,
         job.ended, json.dumps(job.files), job.id),
    )  # fmt: skip
    for one in outputs:
        insert_output(connection, one.job, one.stream, one.began, one.size, one.data)
    if job.over and job.pool is not None:
        connection.execute(
            "UPDATE pool SET ended=?1 WHERE id=?2 AND NOT EXISTS (SELECT 1 FROM job WHERE pool=?2 AND ended IS NULL)",
            (at, job.pool),
        )
    return _add_event(connection, job, at)


def insert_output(
    connection: sqlite3.Connection, job: str, stream: int, began: int, size: int, data: bytes | None
) -> None:
    """Adds how an output is kept."""
    connection.execute("INSERT OR REPLACE INTO output VALUES (?, ?, ?, ?, ?)", (job, stream, began, size, data))


def find_job(connection: sqlite3.Connection, job: str) -> JobRecord | None:
    row = connection.execute(f"SELECT {JOB_COLUMNS} FROM job WHERE id=?", (job,)).fetchone()
    return None if row is None else _job(row)


def find_output(
    connection: sqlite3.Connection, job: str, stream: int
) -> tuple[JobRecord | None, tuple[int, int, bytes | None] | None]:
    """Returns the job, and `began`, `size` and `data` of its output."""
    row = connection.execute("SELECT began, size, data FROM output WHERE job=? AND stream=?", (job, stream)).fetchone()
    return find_job(connection, job), row


def list_jobs(connection: sqlite3.Connection, wanted: Filter) -> list[JobRecord]:
    """Returns a page of jobs, the newest first."""
    return [_job(row) for row in _page(connection, f"SELECT {JOB_COLUMNS} FROM job", wanted)]


def list_pools(connection: sqlite3.Connection, wanted: Filter) -> list[PoolRecord]:
    """Returns a page of pools, the newest first."""
    return [PoolRecord(*row) for row in _page(connection, f"SELECT {POOL_COLUMNS} FROM pool", wanted)]


def _page(connection: sqlite3.Connection, select: str, wanted: Filter) -> list[Any]:
    """Returns rows in the order of their ids, the highest first.

    Each application has a page of its own by its index; they are merged, since no index has several in one order.
    """
    conditions, values = [], []
    if wanted.state is not None:
        conditions.append("state = ?")
        values.append(wanted.state.value)
    if wanted.after is not None:
        conditions.append("id < ?")
        values.append(wanted.after)
    rows: list[Any] = []
    for app in [None] if wanted.apps is None else sorted(wanted.apps):
        every = [*conditions, *([] if app is None else ["app = ?"])]
        where = f" WHERE {' AND '.join(every)}" if every else ""
        query = f"{select}{where} ORDER BY id DESC LIMIT ?"
        rows += connection.execute(query, (*values, *([] if app is None else [app]), wanted.limit)).fetchall()
    if wanted.apps is not None:
        rows.sort(key=lambda row: str(row[0]), reverse=True)
    return rows[: wanted.limit]


def jobs_of_pool(connection: sqlite3.Connection, pool: str) -> list[JobRecord]:
    """Returns the jobs of a pool, in the order in which they were started."""
    rows = connection.execute(f"SELECT {JOB_COLUMNS} FROM job WHERE pool=? ORDER BY id", (pool,))
    return [_job(row) for row in rows]


def insert_pool(connection: sqlite3.Connection, pool: PoolRecord, jobs: Sequence[JobRecord]) -> list[EventRecord]:
    """Adds a pool with its jobs."""
    connection.execute(f"INSERT INTO pool ({POOL_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)",
                       (pool.id, pool.number, pool.app, pool.owner, pool.submitted, pool.ended))  # fmt: skip
    return [insert_job(connection, one) for one in jobs]


def highest_number(connection: sqlite3.Connection) -> int:
    """Returns the highest number of a pool."""
    return int(connection.execute("SELECT coalesce(max(number), 0) FROM pool").fetchone()[0])


def find_pool(connection: sqlite3.Connection, pool: str) -> tuple[PoolRecord, list[JobRecord]] | None:
    """Returns a pool and its jobs."""
    return _pool(connection, "id=?", pool)


def find_numbered_pool(connection: sqlite3.Connection, number: int) -> tuple[PoolRecord, list[JobRecord]] | None:
    """Returns a pool by its second name."""
    return _pool(connection, "number=?", number)


def _pool(connection: sqlite3.Connection, where: str, value: str | int) -> tuple[PoolRecord, list[JobRecord]] | None:
    row = connection.execute(f"SELECT {POOL_COLUMNS} FROM pool WHERE {where}", (value,)).fetchone()
    if row is None:
        return None
    pool = PoolRecord(*row)
    return pool, jobs_of_pool(connection, pool.id)


def delete_job(connection: sqlite3.Connection, job: str) -> None:
    """Forgets a job; its files are removed by the caller."""
    connection.execute("DELETE FROM job WHERE id=?", (job,))
    connection.execute("DELETE FROM output WHERE job=?", (job,))


# keys of submitters


def find_reference(connection: sqlite3.Connection, owner: str, key: str) -> Reference | None:
    """Returns what this key has led to."""
    row = connection.execute(
        "SELECT request, job, pool FROM idempotency WHERE owner=? AND key=?", (owner, key)
    ).fetchone()
    return None if row is None else Reference(*row)


def insert_reference(connection: sqlite3.Connection, owner: str, key: str, led: Reference, at: float) -> None:
    connection.execute(
        "INSERT INTO idempotency VALUES (?, ?, ?, ?, ?, ?)", (owner, key, led.request, led.job, led.pool, at)
    )


# events


def events_after(connection: sqlite3.Connection, last: int, limit: int) -> list[EventRecord]:
    """Returns the events behind this one, the oldest first."""
    query = f"SELECT {EVENT_COLUMNS} FROM event WHERE id > ? ORDER BY id LIMIT ?"
    return [EventRecord(*row) for row in connection.execute(query, (last, limit))]


def last_event(connection: sqlite3.Connection) -> int:
    """Returns the id of the newest event, 0 without any."""
    return int(connection.execute("SELECT coalesce(max(id), 0) FROM event").fetchone()[0])


def first_event(connection: sqlite3.Connection) -> int | None:
    """Returns the id of the oldest event that is kept."""
    (found,) = connection.execute("SELECT min(id) FROM event").fetchone()
    return None if found is None else int(found)


def _add_event(connection: sqlite3.Connection, job: JobRecord, at: float) -> EventRecord:
    values = (at, job.id, job.pool, job.app, job.state.value, job.exit_status, job.signal, job.worker)
    made = connection.execute(
        "INSERT INTO event (at, job, pool, app, state, exit_status, signal, worker) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        values,
    )
    assert made.lastrowid is not None
    return EventRecord(made.lastrowid, *values)


# rows and values


def _values(job: JobRecord) -> tuple[object, ...]:
    return (
        job.id, job.app, job.owner, job.pool, job.instance, json.dumps(job.args), job.state.value, job.exit_status,
        job.signal, job.reason, job.worker, job.attempts, job.submitted, job.started, job.ended, job.expired,
        json.dumps(job.files),
    )  # fmt: skip


def _job(row: Any) -> JobRecord:
    (id, app, owner, pool, instance, args, state, exit_status, signal, reason, worker, attempts, submitted, started,
     ended, expired, files) = row  # fmt: skip
    return JobRecord(id, app, owner, pool, instance, tuple(json.loads(args)), JobState(state), exit_status, signal,
                     reason, worker, attempts, submitted, started, ended, expired, json.loads(files))  # fmt: skip
