"""What uvicorn does not do by itself: trailers.

Contract: `GateProtocol` is the connection of `access.connection`, and knows one more message of `send`:
`http.response.trailers`, the ASGI extension.  `scope["extensions"]` names it.
"""

from __future__ import annotations

from typing import Any

from cexec.gate.access.answers import CUT_OFF
from cexec.gate.access.connection import GuardedCycle, GuardedHttp, GuardedWebSocket

TRAILERS = "http.response.trailers"
WRITE_BUFFER = 64 * 1024  # bytes (ours) that wait for a slow reader in this process


class GateCycle(GuardedCycle):
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

    cycle_class = GateCycle
    extensions = (TRAILERS, CUT_OFF)


class GateSocketProtocol(GuardedWebSocket):
    """One WebSocket."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        transport.set_write_buffer_limits(4 * WRITE_BUFFER)  # a message has up to 256 KiB
