"""What clients of `cgate` send behind their tokens: requests for jobs, and ranges of outputs."""

from __future__ import annotations

from cexec.gate.http.job_bodies import parse_job
from cexec.gate.http.output_routes import parse_range
from cexec.gate.http.request_bodies import parse_json
from cexec.gate.jobs.job_request import Workers
from cexec.gate.problem import Problem
from tests.fuzz.target import target, words

SIZE = 1000  # bytes of the output


@target(Problem)
def job_request(data: bytes) -> None:
    """The body of POST /v1/jobs."""
    job = parse_job(parse_json(data))
    assert job.app and len(job.digest()) == 32 and job.digest() == parse_job(parse_json(data)).digest()
    for text in (job.app, *job.args, *job.env, *job.env.values(), *job.fetch, *job.files):
        assert "\0" not in text
        text.encode()
    assert job.stdin is not None or job.workers is Workers.ANY
    assert job.time_limit is None or job.time_limit > 0


@target(Problem)
def byte_range(data: bytes) -> None:
    """The header Range."""
    found = parse_range(words(data), SIZE)
    assert found is None or 0 <= found[0] < found[1] <= SIZE
