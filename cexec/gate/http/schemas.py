"""The values that clients send and are told, as JSON schemas of the OpenAPI document."""

from __future__ import annotations

from typing import Any, TypeAlias

from cexec.gate.http.job_bodies import LEAST_TIME_LIMIT, LONGEST_TIME_LIMIT
from cexec.gate.http.patterns import FETCHED_NAME, FILE_NAME, NEED, TEXT, VARIABLE, WORKER
from cexec.gate.runs.run_documents import RunStanding
from cexec.gate.store.job_records import JobState
from cexec.protocol.base.limits import MAXIMUM_STREAMS, MAXIMUM_WEIGHT
from cexec.protocol.connection.frames import FIRST_FILE

Schema: TypeAlias = dict[str, Any]

OCTETS = "application/octet-stream"
MOST_FILES = MAXIMUM_STREAMS - FIRST_FILE


def reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def text(words: str = "", *, empty: bool = True, **more: Any) -> Schema:
    found: Schema = {"type": "string", "pattern": TEXT, **more}
    if not empty:
        found["minLength"] = 1
    return {**found, "description": words} if words else found


def texts(words: str, *, empty: bool = True) -> Schema:
    return {"type": "array", "items": text(empty=empty), "description": words}


def nullable(kind: str, words: str, **more: Any) -> Schema:
    return {"type": [kind, "null"], "description": words, **more}


def _object(required: list[str], **properties: Schema) -> Schema:
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": False}


def _told(**properties: Schema) -> Schema:
    """An object that we answer: members may be added later."""
    return {"type": "object", "required": list(properties), "properties": properties}


_SIGNALS = ("HUP", "INT", "QUIT", "USR1", "USR2", "TERM", "CONT", "TSTP")
_TIME = {"format": "date-time"}
_STATES = [state.value for state in JobState]
_BASE64 = {"type": "string", "pattern": r"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"}
_ENCODED = _object(["base64"], base64=_BASE64)
_CONTENT: Schema = {"type": "string"}  # of a file or an input: it may have a NUL
_STREAMED = _object(["stream"], stream={"const": True})
_FILES: Schema = {
    "type": "object",
    "additionalProperties": {"anyOf": [_CONTENT, _ENCODED]},
    "propertyNames": {"pattern": FILE_NAME, "maxLength": 255},
    "description": f"files that the program finds in its directory, at most {MOST_FILES} with those of fetch; a "
    "name has at most 255 bytes",
}

_STDIN_TWICE = {"required": ["job", "stdin"], "properties": {"job": {"required": ["stdin"]}}}
_STREAMED_POOL = {"required": ["stdin", "workers"],
                  "properties": {"stdin": _STREAMED, "workers": {"not": {"const": "any"}}}}  # fmt: skip

