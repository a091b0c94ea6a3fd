"""The body of a request, in pieces, or whole as JSON.

Contract: `Problem` 400 for what is not JSON, 413 for what is too long, 415 for another kind.  A client that goes
meanwhile raises `ClientGone`.  The middleware sees to it that a body comes fast enough.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cexec.gate.json_text import parse_json
from cexec.gate.problem import Problem

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.requests import Request
    from starlette.types import Receive

JSON_LIMIT = 16 * 1024 * 1024  # bytes (ours) of a body that is kept in memory


class ClientGone(Exception):
    """The client has hung up before its request was complete."""


async def read_body(request: Request, limit: int = JSON_LIMIT) -> bytes:
    """Returns a whole body."""
    body = bytearray()
    async for chunk in chunks(request.receive):
        body += chunk
        if len(body) > limit:
            raise Problem(
                413, f"the body may have {limit} bytes here; send a file with multipart/form-data, or stream stdin"
            )
    return bytes(body)


async def chunks(receive: Receive) -> AsyncGenerator[bytes, None]:
    """Yields a body as it comes."""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        if message.get("body"):
            yield message["body"]
        more = message.get("more_body", False)


async def read_json(request: Request, empty: Any = None) -> Any:
    """Returns the value of a body that is JSON; `empty` for one without a byte."""
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    body = await read_body(request)
    if not body:
        return empty
    if kind != "application/json":
        raise Problem(415, "the body has to be application/json")
    return parse_json(body)
