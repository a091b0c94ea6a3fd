"""Jobs: start them, look at them, wait, and have a say in them.  docs/api.md"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from cexec.gate.http.gate import gate_of, identity_of, note_change, route
from cexec.gate.http.job_bodies import read_job
from cexec.gate.http.patterns import KEY
from cexec.gate.http.queries import Query
from cexec.gate.http.request_bodies import chunks, read_json
from cexec.gate.http.stream_answers import json_answer
from cexec.gate.problem import Problem
from cexec.gate.store.job_records import JobState
from cexec.gate.store.job_rows import Filter
from cexec.system.units import show_count

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from cexec.gate.access.caller import Caller
    from cexec.gate.http.gate import Gate
    from cexec.gate.jobs.submission import Submission
    from cexec.gate.store.job_records import JobRecord

LONGEST_WAIT = 300.0  # seconds (ours)
PAGE, LARGEST_PAGE = 100, 1000
LONGEST_KEY = 255  # characters (ours) of an Idempotency-Key
_KEY = re.compile(KEY)


def job_document(gate: Gate, job: JobRecord) -> dict[str, object]:
    """Returns a job as clients are told it, with the state of its streamed input."""
    live = gate.engine.live.get(job.id)
    streamed = live is not None and live.errand.stdin is not None
    return {**job.document(), "stdin": live.input_document() if live is not None and streamed else None}


async def start(request: Request) -> Response:
    """POST /v1/jobs"""
    gate, identity = gate_of(request), identity_of(request.scope)
    query = Query(request, ["wait"])
    seconds = query.seconds("wait", LONGEST_WAIT)
    key = request.headers.get("idempotency-key")
    if key is not None and not _KEY.fullmatch(key):
        raise Problem(422, f"an Idempotency-Key has 1 to {LONGEST_KEY} printable ASCII characters")
    wanted = await read_job(request, gate.engine.files)
    submission = await gate.engine.submit(identity, wanted, key)
    status = 201 if submission.fresh else 200
    if submission.pool is not None:
        return await _pool_answer(request, gate, identity, submission, seconds, status)
    (job,) = submission.jobs
    if submission.fresh:
        note_change(request.scope, f"job {job.id} of {job.app} started")
    if seconds:
        job = await gate.desk.wait(identity, job.id, seconds)
    return json_answer(job_document(gate, job), status, {"Location": f"/v1/jobs/{job.id}"})


async def _pool_answer(
    request: Request, gate: Gate, identity: Caller, submission: Submission, seconds: float, status: int
) -> Response:
    assert submission.pool is not None
    pool, jobs = submission.pool, submission.jobs
    if submission.fresh:
        note_change(request.scope, f"pool {pool.id} of {pool.app} started with {show_count(len(jobs), 'job')}")
    if seconds:
        pool, jobs = await gate.desk.wait_for_pool(identity, pool.id, seconds)
    return json_answer(pool.document(jobs), status, {"Location": f"/v1/pools/{pool.id}"})


def page_filter(query: Query, identity: Caller) -> Filter:
    """Returns what the parameters of a list say; `Problem` 403 for an application that is not for the token."""
    app = query.text("app")
    apps = identity.applications
    if app is not None:
        identity.require_application(app)
        apps = frozenset({app})
    state = query.text("state")
    if state is not None and state not in {one.value for one in JobState}:
        raise Problem(422, f"the parameter state is one of {', '.join(JobState)}")
    limit = query.number("limit", PAGE, 1, LARGEST_PAGE)
    assert limit is not None
    return Filter(apps, None if state is None else JobState(state), query.text("after"), limit)


async def list_jobs(request: Request) -> Response:
    """GET /v1/jobs"""
    gate, identity = gate_of(request), identity_of(request.scope)
    wanted = page_filter(Query(request, ["state", "app", "limit", "after"]), identity)
    jobs = await gate.desk.list_jobs(identity, wanted)
    more = jobs[-1].id if len(jobs) == wanted.limit else None
    return json_answer({"jobs": [job_document(gate, one) for one in jobs], "next": more})


async def show(request: Request) -> Response:
    """GET /v1/jobs/{id}"""
    gate, identity = gate_of(request), identity_of(request.scope)
    seconds = Query(request, ["wait"]).seconds("wait", LONGEST_WAIT)
    job = await gate.desk.wait(identity, request.path_params["id"], seconds)
    return json_answer(job_document(gate, job))


async def delete(request: Request) -> Response:
    """DELETE /v1/jobs/{id}"""
    gate, identity = gate_of(request), identity_of(request.scope)
    Query(request)
    id = request.path_params["id"]
    await gate.desk.delete(identity, id)
    note_change(request.scope, f"job {id} deleted")
    return json_answer({}, 200)


async def cancel(request: Request) -> Response:
    """POST /v1/jobs/{id}/cancel"""
    gate, identity = gate_of(request), identity_of(request.scope)
    Query(request)
    job = await gate.desk.cancel(identity, request.path_params["id"])
    note_change(request.scope, f"job {job.id} cancelled")
    return json_answer(job_document(gate, job))


async def signal(request: Request) -> Response:
    """POST /v1/jobs/{id}/signal"""
    gate, identity = gate_of(request), identity_of(request.scope)
    Query(request)
    value: Any = await read_json(request)
    if not isinstance(value, dict) or value.keys() != {"signal"} or not isinstance(value["signal"], str):
        raise Problem(422, 'the body has to be {"signal": NAME}')
    if value["signal"] != value["signal"].upper():  # as the OpenAPI document has them
        raise Problem(422, "the name of a signal is in capital letters")
    job = await gate.desk.signal(identity, request.path_params["id"], value["signal"])
    note_change(request.scope, f"job {job.id} sent {value['signal']}")
    return json_answer(job_document(gate, job))


async def write_stdin(request: Request) -> Response:
    """PUT /v1/jobs/{id}/stdin"""
    gate, identity = gate_of(request), identity_of(request.scope)
    offset = Query(request, ["offset"]).number("offset", None, 0, 1 << 62)
    live = await gate.desk.running(identity, request.path_params["id"])
    with live.take_input(offset or 0) as writer:
        async for chunk in chunks(request.receive):
            await writer.write(chunk)
        writer.close()
    note_change(request.scope, f"job {live.record.id} was given its input")
    return json_answer(job_document(gate, live.record))


ROUTES = [
    route("/v1/jobs", GET=list_jobs, POST=start),
    route("/v1/jobs/{id}", GET=show, DELETE=delete),
    route("/v1/jobs/{id}/cancel", POST=cancel),
    route("/v1/jobs/{id}/signal", POST=signal),
    route("/v1/jobs/{id}/stdin", PUT=write_stdin),
]
