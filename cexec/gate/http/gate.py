"""What all routes have in common: the engine, who asks, and what the audit is told.

Contract: values of a request's scope.  `identity` is there for every request that the middleware has let in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.routing import Route

from cexec.gate.access.caller import SCOPE_KEY, Caller

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, MutableMapping

    from starlette.requests import HTTPConnection, Request

    from cexec.gate.jobs.desk import Desk
    from cexec.gate.jobs.engine import Engine
    from cexec.gate.runs.run_desk import RunDesk

GATE = "cexec.gate"  # the key of the scope
CHANGES = "cexec.changes"  # the key of the scope: words about what a request has changed


@dataclass(frozen=True, slots=True)
class Gate:
    """What routes work with."""

    engine: Engine
    desk: Desk
    runs: RunDesk


def route(path: str, **handlers: Callable[[Request], Awaitable[Any]]) -> Route:
    """Returns the route of a path, with a handler for each method: `Allow` then names all of them."""

    async def endpoint(request: Request) -> Any:
        return await handlers["GET" if request.method == "HEAD" else request.method](request)

    return Route(path, endpoint, methods=list(handlers))


def gate_of(request: HTTPConnection) -> Gate:
    found: Gate = request.scope[GATE]
    return found


def identity_of(scope: Mapping[str, Any]) -> Caller:
    found: Caller = scope[SCOPE_KEY]
    return found


def note_change(scope: MutableMapping[str, Any], words: str) -> None:
    """Tells the audit what has changed."""
    scope.setdefault(CHANGES, []).append(words)
