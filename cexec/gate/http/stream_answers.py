"""Answers: JSON, problem documents, and streams that last.

Contract: a `StreamAnswer` ends when its reader has gone, whatever its source does.  It never sends without letting the
event loop run: uvicorn's `send` returns at once after a disconnect, so a source that always has bytes would freeze the
whole server.  A source that raises `CutOff` ends the connection in the middle of the answer.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from cexec.gate.access.guarded_answer import ABORT
from cexec.gate.http.protocol import TRAILERS
from cexec.gate.problem import CONTENT_TYPE, Problem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from starlette.types import Receive, Scope, Send

OCTETS = "application/octet-stream"
COMMON = {"Cache-Control": "no-store"}  # the middleware adds what browsers have to know


class CutOff(Exception):
    """The answer is not whole, and its reader must notice."""


def json_answer(document: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Returns an answer of JSON."""
    body = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode(errors="backslashreplace")
    return Response(body, status, {**COMMON, **(headers or {})}, "application/json")


def problem_answer(problem: Problem) -> Response:
    """Returns the problem document."""
    body = json.dumps(problem.document(), ensure_ascii=False).encode(errors="backslashreplace")
    return Response(body, problem.status, {**COMMON, **problem.headers}, CONTENT_TYPE)


class StreamAnswer(Response):
    """`source` yields the bytes.  `size`: how many, if that is known.  `trailers`: is called at the end."""

    def __init__(
        self,
        source: AsyncIterator[bytes],
        *,
        status: int = 200,
        headers: dict[str, str] | None = None,
        media_type: str = OCTETS,
        size: int | None = None,
        trailers: Callable[[], Awaitable[dict[str, str]]] | None = None,
    ) -> None:
        self.background = None
        self.status_code = status
        self.media_type = media_type
        self.body = b""
        given = {**COMMON, **(headers or {}), **({} if size is None else {"Content-Length": str(size)})}
        if trailers is not None:
            given["Trailer"] = "Cexec-State, Cexec-Exit-Status"
        self.init_headers(given)
        if size is None and "content-length" in self.headers:
            del self.headers["content-length"]
        self._source = source
        self._trailers = trailers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await until_gone(self._send_all(scope, send), receive)

    async def _send_all(self, scope: Scope, send: Send) -> None:
        with_trailers = self._trailers is not None and TRAILERS in scope.get("extensions", {})
        await send_start(send, self.status_code, self.raw_headers, trailers=with_trailers)
        if scope["method"] != "HEAD":
            try:
                async for chunk in self._source:
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                    await asyncio.sleep(0)  # `send` returns at once if the reader has gone
                trailers = {} if self._trailers is None else await self._trailers()
            except CutOff:
                cut_off(scope)
                return
        await send_end(send, trailers if with_trailers and scope["method"] != "HEAD" else None)


async def send_start(send: Send, status: int, headers: list[tuple[bytes, bytes]], *, trailers: bool) -> None:
    """Sends the head of an answer."""
    message: dict[str, Any] = {"type": "http.response.start", "status": status, "headers": headers}
    if trailers:
        message["trailers"] = True
    await send(message)


async def send_end(send: Send, trailers: dict[str, str] | None) -> None:
    """Ends an answer; with `trailers` its head has said that they follow."""
    await send({"type": "http.response.body", "body": b"", "more_body": False})
    if trailers is not None:
        lines = [(name.lower().encode(), value.encode("latin-1", "replace")) for name, value in trailers.items()]
        await send({"type": TRAILERS, "headers": lines, "more_trailers": False})


def cut_off(scope: Scope) -> None:
    """Ends the connection in the middle of an answer."""
    abort = (scope.get("extensions") or {}).get(ABORT)
    if abort is None:
        raise CutOff("the answer was cut off")  # another server than ours: it hangs up, too
    abort()


async def until_gone(what: Any, receive: Receive) -> None:
    """Runs a coroutine to its end, or until the client has gone."""
    work = asyncio.ensure_future(what)
    gone = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
        if not work.done():
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
    if not work.cancelled():
        work.result()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        await asyncio.sleep(0)