SCHEMAS: dict[str, Schema] = {
    "JobRequest": {"not": _STREAMED_POOL} | _object(
        ["app"],
        app=text("the application, see /v1/apps", empty=False),
        args=texts("arguments of the program, if its service allows them"),
        env={"type": "object", "additionalProperties": text(), "propertyNames": {"pattern": VARIABLE},
             "description": "variables of the peer: NAME becomes PEER_NAME there"},
        stdin={"anyOf": [_CONTENT, _ENCODED, _STREAMED],
               "description": "the standard input: a text, bytes as base64, or a stream that PUT .../stdin brings"},
        files=_FILES,
        fetch={"type": "array", "items": {"type": "string", "pattern": FETCHED_NAME, "maxLength": 255},
               "uniqueItems": True, "description": "files that it leaves there, and that come back"},
        needs={"type": "array", "items": {"type": "string", "pattern": NEED, "maxLength": 255},
               "description": "what its worker must have: NAME, NAME=VALUE; as --need of cexec"},
        exclude={"type": "array", "items": {"type": "string", "pattern": WORKER, "maxLength": 255},
                 "description": "workers that must not have it"},
        workers={"anyOf": [{"enum": ["any", "all"]},
                           {"type": "array", "items": text(empty=False), "minItems": 1, "uniqueItems": True}],
                 "description": "any: one worker; all or a list (names, addresses, UUIDs): a pool"},
        time_limit=nullable("number", "seconds that the program may take", minimum=LEAST_TIME_LIMIT,
                            maximum=LONGEST_TIME_LIMIT),
        retries=nullable("integer", "how often it is repeated if its worker is lost", minimum=0, maximum=1000),
        weight={"type": "integer", "minimum": 1, "maximum": 1000, "description": "its share of the turns"},
    ),
    "JobForm": {"not": _STDIN_TWICE} | _object(
        ["job"],
        job=reference("JobRequest"),
        stdin={"type": "string", "contentMediaType": OCTETS, "description": "the standard input, if job has none"},
        files={"type": "array", "items": {"type": "string", "contentMediaType": OCTETS},
               "description": "more files; the filename of the part is the name of the file"},
    ),
    "Signal": _object(["signal"], signal={"enum": [*_SIGNALS, *(f"SIG{name}" for name in _SIGNALS)]}),
    "Kill": _object([], workers={"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1}),
    "Input": _told(received={"type": "integer", "description": "bytes that have come"}, open={"type": "boolean"}),
    "Job": _told(
        id={"type": "string", "format": "uuid"},
        app={"type": "string"},
        owner={"type": "string", "description": "the name of the token that has started it"},
        pool=nullable("string", "the pool that it belongs to"),
        args={"type": "array", "items": {"type": "string"}},
        state={"enum": _STATES},
        exit_status=nullable("integer", "of the program, if it has exited"),
        signal=nullable("string", "that has ended the program"),
        reason=nullable("string", "why it has ended otherwise, or what the worker says of its end"),
        worker=nullable("string", "name@address"),
        instance=nullable("string", "the UUID of the worker"),
        attempts={"type": "integer"},
        submitted={"type": "string", **_TIME},
        started=nullable("string", "when its program has begun", **_TIME),
        ended=nullable("string", "when it was over", **_TIME),
        files={"type": "array", "items": {"type": "string"}, "description": "files that have come back"},
        stdin={"anyOf": [reference("Input"), {"type": "null"}]},
    ),
    "Pool": _told(
        id={"type": "string", "format": "uuid"},
        app={"type": "string"},
        owner={"type": "string"},
        state={"enum": ["running", "succeeded", "failed"]},
        submitted={"type": "string", **_TIME},
        ended=nullable("string", "when its last job was over", **_TIME),
        jobs={"type": "array", "items": {"type": "object"}, "description": "as Job, without stdin"},
    ),
    "Worker": _told(
        app={"type": "string"},
        name={"type": "string"},
        uuid={"type": "string", "format": "uuid", "description": "of this instance of cservice"},
        address={"type": "string"},
        host={"type": "string"},
        slots={"type": "integer"},
        running={"type": "integer", "description": "slots that run a job, of any client"},
        waiting={"type": "integer", "description": "jobs that wait for a slot there"},
        load={"type": "number"},
        speed={"type": "number"},
        labels={"type": "object", "additionalProperties": {"type": "string"}},
        version={"type": "string"},
        health={"type": "string", "description": "ok, or what is wrong"},
        since={"type": "string", **_TIME},
    ),
    "Problem": {
        "type": "object",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string", "description": "what happened, and what to do"},
        },
    },
    "Jobs": _told(jobs={"type": "array", "items": reference("Job")}, next=nullable("string", "for `after`")),
    "Pools": _told(pools={"type": "array", "items": reference("Pool")}, next=nullable("string", "as of Jobs")),
    "Workers": _told(workers={"type": "array", "items": reference("Worker")}),
    "Apps": _told(apps={"type": "array", "items": _told(name={"type": "string"})}),
    "Nothing": {"type": "object"},
    "Health": _told(status={"const": "ok"}, version={"type": "string"}),
}  # fmt: skip

_RUN_ID = {"type": "string", "pattern": "^[0-9a-f]{16}$"}
_COUNT = {"type": "integer", "minimum": 0}
_CPU = nullable("number", "seconds of processor time; null if no attempt has told it", minimum=0)
_TOOK = "seconds that the attempts which have ended took, together"
_REAL = {"type": "number", "minimum": 0, "description": _TOOK}
_RUN: dict[str, Schema] = {
    "id": _RUN_ID,
    "name": {"type": "string", "description": "of the journal"},
    "directory": {"type": "string", "description": "as it was given to --runs"},
    "owner": nullable("string", "the user whose journal it is, if that is not the one of cgate"),
    "state": {"enum": [state.value for state in RunStanding],
              "description": "done: every task is over; left: no cmap runs, and tasks are left; unread: not yet read"},
    "problem": nullable("string", "why the journal cannot be read"),
    "changed": nullable("string", "when the journal has changed", **_TIME),
    "control": {"type": "boolean", "description": "it runs, and cgate can pause it and change its weight"},
    "command": nullable("string", "the command line of the latest cmap with this journal; null in an older journal"),
    "host": nullable("string", "where that was started"),
    "process": nullable("string", "the cmap that runs"),
    "started": nullable("string", "when the latest cmap with this journal has begun", **_TIME),
    "runs": nullable("integer", "how many cmaps have run with this journal", minimum=0),
    "total": nullable("integer", "all tasks, if that is known", minimum=0),
    "counts": {"anyOf": [_told(done=_COUNT, failed=_COUNT, running=_COUNT, waiting=_COUNT), {"type": "null"}]},
    "weight": nullable("integer", "its share of the turns; the last that is known", minimum=1, maximum=MAXIMUM_WEIGHT),
    "elapsed": nullable("number", "seconds of the latest cmap", minimum=0),
    "real": nullable("number", _TOOK, minimum=0),
    "cpu": _CPU,
    "rate": nullable("number", "tasks a second that were over in the last 15 minutes, or since it began", minimum=0),
    "eta": nullable("number", "seconds that it still takes at this rate", minimum=0),
}  # fmt: skip
_DID = _told(
    name={"type": "string", "description": "name@address"}, running=_COUNT, attempts=_COUNT, succeeded=_COUNT,
    failed=_COUNT, real=_REAL, cpu=_CPU, last=nullable("string", "when its last attempt ended", **_TIME),
)  # fmt: skip
_FAILED_TASK = _told(
    task={"type": "integer", "minimum": 1, "description": "the number of the row"},
    command={"type": "string", "description": "with the words of the task; the begin of a long one"},
    worker=nullable("string", "name@address of the last one that had it"),
    reason={"type": "string"},
    last_line=nullable("string", "the last line of its standard error; null in a journal that does not keep it"),
    exit_status={"type": "integer"},
    signal=nullable("integer", "that has ended the program"),
    started=nullable("string", "when its last attempt has begun", **_TIME),
    seconds={"type": "number", "minimum": 0},
)
SCHEMAS |= {
    "Run": _told(**_RUN),
    "RunDetails": _told(
        **_RUN,
        workers={"type": "array", "items": _DID, "description": "who did what, in all cmaps with this journal"},
        more_workers={**_COUNT, "description": "further workers"},
    ),
    "Runs": _told(
        runs={"type": "array", "items": reference("Run")},
        next=nullable("string", "for `after`", pattern=_RUN_ID["pattern"]),
        problems={"type": "array", "items": {"type": "string"}, "description": "what is not shown, and why"},
    ),
    "TaskMap": _told(
        first={"type": "integer", "minimum": 1, "description": "the first task that is told"},
        count={**_COUNT, "description": "the tasks that are told"},
        size={**_COUNT, "description": "all tasks that the map has"},
        cell={"type": "integer", "minimum": 1, "description": "so many tasks are one cell"},
        states={"type": "string", "pattern": "^([0-9]*[ndwrf])*$",
                "description": "the cells in order: d done, w waiting, r running, f failed, with a number for several; "
                               "n no task of the run; of a cell's tasks, f counts before r, w and d"},
    ),
    "FailedTasks": _told(
        failed={"type": "array", "items": _FAILED_TASK},
        next=nullable("integer", "for `after`", minimum=1),
    ),
    "Weight": _object(["weight"], weight={"type": "integer", "minimum": 1, "maximum": MAXIMUM_WEIGHT}),
}  # fmt: skip
