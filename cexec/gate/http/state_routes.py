"""What watches a `cgate`: metrics, health, and the description of all this.  docs/api.md"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from starlette.responses import Response
from starlette.routing import Route

import cexec
from cexec.errors import CexecError
from cexec.gate.http.gate import gate_of, identity_of
from cexec.gate.http.openapi import document
from cexec.gate.http.queries import Query
from cexec.gate.http.stream_answers import COMMON, json_answer

if TYPE_CHECKING:
    from starlette.requests import Request

_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


async def metrics(request: Request) -> Response:
    """GET /metrics"""
    gate, identity = gate_of(request), identity_of(request.scope)
    Query(request)
    states = Counter((live.record.app, live.record.state.value) for live in gate.engine.live.values())
    for name, application in gate.engine.applications.items():
        gate.engine.counters.set_jobs(name, states[name, "queued"], states[name, "running"])
        try:
            workers = (await application.workers()).values()
        except CexecError:
            continue  # what is known of jobs is told all the same
        slots, running = sum(one.slots for one in workers), sum(one.running for one in workers)
        gate.engine.counters.set_workers(name, len(workers), slots, running)
    names = None if identity.applications is None else identity.applications
    return Response(gate.engine.counters.text(names), headers={**COMMON, "Content-Type": _PROMETHEUS})


async def health(request: Request) -> Response:
    """GET /healthz: answers as long as the event loop turns; needs no token, and tells nothing."""
    return json_answer({"status": "ok", "version": cexec.__version__})


async def openapi(request: Request) -> Response:
    """GET /v1/openapi.json"""
    Query(request)
    return json_answer(document())


ROUTES = [
    Route("/metrics", metrics, methods=["GET"]),
    Route("/healthz", health, methods=["GET"]),
    Route("/v1/openapi.json", openapi, methods=["GET"]),
]
