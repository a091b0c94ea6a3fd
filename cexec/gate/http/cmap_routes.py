"""Runs of `cmap`: look at them, pause them, let them go on, change their weight.  docs/api.md, "Runs"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cexec.cmap.control.control_messages import ControlAction, ControlRequest
from cexec.cmap.watch.task_map import MOST_TASKS
from cexec.gate.http.gate import gate_of, identity_of, note_change, route
from cexec.gate.http.queries import Query
from cexec.gate.http.request_bodies import read_json
from cexec.gate.http.stream_answers import json_answer
from cexec.gate.problem import Problem
from cexec.gate.runs.run_desk import MOST_MAPPED, PAGE
from cexec.protocol.base.limits import MAXIMUM_WEIGHT

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

LARGEST_PAGE = 1000  # (ours) runs, or failed tasks
LIKE_WEIGHT = 'the body has to be {"weight": N}, a whole number from 1 to ' + str(MAXIMUM_WEIGHT)


async def list_runs(request: Request) -> Response:
    """GET /v1/runs"""
    query = Query(request, ["limit", "after"])
    limit = query.number("limit", PAGE, 1, LARGEST_PAGE)
    assert limit is not None
    runs = gate_of(request).runs
    return json_answer(await runs.list_runs(identity_of(request.scope), limit, query.text("after")))


async def show_run(request: Request) -> Response:
    """GET /v1/runs/{id}"""
    Query(request)
    return json_answer(await gate_of(request).runs.show(identity_of(request.scope), request.path_params["id"]))


async def show_map(request: Request) -> Response:
    """GET /v1/runs/{id}/map"""
    query = Query(request, ["first", "count", "cells"])
    first = query.number("first", 1, 1, MOST_TASKS)
    count = query.number("count", None, 1, MOST_TASKS)
    cells = query.number("cells", None, 1, MOST_MAPPED)
    assert first is not None
    id, runs = request.path_params["id"], gate_of(request).runs
    return json_answer(await runs.map(identity_of(request.scope), id, first, count, cells))


async def list_failed(request: Request) -> Response:
    """GET /v1/runs/{id}/failed"""
    query = Query(request, ["limit", "after"])
    limit, after = query.number("limit", PAGE, 1, LARGEST_PAGE), query.number("after", 0, 0, MOST_TASKS)
    assert limit is not None and after is not None
    id, runs = request.path_params["id"], gate_of(request).runs
    return json_answer(await runs.failed(identity_of(request.scope), id, limit, after))


async def pause(request: Request) -> Response:
    """POST /v1/runs/{id}/pause"""
    return await _control(request, ControlRequest(ControlAction.PAUSE), "paused")


async def go_on(request: Request) -> Response:
    """POST /v1/runs/{id}/continue"""
    return await _control(request, ControlRequest(ControlAction.CONTINUE), "continued")


async def set_weight(request: Request) -> Response:
    """POST /v1/runs/{id}/weight"""
    Query(request)
    value: Any = await read_json(request)
    if not isinstance(value, dict) or value.keys() != {"weight"}:
        raise Problem(422, LIKE_WEIGHT)
    weight = value["weight"]
    if isinstance(weight, float) and weight.is_integer():
        weight = int(weight)  # for JSON schemas, 3.0 is a whole number
    try:
        wanted = ControlRequest(ControlAction.WEIGHT, weight)
    except ValueError:
        raise Problem(422, LIKE_WEIGHT) from None
    return await _control(request, wanted, f"given the weight {weight}")


async def _control(request: Request, wanted: ControlRequest, words: str) -> Response:
    Query(request)
    id = request.path_params["id"]
    document = await gate_of(request).runs.control(identity_of(request.scope), id, wanted)
    note_change(request.scope, f"run {id} ({document['name']}) {words}")
    return json_answer(document)


ROUTES = [
    route("/v1/runs", GET=list_runs),
    route("/v1/runs/{id}", GET=show_run),
    route("/v1/runs/{id}/map", GET=show_map),
    route("/v1/runs/{id}/failed", GET=list_failed),
    route("/v1/runs/{id}/pause", POST=pause),
    route("/v1/runs/{id}/continue", POST=go_on),
    route("/v1/runs/{id}/weight", POST=set_weight),
]
