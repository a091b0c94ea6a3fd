"""The application: all routes, and every error as a document.

Contract: `GateApp` is plain ASGI for requests whose scope has an `Caller`; `more` are routes of other parts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import Router

from cexec.gate.http import (
    cluster_routes,
    cmap_routes,
    event_routes,
    exec_socket,
    job_routes,
    output_routes,
    run_route,
    state_routes,
)
from cexec.gate.http.error_documents import ErrorDocuments
from cexec.gate.http.gate import GATE, Gate
from cexec.gate.jobs.desk import Desk
from cexec.gate.runs.run_desk import RunDesk

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeAlias

    from starlette.routing import BaseRoute
    from starlette.types import Receive, Scope, Send

    from cexec.gate.jobs.engine import Engine

    RoutesOf: TypeAlias = Callable[[Engine], Sequence[BaseRoute]]

PARTS = (job_routes, cluster_routes, output_routes, run_route, event_routes, exec_socket, state_routes, cmap_routes)


class GateApp:
    """All that answers by HTTP."""

    def __init__(self, engine: Engine, more: Sequence[BaseRoute] = (), runs: RunDesk | None = None) -> None:
        self._gate = Gate(engine, Desk(engine), runs or RunDesk(None))
        routes = [route for part in PARTS for route in part.ROUTES]
        self._routed = ErrorDocuments(Router([*routes, *more], redirect_slashes=False))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self  # so that the router raises what it does not find
        scope[GATE] = self._gate
        await self._routed(scope, receive, send)
