"""The page and what only it asks for; everything else it does by /v1.

Contract: `routes` returns GET / (the page, for who is logged in), GET /static/NAME (for everybody: files of this
package, which say nothing of the cluster), and GET /page/identity, /page/workers and /page/history (JSON).  The policy
of the page allows no inline script and nothing of other hosts.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cexec.gate.access.caller import SCOPE_KEY, Caller
from cexec.gate.access.names import SESSION_NAME
from cexec.gate.problem import Problem
from cexec.gate.runs.run_desk import may_see_runs

if TYPE_CHECKING:
    from starlette.requests import Request

    from cexec.gate.jobs.engine import Engine
    from cexec.gate.page.cluster_history import ClusterHistory
    from cexec.gate.runs.run_desk import RunDesk

KINDS = {
    "icon.svg": "image/svg+xml",
    "page.css": "text/css; charset=utf-8",
    **dict.fromkeys(("output.js", "page.js", "plots.js", "runs.js", "shared.js"), "text/javascript; charset=utf-8"),
    "uPlot.iife.min.js": "text/javascript; charset=utf-8",
    "uPlot.min.css": "text/css; charset=utf-8",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
SPANS = (900, 86400)  # seconds


def routes(engine: Engine, history: ClusterHistory, runs: RunDesk) -> list[Route]:
    page = _Page(engine, history, runs)
    return [
        Route("/", page.show, methods=["GET"]),
        Route("/static/{name}", page.file, methods=["GET"]),
        Route("/page/identity", page.identity, methods=["GET"]),
        Route("/page/workers", page.workers, methods=["GET"]),
        Route("/page/history", page.history, methods=["GET"]),
    ]


class _Page:
    def __init__(self, engine: Engine, history: ClusterHistory, runs: RunDesk) -> None:
        self._engine = engine
        self._runs = runs
        self._history = history

    async def show(self, request: Request) -> Response:
        return Response(
            read("index.html"), media_type="text/html; charset=utf-8", headers={"Content-Security-Policy": POLICY}
        )

    async def file(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in KINDS:
            raise Problem(404, "there is no such file")
        return Response(read(name), media_type=KINDS[name], headers={"Cache-Control": "max-age=60"})

    async def identity(self, request: Request) -> Response:
        identity: Caller = request.scope[SCOPE_KEY]
        return JSONResponse(
            {
                "name": identity.name,
                "role": identity.role.name.lower(),
                "session": identity.name == SESSION_NAME,
                "apps": [name for name in self._engine.applications if identity.may_see(name)],
                "parts": ["runs"] if self._runs.offered and may_see_runs(identity) else [],
            }
        )

    async def workers(self, request: Request) -> Response:
        return JSONResponse({"workers": await self._history.workers(request.scope[SCOPE_KEY])})

    async def history(self, request: Request) -> Response:
        span = request.query_params.get("seconds", str(SPANS[0]))
        if span not in map(str, SPANS):
            raise Problem(422, f"seconds is one of {', '.join(map(str, SPANS))}")
        return JSONResponse({"samples": await self._history.samples(request.scope[SCOPE_KEY], float(span))})


@cache
def read(name: str) -> bytes:
    """Returns a file of the page."""
    return files("cexec.gate.page").joinpath("static", name).read_bytes()
