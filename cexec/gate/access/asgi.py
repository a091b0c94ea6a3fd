"""The types of ASGI, and how a problem document becomes an answer.

Contract: `send_problem` answers a request, or the handshake of a WebSocket, that has no answer yet.  A WebSocket is
refused by a document too, over the ASGI extension `websocket.http.response`; a server without it closes instead.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from cexec.gate.problem import CONTENT_TYPE, Problem

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
AsgiApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Fields: TypeAlias = list[tuple[bytes, bytes]]  # header fields

CLOSE_POLICY = 1008  # RFC 6455 section 7.4.1
REFUSAL = "websocket.http.response"


def problem_fields(problem: Problem) -> tuple[Fields, bytes]:
    """Returns the header fields and the body of the answer."""
    body = json.dumps(problem.document()).encode()
    fields = [(b"content-type", CONTENT_TYPE.encode()), (b"content-length", str(len(body)).encode())]
    return fields + [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()], body


async def send_problem(scope: Scope, send: Send, problem: Problem) -> None:
    fields, body = problem_fields(problem)
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": problem.status, "headers": fields})
        await send({"type": "http.response.body", "body": b"" if scope.get("method") == "HEAD" else body})
    elif REFUSAL in (scope.get("extensions") or {}):
        await send({"type": f"{REFUSAL}.start", "status": problem.status, "headers": fields})
        await send({"type": f"{REFUSAL}.body", "body": body})
    else:
        await send({"type": "websocket.close", "code": CLOSE_POLICY, "reason": problem.detail[:100]})
