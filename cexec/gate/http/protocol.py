"""What uvicorn does not do by itself: trailers, cutting an answer off, and noticing who has vanished or is slow.

Contract: `GateProtocol` is uvicorn's protocol with a limit on the size of a request's head and on the seconds that it
may take, and with TCP options by which a vanished peer is noticed within VANISHED seconds.  It knows two more messages
of `send`: `http.response.trailers`, the ASGI extension, and CUT_OFF, which ends a connection in the middle of an
answer, so that its reader cannot take it for a whole one.  `scope["extensions"]` names both.
"""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from cexec.gate.problem import CONTENT_TYPE, Problem

CUT_OFF = "cexec.response.cut_off"
TRAILERS = "http.response.trailers"
HEAD_LIMIT = 64 * 1024  # bytes (ours)
HEAD_PATIENCE = 30.0  # seconds (ours) for the head of a request, from its first byte
VANISHED = 30  # seconds (ours)
KEEPALIVE_INTERVAL = 10  # seconds (ours)
WRITE_BUFFER = 64 * 1024  # bytes (ours) that wait for a slow reader in this process


class GateCycle(RequestResponseCycle):
    """One request and its answer."""

    trailers_follow = False

    async def send(self, message: Any) -> None:
        kind: str = message["type"]
        if kind == "http.response.start":
            self.trailers_follow = bool(message.get("trailers"))
        elif kind == CUT_OFF:
            if not self.disconnected:
                self.disconnected = True
                self.transport.close()
            return
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


class GateProtocol(HttpToolsProtocol):
    """One connection."""

    _head_size = 0
    _in_head = False
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        watch(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head or self.cycle is None or self.cycle.response_complete:
            self._head_size += len(data)
            if self._head_timer is None:
                self._head_timer = self.loop.call_later(HEAD_PATIENCE, self._head_is_late)
        super().data_received(data)
        if self._in_head and self._head_size > HEAD_LIMIT:
            self._refuse(Problem(431, f"the head of a request may have {HEAD_LIMIT} bytes"))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_size = 0
        self._stop_head_timer()
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before:
            self.cycle.__class__ = GateCycle  # uvicorn makes it in the middle of its method
            self.scope["extensions"] = {TRAILERS: {}, CUT_OFF: {}}

    def send_400_response(self, msg: str) -> None:
        self._refuse(Problem(400, "this is no request of HTTP/1.1"))

    def _head_is_late(self) -> None:
        self._head_timer = None
        self._refuse(Problem(408, f"the head of a request must come within {HEAD_PATIENCE:g} seconds"))

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, problem: Problem) -> None:
        """Answers and hangs up; the application does not hear of it."""
        if self.transport.is_closing():
            return
        body = json.dumps(problem.document()).encode()
        head = (
            f"HTTP/1.1 {problem.status} {problem.document()['title']}\r\ncontent-type: {CONTENT_TYPE}\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()


class GateSocketProtocol(WebSocketsSansIOProtocol):
    """One WebSocket."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        transport.set_write_buffer_limits(4 * WRITE_BUFFER)  # a message has up to 256 KiB


def watch(transport: asyncio.BaseTransport) -> None:
    """Lets the kernel notice a peer that has vanished, idle or in the middle of an answer."""
    connection = transport.get_extra_info("socket")
    if connection is None or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    options = [
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        (socket.IPPROTO_TCP, "TCP_NODELAY", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE", KEEPALIVE_INTERVAL),
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", KEEPALIVE_INTERVAL),
        (socket.IPPROTO_TCP, "TCP_KEEPCNT", max(1, VANISHED // KEEPALIVE_INTERVAL - 1)),
        (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", VANISHED * 1000),
    ]
    for level, name, value in options:
        number = getattr(socket, name, None)
        if number is None:
            continue  # another system
        try:
            connection.setsockopt(level, number, value)
        except OSError:
            pass  # it has ended already
