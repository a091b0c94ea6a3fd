"""Jobs and workers as messages, and messages as requests for jobs.

Contract: `request_of` raises `FieldProblems` for members that no job can have.  What the cluster lacks is found by
`Engine.submit`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from cexec.errors import UsageError
from cexec.gate.jobs.job_request import JobRequest, Workers
from cexec.gate.rpc.status_codes import FieldProblems
from cexec.gate.rpc.wire import cexec_pb2 as wire
from cexec.gate.store.job_records import JobState
from cexec.protocol.datagrams.requirements import instance_text, plain_instance

if TYPE_CHECKING:
    from cexec.gate.store.job_records import JobRecord
    from cexec.python.membership import ClusterWorker

STATES = {
    JobState.QUEUED: wire.JOB_STATE_QUEUED,
    JobState.RUNNING: wire.JOB_STATE_RUNNING,
    JobState.SUCCEEDED: wire.JOB_STATE_SUCCEEDED,
    JobState.FAILED: wire.JOB_STATE_FAILED,
    JobState.CANCELLED: wire.JOB_STATE_CANCELLED,
    JobState.INTERRUPTED: wire.JOB_STATE_INTERRUPTED,
}
STREAMS = {wire.STREAM_UNSPECIFIED: 1, wire.STREAM_STDOUT: 1, wire.STREAM_STDERR: 2}
GREATEST_WEIGHT = 1000  # (ours) as over HTTP
LONGEST_TIME_LIMIT = 10 * 365 * 86400  # seconds (ours) as over HTTP


def job_message(job: JobRecord) -> wire.Job:
    """Returns a job as callers are told it."""
    message = wire.Job(
        id=job.id,
        app=job.app,
        state=STATES[job.state],
        args=job.args,
        signal=job.signal or "",
        reason=job.reason or "",
        worker=job.worker or "",
        worker_id=job.instance or "",
        attempts=job.attempts,
        submitted=_time(job.submitted),
        started=_time(job.started),
        ended=_time(job.ended),
        owner=job.owner,
        pool=job.pool or "",
    )
    if job.exit_status is not None:
        message.exit_status = job.exit_status
    return message


def worker_message(app: str, name: str, worker: ClusterWorker, now: float) -> wire.Worker:
    """Returns a worker as callers are told it; `name` is one that no other worker of the application has."""
    return wire.Worker(
        worker_id=instance_text(worker.instance),
        app=app,
        name=name,
        address=worker.address,
        host=worker.host,
        slots=worker.slots,
        running=worker.running,
        waiting=worker.waiting,
        load=round(worker.load, 3),
        speed=round(worker.speed, 3),
        labels=worker.labels,
        attributes=worker.attributes,
        health=worker.health,
        version=worker.version,
        uptime=Duration(seconds=worker.uptime),
        since=_time(round(now - worker.uptime)),
    )


def request_of(message: wire.StartJobRequest, app: str, *, streamed: bool = False) -> JobRequest:
    """Returns what is asked for.  `app`: if the message names none; `streamed`: standard input comes later."""
    wrong: dict[str, str] = {}
    workers: Workers | tuple[str, ...] = Workers.ANY
    if message.worker_id:
        try:
            workers = (plain_instance(message.worker_id),)
        except UsageError:
            wrong["worker_id"] = "is no UUID; ListWorkers tells those of the workers"
    words = [word for word in (message.command, message.path) if word] + list(message.args)
    if message.path and not message.command:
        wrong["command"] = "is empty, but there is a path that it is to run"
    if any("\0" in word for word in words):
        wrong["args"] = "contain a NUL"
    if message.weight > GREATEST_WEIGHT:
        wrong["weight"] = f"is at most {GREATEST_WEIGHT}"
    limit = _seconds(message.time_limit) if message.HasField("time_limit") else None
    if limit is not None and not 0 < limit <= LONGEST_TIME_LIMIT:
        wrong["time_limit"] = "is more than nothing, and at most ten years"
    if not (message.app or app):
        wrong["app"] = "is empty, and there is more than one application"
    if wrong:
        raise FieldProblems(wrong)
    return JobRequest(
        app=message.app or app,
        stdin=None if streamed else message.stdin,
        args=tuple(words),
        env=dict(message.environment),
        needs=tuple(f"{name}={value}" if value else name for name, value in sorted(message.needs.items())),
        weight=message.weight or 1,
        time_limit=limit,
        workers=workers,
    )


def state_of(state: wire.JobState) -> JobState | None:
    """Returns the state that jobs are listed by, None for all; `FieldProblems` for one that does not exist."""
    if state == wire.JOB_STATE_UNSPECIFIED:
        return None
    for one, number in STATES.items():
        if number == state:
            return one
    raise FieldProblems({"state": "is no state of a job"})


def seconds_of(duration: Duration, most: float) -> float:
    """Returns a time to wait, from 0 to `most` seconds."""
    return min(max(0.0, _seconds(duration)), most)


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9


def _time(seconds: float | None) -> Timestamp | None:
    if seconds is None:
        return None
    whole, part = divmod(round(seconds * 1000), 1000)
    return Timestamp(seconds=whole, nanos=part * 1_000_000)
