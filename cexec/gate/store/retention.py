"""What is removed, and when; and what is made of the jobs that a killed `cgate` has left.

Contract: `expire` removes the outputs of jobs that ended `retention` seconds ago, or whose pool did, then records after
RECORDS seconds, events after EVENTS and keys of submitters after KEYS; a few at a time, so that nobody waits for it.
`recover` is called before anything else: jobs that were not over become interrupted, their outputs are what has
reached the disk, and files that belong to nothing are removed.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from cexec.gate.store.job_records import OVER, JobState
from cexec.gate.store.job_rows import insert_output
from cexec.system.call_threads import in_thread

if TYPE_CHECKING:
    from cexec.gate.store.database import Database
    from cexec.gate.store.output_files import OutputFiles

RETENTION = 300.0  # seconds that outputs are kept, as in PCCI; --retention
DAY = 86400.0
RECORDS = 30 * DAY  # (ours)
EVENTS = DAY  # (ours): as long as a client that was away can go on with `Last-Event-ID`
KEYS = DAY  # (ours): as long as an `Idempotency-Key` is known
AT_ONCE = 500  # rows (ours) of one change
_KILLED = "cgate was killed while the job was queued or ran; nothing of it goes on at a worker"
_STATES = ", ".join(f"'{state.value}'" for state in sorted(OVER))


def recover(database: Database, files: OutputFiles, now: float) -> int:
    """Returns how many jobs were interrupted."""
    found = files.found()

    def change(connection: sqlite3.Connection) -> int:
        left = connection.execute(f"SELECT id, pool, app, worker FROM job WHERE state NOT IN ({_STATES})").fetchall()
        for job, pool, app, worker in left:
            connection.execute("UPDATE job SET state=?, ended=?, reason=? WHERE id=?",
                               (JobState.INTERRUPTED.value, now, _KILLED, job))  # fmt: skip
            connection.execute("INSERT INTO event (at, job, pool, app, state, worker) VALUES (?, ?, ?, ?, ?, ?)",
                               (now, job, pool, app, JobState.INTERRUPTED.value, worker))  # fmt: skip
            kept = files.segments(found.get(job, ()))
            for stream in (1, 2):
                began, end = kept.get(stream, (0, 0))
                insert_output(connection, job, stream, began, end, None if stream in kept else b"")
        connection.execute("UPDATE pool SET ended=? WHERE ended IS NULL", (now,))
        return len(left)

    interrupted = database.write_now(change)
    for job, names in found.items():
        known = database.read_now(
            lambda connection, job=job: connection.execute(  # type: ignore[misc]
                "SELECT expired FROM job WHERE id=?", (job,)
            ).fetchone()
        )
        if known is None or known[0] is not None:
            files.remove(names)
        else:
            files.remove(name for name in names if name.startswith(f"{job}.in."))
    return interrupted


async def expire(database: Database, files: OutputFiles, now: float, retention: float) -> bool:
    """Removes what is due; returns True if more may be."""

    def outputs(connection: sqlite3.Connection) -> list[str]:
        rows = connection.execute(
            "SELECT job.id FROM job LEFT JOIN pool ON pool.id = job.pool WHERE job.expired IS NULL "
            "AND job.ended IS NOT NULL AND job.ended <= ? AND (job.pool IS NULL OR pool.ended <= ?) "
            "ORDER BY job.ended LIMIT ?", (now - retention, now - retention, AT_ONCE)
        )  # fmt: skip
        jobs = [str(job) for (job,) in rows]
        connection.executemany("UPDATE job SET expired=? WHERE id=?", [(now, job) for job in jobs])
        connection.executemany("DELETE FROM output WHERE job=?", [(job,) for job in jobs])
        return jobs

    def records(connection: sqlite3.Connection) -> int:
        deleted = [
            connection.execute(f"DELETE FROM {table} WHERE id IN ({query})", (now - age, AT_ONCE)).rowcount
            for table, query, age in (
                ("job", "SELECT id FROM job WHERE ended <= ? ORDER BY ended LIMIT ?", RECORDS),
                ("pool", "SELECT id FROM pool WHERE ended <= ? ORDER BY ended LIMIT ?", RECORDS),
                # their ids are in the order of time
                ("event", "SELECT id FROM (SELECT id, at FROM event ORDER BY id LIMIT ?2) WHERE at <= ?1", EVENTS),
            )
        ]
        connection.execute("DELETE FROM idempotency WHERE made <= ?", (now - KEYS,))
        return max(deleted)

    expired = await database.write(outputs)
    if expired:
        await in_thread(_remove, files, expired)
    return max(len(expired), await database.write(records)) >= AT_ONCE


def _remove(files: OutputFiles, jobs: list[str]) -> None:
    found = files.found()
    files.remove(name for job in jobs for name in found.get(job, ()))
