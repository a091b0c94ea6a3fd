"""The OpenAPI document of `/v1`, which the tests compare with what the code does.

Contract: `document` returns it.  Streams of events are declared as `text/event-stream`, so that a tester does not wait
for their end.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import cexec
from cexec.cmap.watch.task_map import MOST_TASKS
from cexec.gate.access.credential import CHALLENGE
from cexec.gate.http.job_bodies import LEAST_TIME_LIMIT, LONGEST_TIME_LIMIT
from cexec.gate.http.patterns import FETCHED_NAME, KEY, NEED, PAIR, TEXT
from cexec.gate.http.queries import NO, YES
from cexec.gate.http.schemas import SCHEMAS, Schema, reference
from cexec.gate.problem import CONTENT_TYPE
from cexec.gate.runs.run_desk import MOST_MAPPED
from cexec.gate.store.job_records import JobState

_OCTETS = "application/octet-stream"
_PROBLEM = {CONTENT_TYPE: {"schema": reference("Problem")}}
_WORDS = {
    400: "what has come cannot be read", 401: "no token, or one that is not valid", 403: "the token does not allow it",
    404: "there is no such thing", 405: "not with this method", 408: "the body came too slowly",
    409: "too early or too late", 410: "it is not kept any more; the detail says when it was removed",
    413: "the body is too long, or some of its members together", 415: "another kind of body", 416: "behind the end",
    421: "Host is no name of this server (for browsers)", 422: "a value is not right",
    429: "too many requests or jobs of this token", 431: "the header fields are too long",
    500: "cgate has failed", 503: "no worker, or cgate is being stopped", 507: "there is no room for it",
}  # fmt: skip
_USUAL = (400, 401, 403, 405, 421, 429, 431, 500, 503)


def _header(words: str, *, required: bool = True, **schema: Any) -> Schema:
    return {"description": words, "required": required, "schema": {"type": "string", **schema}}


_HEADERS: dict[int, Schema] = {
    401: {"WWW-Authenticate": _header("what is needed", const=CHALLENGE["WWW-Authenticate"])},
    405: {"Allow": _header("the methods of this path")},
    416: {"Content-Range": _header("how many bytes there are", pattern=r"^bytes \*/[0-9]+$")},
    429: {"Retry-After": _header("seconds", pattern="^[0-9]+$")},
}
_LOCATION = {"Location": _header("the path of the job, or pool", pattern="^/v1/(jobs|pools)/[0-9a-f-]{36}$")}
_STATUS = {
    "Cexec-State": _header("of the job", enum=[state.value for state in JobState]),
    "Cexec-Exit-Status": _header("of the program, if it has exited", required=False, pattern="^[0-9]+$"),
    "Cexec-Signal": _header("that has ended the program", required=False),
}
_RANGED = {"Content-Range": _header("the bytes", pattern=r"^bytes [0-9]+-[0-9]+/([0-9]+|\*)$")}


def _answers(success: int, schema: str | None, *problems: int, **more: Any) -> dict[str, Any]:
    content = None if schema is None else {"application/json": {"schema": reference(schema)}}
    good = {"description": "done", **({} if content is None else {"content": content}), **more}
    answers = {str(success): good}
    for status in sorted({*_USUAL, *problems}):
        told = {"headers": _HEADERS[status]} if status in _HEADERS else {}
        answers[str(status)] = {"description": _WORDS[status], "content": _PROBLEM, **told}
    return answers


def _query(name: str, words: str, **schema: Any) -> Schema:
    return {"name": name, "in": "query", "description": words, "schema": schema}


def _path(name: str, **schema: Any) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1, **schema}}


def _body(schema: str, *, required: bool = True) -> dict[str, Any]:
    return {"required": required, "content": {"application/json": {"schema": reference(schema)}}}


_ID = _path("id", pattern="^[0-9a-f-]{36}$")
_WAIT = _query("wait", "seconds to wait for the end", type="number", minimum=0, maximum=300)
_APP = _query("app", "of this application only", type="string", minLength=1, pattern=r"^[^\u0000]+$")
_LIMIT = _query("limit", "rows of the page", type="integer", minimum=1, maximum=1000)
_AFTER = _query("after", "the id behind which the page begins: next of the page before", type="string", minLength=1,
                pattern=r"^[^\u0000]+$")  # fmt: skip
_STATE = _query("state", "in this state only", enum=[state.value for state in JobState])
_RANGE = {
    "name": "Range",
    "in": "header",
    "schema": {"type": "string"},
    "examples": {"some": {"value": "bytes=0-3"}},
    "description": "bytes=A-B, bytes=A- or bytes=-N; what is none of these is not obeyed, as RFC 9110 says",
}
_KEY = {"name": "Idempotency-Key", "in": "header", "description": "same key and same request: the same job",
        "schema": {"type": "string", "pattern": KEY}}  # fmt: skip


_PIPE = {
    "Cexec-Job": _header("the id of the job", format="uuid"),
    **_LOCATION,
    **{name: {**header, "required": False} for name, header in _STATUS.items()},
}
_JOB_BODY = {
    "required": True,
    "content": {
        "application/json": {"schema": reference("JobRequest")},
        "multipart/form-data": {"schema": reference("JobForm"), "encoding": {
            "job": {"contentType": "application/json"},
            "stdin": {"contentType": _OCTETS},
            "files": {"contentType": _OCTETS},
        }},
    },
}  # fmt: skip


def _output(name: str) -> dict[str, Any]:
    octets = {"content": {_OCTETS: {"schema": {"type": "string", "format": "binary"}}}}
    answers = _answers(200, None, 404, 410, 416, 422, headers=_STATUS, **octets)
    answers["206"] = {"description": "the range that was asked for", "headers": _STATUS | _RANGED, **octets}
    follow = _query("follow", "1: go on until the job is over", enum=sorted(NO | YES))
    offset = _query("offset", "the first byte", type="integer", minimum=0, maximum=1 << 62)
    return {"get": {"operationId": f"get{name.capitalize()}", "summary": f"the {name} of a job",
                    "parameters": [_ID, follow, offset, _RANGE], "responses": answers}}  # fmt: skip


def _operation(id: str, summary: str, responses: dict[str, Any], *parameters: Schema, **more: Any) -> dict[str, Any]:
    return {"operationId": id, "summary": summary, "parameters": list(parameters), "responses": responses, **more}


def _job_paths() -> dict[str, Any]:
    pool_or_job = {"content": {"application/json": {"schema": {"anyOf": [reference("Job"), reference("Pool")]}}}}
    started = _answers(201, None, 404, 408, 409, 413, 415, 422, 507, headers=_LOCATION, **pool_or_job)
    started["200"] = {**started["201"], "description": "it was there before, by its Idempotency-Key"}
    octets = {"schema": {"type": "string", "format": "binary"}}
    part = {"description": "the range", "headers": _RANGED, "content": {_OCTETS: octets}}
    return {
        "/v1/jobs": {
            "get": _operation("listJobs", "jobs, the newest first", _answers(200, "Jobs", 422), _STATE, _APP, _LIMIT,
                              _AFTER),
            "post": _operation("startJob", "start a job, or a pool", started, _WAIT, _KEY,
                               requestBody=_JOB_BODY),
        },
        "/v1/jobs/{id}": {
            "get": _operation("getJob", "a job", _answers(200, "Job", 404, 422), _ID, _WAIT),
            "delete": _operation("deleteJob", "forget an ended job", _answers(200, "Nothing", 404, 409, 422), _ID),
        },
        "/v1/jobs/{id}/cancel": {
            "post": _operation("cancelJob", "end a job", _answers(200, "Job", 404, 409, 422), _ID),
        },
        "/v1/jobs/{id}/signal": {
            "post": _operation("signalJob", "send a signal", _answers(200, "Job", 404, 408, 409, 413, 415, 422), _ID,
                               requestBody=_body("Signal")),
        },
        "/v1/jobs/{id}/stdin": {
            "put": _operation("writeStdin", "the input of a job that was started with a stream",
                              _answers(200, "Job", 404, 409, 422), _ID,
                              _query("offset", "the first byte", type="integer", minimum=0, maximum=1 << 62),
                              requestBody={"required": False, "content": {_OCTETS: octets}}),
        },
        "/v1/jobs/{id}/stdout": _output("stdout"),
        "/v1/jobs/{id}/stderr": _output("stderr"),
        "/v1/jobs/{id}/files/{name}": {
            "get": _operation("getFile", "a file that a job has brought back",
                              _answers(200, None, 404, 409, 410, 416, 422, content={_OCTETS: octets}) | {"206": part},
                              _ID, _path("name", pattern=FETCHED_NAME), _RANGE),
        },
        "/v1/apps/{app}/run": {
            "post": _operation(
                "run", "a pipe: the body is the input, the answer is the output; cut off if the job fails",
                _answers(200, None, 404, 409, 413, 422, 507, content={_OCTETS: octets}, headers=_PIPE),
                _path("app", pattern=r"^[^/\u0000]+$"),
                _query("arg", "an argument; may come again", type="array", items={"type": "string", "pattern": TEXT}),
                _query("env", "NAME=VALUE; may come again", type="array",
                       items={"type": "string", "pattern": PAIR, "minLength": 2}),
                _query("need", "NAME or NAME=VALUE; may come again", type="array",
                       items={"type": "string", "pattern": NEED, "maxLength": 255}),
                _query("time_limit", "seconds", type="number", minimum=LEAST_TIME_LIMIT, maximum=LONGEST_TIME_LIMIT),
                requestBody={"required": False, "content": {_OCTETS: octets}},
            ),
        },
    }  # fmt: skip


def _run_paths() -> dict[str, Any]:
    run_id = _path("id", pattern="^[0-9a-f]{16}$")

    def steered(action: str, summary: str, *problems: int, **more: Any) -> dict[str, Any]:
        return {"post": _operation(action, summary, _answers(200, "Run", 404, 409, 422, *problems), run_id, **more)}

    def tasks(name: str, words: str, least: int, most: int = MOST_TASKS) -> Schema:
        return _query(name, words, type="integer", minimum=least, maximum=most)

    return {
        "/v1/runs": {"get": _operation("listRuns", "runs of cmap, those whose journals changed last first",
                                       _answers(200, "Runs", 404, 422), _LIMIT,
                                       _query("after", "the id behind which the page begins", type="string",
                                              pattern="^[0-9a-f]{16}$"))},
        "/v1/runs/{id}": {"get": _operation("getRun", "a run, and which worker did what",
                                            _answers(200, "RunDetails", 404, 422), run_id)},
        "/v1/runs/{id}/map": {"get": _operation("getRunMap", "the states of its tasks",
                                                _answers(200, "TaskMap", 404, 409, 422), run_id,
                                                tasks("first", "the first task", 1),
                                                tasks("count", "so many tasks; as many as there are without it", 1),
                                                tasks("cells", "at most so many cells for them", 1, MOST_MAPPED))},
        "/v1/runs/{id}/failed": {"get": _operation("listFailedTasks", "its tasks that have failed",
                                                   _answers(200, "FailedTasks", 404, 409, 422), run_id, _LIMIT,
                                                   tasks("after", "the task behind which the page begins", 0))},
        "/v1/runs/{id}/pause": steered("pauseRun", "let no further task of it begin"),
        "/v1/runs/{id}/continue": steered("continueRun", "let its tasks begin again"),
        "/v1/runs/{id}/weight": steered("setRunWeight", "give it another share of the turns", 408, 413, 415,
                                        requestBody=_body("Weight")),
    }  # fmt: skip


def _other_paths() -> dict[str, Any]:
    events = {"text/event-stream": {"schema": {"type": "string"}}}
    plain = {"text/plain": {"schema": {"type": "string"}}}
    number = _query("last_event_id", "as the header Last-Event-ID", type="integer", minimum=0, maximum=1 << 62)
    return {
        "/v1/apps": {"get": _operation("listApps", "the applications", _answers(200, "Apps", 422))},
        "/v1/workers": {"get": _operation("listWorkers", "workers that are there", _answers(200, "Workers", 404, 422),
                                          _APP)},
        "/v1/pools": {"get": _operation("listPools", "pools, the newest first", _answers(200, "Pools", 422), _APP,
                                        _LIMIT, _AFTER)},
        "/v1/pools/{id}": {"get": _operation("getPool", "a pool and its jobs", _answers(200, "Pool", 404, 422), _ID,
                                             _WAIT)},
        "/v1/pools/{id}/kill": {"post": _operation("killPool", "end jobs of a pool, at some workers or at all",
                                                   _answers(200, "Pool", 404, 408, 413, 415, 422), _ID,
                                                   requestBody=_body("Kill", required=False))},
        "/v1/events": {"get": _operation("events", "changes of states, as server-sent events",
                                         _answers(200, None, 404, 422, content=events), _APP,
                                         _query("job", "of this job only", type="string", minLength=1),
                                         _query("pool", "of this pool only", type="string", minLength=1), number)},
        "/v1/openapi.json": {"get": _operation("openapi", "this document", _answers(200, "Nothing", 422))},
        "/metrics": {"get": _operation("metrics", "for Prometheus", _answers(200, None, 422, content=plain))},
        "/healthz": {"get": _operation("health", "answers as long as cgate turns; needs no token",
                                       {status: answer for status, answer in _answers(200, "Health").items()
                                        if status in ("200", "400", "405", "431")}, security=[])},
    }  # fmt: skip


@cache
def document() -> dict[str, Any]:
    """Returns the document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "cgate",
            "version": cexec.__version__,
            "license": {"name": "MIT"},
            "description": "A cexec cluster over HTTP.  The WebSocket /v1/exec is described in docs/api.md.",
        },
        "paths": _job_paths() | _run_paths() | _other_paths(),
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }
