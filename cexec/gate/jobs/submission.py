"""What a request for jobs becomes in the state file, before anything is started.

Contract: `insert_all` adds all jobs of a request, or none if its key has led to something before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cexec.gate.store import job_rows
from cexec.gate.store.job_records import JobRecord, JobState, PoolRecord
from cexec.protocol.datagrams.requirements import instance_text

if TYPE_CHECKING:
    import sqlite3

    from cexec.gate.access.caller import Caller
    from cexec.gate.jobs.job_request import JobRequest
    from cexec.gate.store.job_records import EventRecord


@dataclass(frozen=True, slots=True)
class Submission:
    """What a request has led to: a job, or a pool with its jobs.  `fresh`: it was not there before."""

    fresh: bool
    jobs: list[JobRecord]
    pool: PoolRecord | None = None


def new_record(
    id: str,
    identity: Caller,
    request: JobRequest,
    pool: PoolRecord | None,
    instance: bytes,
    worker: str | None,
    now: float,
) -> JobRecord:
    """Returns a job that waits for a worker; `instance`: the one that it is for, or b""."""
    return JobRecord(
        id=id,
        app=request.app,
        owner=identity.name,
        pool=None if pool is None else pool.id,
        instance=instance_text(instance) if instance else None,
        args=request.args,
        state=JobState.QUEUED,
        exit_status=None,
        signal=None,
        reason=None,
        worker=worker,
        attempts=0,
        submitted=now,
        started=None,
        ended=None,
        expired=None,
        files={},
    )


def insert_all(
    owner: str,
    key: str | None,
    led: job_rows.Reference,
    jobs: list[JobRecord],
    pool: PoolRecord | None,
    now: float,
    connection: sqlite3.Connection,
) -> tuple[job_rows.Reference | None, list[EventRecord]]:
    """Adds the jobs; or returns what the key has led to before, and adds nothing."""
    if key is not None:
        found = job_rows.find_reference(connection, owner, key)
        if found is not None:
            return found, []
        job_rows.insert_reference(connection, owner, key, led, now)
    if pool is not None:
        return None, job_rows.insert_pool(connection, pool, jobs)
    return None, [job_rows.insert_job(connection, job) for job in jobs]
