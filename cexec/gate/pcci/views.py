"""What the paths of PCCI answer: pools, jobs and workers in the words of its clients.

Contract: the functions return values for JSON.  A job's `status` is null while it runs, then the exit status as a shell
has it (128 and the signal's number), or 1 if there is none; a pool's is null, 0 if all jobs have 0, else 1.  `result`
is the standard output without line ends, followed by the standard error; null until the first byte.  `pid` is always
null.  Times are milliseconds.  Pure.
"""

from __future__ import annotations

import codecs
import shlex
from signal import Signals
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cexec.gate.store.job_records import JobRecord, PoolRecord
    from cexec.gate.store.pcci_rows import PcciPool

KILLED = 128  # added to a signal's number, as shells do
FAILED = 1  # the status of a job without an exit status
_NUMBERS = {one.name: one.value for one in Signals}
_LINE_ENDS = str.maketrans("", "", "\r\n")


def show_pool(pool: PoolRecord, jobs: list[dict[str, object]]) -> dict[str, object]:
    """`jobs` are those of `show_job`."""
    status = None
    if pool.ended is not None:
        status = int(any(job["status"] != 0 for job in jobs))
    cached_at = None if pool.ended is None else _milliseconds(pool.ended)
    return {"id": pool.number, "status": status, "jobs": jobs, "cached_at": cached_at}


def show_job(
    pool: PoolRecord, job: JobRecord, known: PcciPool | None, output: bytes, errors: bytes
) -> dict[str, object]:
    """`known`: what was remembered of the pool; `output`, `errors`: what there is of both streams."""
    result = f"{_text(output, job.over).translate(_LINE_ENDS)}{_text(errors, job.over)}"
    if job.over and job.exit_status is None and job.reason:
        result = f"{result} {job.reason}".lstrip()
    return {
        "code": "JOB",
        "pool": str(pool.number),
        "cmd": _command(job, known),
        "pid": None,
        "result": result if result or job.over else None,
        "status": _status(job),
        "worker_id": _worker_id(job, known),
        "time_to_calc": None if job.ended is None else max(0, _milliseconds(job.ended) - pool.number),
    }


def show_worker(name: str, address: str, port: int) -> dict[str, object]:
    """`port`: the UDP port at which workers hear announcements."""
    return {"id": name, "socket": {"_peername": {"address": address, "port": port}}}


def _status(job: JobRecord) -> int | None:
    if not job.over:
        return None
    if job.exit_status is not None:
        return job.exit_status
    if job.signal is not None and job.signal in _NUMBERS:
        return KILLED + _NUMBERS[job.signal]
    return FAILED


def _command(job: JobRecord, known: PcciPool | None) -> str:
    return shlex.join(job.args) if known is None else known.command


def _worker_id(job: JobRecord, known: PcciPool | None) -> str | None:
    if known is not None and job.instance in known.workers:
        return known.workers[job.instance]
    return None if job.worker is None else job.worker.rpartition("@")[0]


def _text(data: bytes, complete: bool) -> str:
    """The text so far: the bytes of a letter that has not come as a whole are left out."""
    return codecs.getincrementaldecoder("utf-8")("replace").decode(data, complete)


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
