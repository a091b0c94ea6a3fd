"""What jobs have written: outputs, from any byte on, live too, and the files that they have brought back.

Contract: an answer whose length is known has it.  A followed output ends as an answer only if it is whole: that of a
job whose program was not run to its end is cut off.  docs/api.md
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from starlette.routing import Route

from cexec.gate.http.gate import gate_of, identity_of
from cexec.gate.http.queries import Query
from cexec.gate.http.stream_answers import CutOff, StreamAnswer
from cexec.gate.problem import Problem
from cexec.gate.store.output_log import behind_the_end, check_kept

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request
    from starlette.responses import Response

    from cexec.gate.access.caller import Caller
    from cexec.gate.http.gate import Gate
    from cexec.gate.jobs.desk import Output
    from cexec.gate.store.job_records import JobRecord

CHUNK = 64 * 1024  # bytes (ours) of an output that are in memory for one reader
STREAMS = {"stdout": 1, "stderr": 2}
_RANGE = re.compile("bytes=([0-9]{0,40})-([0-9]{0,40})", re.IGNORECASE)  # the unit by RFC 9110, section 14.1


def status_headers(job: JobRecord) -> dict[str, str]:
    """Returns what headers and trailers tell of a job."""
    headers = {"Cexec-State": job.state.value}
    if job.exit_status is not None:
        headers["Cexec-Exit-Status"] = str(job.exit_status)
    if job.signal is not None:
        headers["Cexec-Signal"] = job.signal
    return headers


def is_whole(job: JobRecord) -> bool:
    """Returns True if the program has ended, so that its outputs are all that it has written."""
    return job.exit_status is not None or job.signal is not None


def parse_range(text: str | None, size: int) -> tuple[int, int] | None:
    """Returns the first byte and the end of the range that is asked for; None for all.

    `Problem` 416 for a range behind the end.  What is no range of bytes, or several, is not obeyed (RFC 9110).
    """
    found = None if text is None else _RANGE.fullmatch(text.strip())
    if found is None or found.group(1) == found.group(2) == "":
        return None
    first, last = found.groups()
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < start:
            return None
    if start >= size or start >= end:
        raise Problem(416, behind_the_end(size), headers={"Content-Range": f"bytes */{size}"})
    return start, end


async def show_output(request: Request) -> Response:
    """GET /v1/jobs/{id}/stdout and stderr"""
    gate, identity = gate_of(request), identity_of(request.scope)
    query = Query(request, ["follow", "offset"])
    id, stream = request.path_params["id"], STREAMS[request.scope["path"].rpartition("/")[2]]
    offset = query.number("offset", None, 0, 1 << 62)
    output = await gate.desk.output(identity, id, stream)
    ranged = request.headers.get("range")
    if query.flag("follow"):
        start = offset if offset is not None else _open_range(ranged)
        return await _follow(gate, identity, id, stream, start)
    return await _snapshot(await gate.engine.job(identity, id), output, offset, ranged)


def _open_range(text: str | None) -> int:
    """Returns the first byte of `bytes=N-`, which is all that a follower can ask for."""
    found = None if text is None else _RANGE.fullmatch(text.strip())
    return int(found.group(1)) if found is not None and found.group(1) and not found.group(2) else 0


async def _snapshot(job: JobRecord, output: Output, offset: int | None, ranged: str | None) -> Response:
    """What there is now."""
    end = output.end
    headers = {"Accept-Ranges": "bytes", "Cexec-Complete": str(job.over and is_whole(job)).lower(),
               **status_headers(job)}  # fmt: skip
    chosen = None
    if offset is not None:
        if offset > end:
            raise Problem(416, behind_the_end(end), headers={"Content-Range": f"bytes */{end}"})
        start = offset
    else:
        chosen = parse_range(ranged, end)
        start = 0 if chosen is None else chosen[0]
    check_kept(start, output.began)
    stop = end if chosen is None else chosen[1]
    if chosen is not None:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{end if output.ended else '*'}"
    source = _read(output, start, stop)
    return StreamAnswer(source, status=200 if chosen is None else 206, headers=headers, size=stop - start)


async def _read(output: Output, start: int, stop: int) -> AsyncIterator[bytes]:
    while start < stop:
        chunk = output.read(start, min(CHUNK, stop - start))
        if not chunk:
            raise CutOff("the output was removed")
        start += len(chunk)
        yield chunk


async def _follow(gate: Gate, identity: Caller, id: str, stream: int, start: int) -> Response:
    output = await gate.desk.output(identity, id, stream)
    check_kept(start, output.began)

    async def trailers() -> dict[str, str]:
        return status_headers(await gate.engine.job(identity, id))

    job = await gate.engine.job(identity, id)
    if start > output.end and output.ended and job.over:
        raise Problem(416, behind_the_end(output.end), headers={"Content-Range": f"bytes */{output.end}"})
    return StreamAnswer(follow(gate, identity, id, stream, start), headers=status_headers(job), trailers=trailers)


async def follow(gate: Gate, identity: Caller, id: str, stream: int, start: int) -> AsyncIterator[bytes]:
    """Yields an output from `start` on as it comes, until the job is over; raises `CutOff` if it is not whole."""
    while True:
        live = gate.engine.live.get(id)
        output = live.outputs[stream] if live is not None else await gate.desk.output(identity, id, stream)
        try:
            chunk = output.read(start, CHUNK)
        except Problem as problem:
            raise CutOff(problem.detail) from None  # removed meanwhile
        if chunk:
            start += len(chunk)
            yield chunk
        elif not output.ended:
            await output.wait(start)
        elif live is not None and not live.record.over:
            # The program has closed this output and goes on; or the worker was lost, and another attempt begins.
            await live.changed()
        else:
            break
    if not is_whole(await gate.engine.job(identity, id)):
        raise CutOff("the job was not run to its end")
    if start > output.end:
        raise CutOff(behind_the_end(output.end))


async def show_file(request: Request) -> Response:
    """GET /v1/jobs/{id}/files/NAME"""
    gate, identity = gate_of(request), identity_of(request.scope)
    Query(request)
    path = await gate.desk.file(identity, request.path_params["id"], request.path_params["name"])
    try:
        size = os.path.getsize(path)
    except OSError:
        raise Problem(410, "this file was removed a moment ago") from None
    chosen = parse_range(request.headers.get("range"), size)
    start, stop = chosen or (0, size)
    headers = {"Accept-Ranges": "bytes"}
    if chosen is not None:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    status = 200 if chosen is None else 206
    return StreamAnswer(_read_file(path, start, stop), status=status, headers=headers, size=stop - start)


async def _read_file(path: str, start: int, stop: int) -> AsyncIterator[bytes]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while start < stop:
            chunk = os.pread(fd, min(CHUNK, stop - start), start)
            if not chunk:
                raise CutOff("the file has become shorter")
            start += len(chunk)
            yield chunk
    finally:
        os.close(fd)


ROUTES = [
    Route("/v1/jobs/{id}/files/{name:path}", show_file, methods=["GET"]),
    Route("/v1/jobs/{id}/stdout", show_output, methods=["GET"]),
    Route("/v1/jobs/{id}/stderr", show_output, methods=["GET"]),
]
