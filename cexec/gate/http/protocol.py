"""Trailers, which uvicorn does not send by itself.

Contract: `GateProtocol` is a `GuardedHttp` that knows the ASGI extension `http.response.trailers`: an answer whose head
has `trailers` is ended by the message of that name.  A client of HTTP/1.0 gets the answer without them.
"""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from cexec.gate.access.connection import GuardedHttp

TRAILERS = "http.response.trailers"


class GateCycle(RequestResponseCycle):
    """One request and its answer."""

    trailers_follow = False

    async def send(self, message: Any) -> None:
        kind: str = message["type"]
        if kind == "http.response.start":
            self.trailers_follow = bool(message.get("trailers"))
        elif kind == TRAILERS:
            await self._end_with(message.get("headers", []))
            return
        elif kind == "http.response.body" and self.trailers_follow and not message.get("more_body"):
            message = {**message, "more_body": True}
        await super().send(message)

    async def _end_with(self, trailers: list[tuple[bytes, bytes]]) -> None:
        self.trailers_follow = False
        if self.disconnected:
            return
        if self.chunked_encoding and self.scope["method"] != "HEAD":
            lines = b"".join(name + b": " + value + b"\r\n" for name, value in trailers)
            self.transport.write(b"0\r\n" + lines + b"\r\n")
            self.chunked_encoding = False  # that was the last chunk
            self.expected_content_length = 0
        await super().send({"type": "http.response.body", "body": b"", "more_body": False})


class GateProtocol(GuardedHttp):
    """One connection."""

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if self.cycle is not None and self.cycle.scope is self.scope:
            self.cycle.__class__ = GateCycle  # uvicorn makes it in the middle of its method
            if self.scope["http_version"] == "1.1":
                extensions: dict[str, Any] = self.scope["extensions"]
                extensions[TRAILERS] = {}
