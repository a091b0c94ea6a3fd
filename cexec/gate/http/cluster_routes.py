"""Applications, workers and pools.  docs/api.md"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import Route

from cexec.gate.http.gate import gate_of, identity_of, note_change
from cexec.gate.http.job_routes import LONGEST_WAIT, page_filter
from cexec.gate.http.queries import Query
from cexec.gate.http.request_bodies import read_json
from cexec.gate.http.stream_answers import json_answer
from cexec.gate.problem import Problem

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


async def list_apps(request: Request) -> Response:
    """GET /v1/apps"""
    gate, identity = gate_of(request), identity_of(request.scope)
    Query(request)
    names = sorted(name for name in gate.engine.applications if identity.may_see(name))
    return json_answer({"apps": [{"name": name} for name in names]})


async def list_workers(request: Request) -> Response:
    """GET /v1/workers"""
    gate, identity = gate_of(request), identity_of(request.scope)
    app = Query(request, ["app"]).text("app")
    if app is not None:
        applications = [gate.engine.application(identity, app)]
    else:
        applications = [one for one in gate.engine.applications.values() if identity.may_see(one.name)]
    workers = [document for one in applications for document in await one.documents()]
    return json_answer({"workers": workers})


async def list_pools(request: Request) -> Response:
    """GET /v1/pools"""
    gate, identity = gate_of(request), identity_of(request.scope)
    wanted = page_filter(Query(request, ["app", "limit", "after"]), identity)
    pools = await gate.desk.list_pools(identity, wanted)
    more = pools[-1][0].id if len(pools) == wanted.limit else None
    return json_answer({"pools": [pool.document(jobs) for pool, jobs in pools], "next": more})


async def show_pool(request: Request) -> Response:
    """GET /v1/pools/{id}"""
    gate, identity = gate_of(request), identity_of(request.scope)
    seconds = Query(request, ["wait"]).seconds("wait", LONGEST_WAIT)
    pool, jobs = await gate.desk.wait_for_pool(identity, request.path_params["id"], seconds)
    return json_answer(pool.document(jobs))


async def kill_pool(request: Request) -> Response:
    """POST /v1/pools/{id}/kill"""
    gate, identity = gate_of(request), identity_of(request.scope)
    Query(request)
    value = await read_json(request, empty={})
    if not isinstance(value, dict) or not value.keys() <= {"workers"}:
        raise Problem(422, 'the body has to be {"workers": [NAME, ...]}, or empty for all')
    workers = value.get("workers")
    good = isinstance(workers, list) and workers and all(isinstance(one, str) for one in workers)
    if "workers" in value and not good:
        raise Problem(422, "workers has to be a list of names, addresses or UUIDs that is not empty")
    pool, jobs = await gate.desk.kill(identity, request.path_params["id"], workers)
    note_change(request.scope, f"pool {pool.id} killed at {', '.join(workers) if workers else 'all workers'}")
    return json_answer(pool.document(jobs))


ROUTES = [
    Route("/v1/apps", list_apps, methods=["GET"]),
    Route("/v1/workers", list_workers, methods=["GET"]),
    Route("/v1/pools", list_pools, methods=["GET"]),
    Route("/v1/pools/{id}", show_pool, methods=["GET"]),
    Route("/v1/pools/{id}/kill", kill_pool, methods=["POST"]),
]
