"""What clients of `cgate` send behind their tokens, and what processes say on the control socket of a `cmap`."""

from __future__ import annotations

from cexec.cmap.control import control_messages as m
from cexec.errors import ProtocolError
from cexec.gate.http.job_bodies import parse_job
from cexec.gate.http.output_routes import parse_range
from cexec.gate.jobs.job_request import Workers
from cexec.gate.json_text import parse_json
from cexec.gate.problem import Problem
from tests.fuzz.target import pieces, target, words

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


@target(ProtocolError)
def control_request(data: bytes) -> None:
    """A request to a running `cmap`, in pieces."""
    line = _line(data, m.REQUEST_LIMIT)
    assert m.encode_request(m.parse_request(line)) == line + m.NEWLINE


@target(ProtocolError)
def control_reply(data: bytes) -> None:
    """The reply of a running `cmap`, in pieces."""
    line = _line(data, m.REPLY_LIMIT)
    assert m.encode_reply(m.parse_reply(line)) == line + m.NEWLINE


def _line(data: bytes, limit: int) -> bytes:
    collected = m.ControlLine(limit)
    for part in pieces(data):
        if (line := collected.receive_data(part)) is not None:
            assert len(line) < limit and m.NEWLINE not in line
            return line
    raise ProtocolError("the line has no end")
