"""Connections of uvicorn that a client cannot hold without use, and cannot fill.

Contract: `GuardedHttp` and `GuardedWebSocket` stand in for uvicorn's classes (`uvicorn.Config(http=..., ws=...)`).  A
connection ends when its header fields are too many or too large (431) or do not come within `HEAD_TIME`, when its
reader takes nothing for `WRITE_TIME`, when the rest of a refused body does not end within `LINGER_TIME`, and when the
client's machine has gone (TCP_USER_TIMEOUT).  What is no HTTP is refused by a problem document, too.  Each request has
the extension ABORT, a function that ends the connection in the middle of an answer: its reader cannot take that for a
whole one, and uvicorn's log does not complain.
"""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.datastructures import Headers as WebSocketHeaders
from websockets.http11 import Response

from cexec.gate.access.asgi import problem_fields
from cexec.gate.access.guarded_answer import ABORT
from cexec.gate.problem import Problem

HEAD_SIZE = 64 * 1024  # bytes (ours) of the request line and all header fields
HEAD_FIELDS = 100  # (ours)
VERSIONS = ("1.0", "1.1")  # a line without a version is HTTP/0.9
HEAD_TIME = 10.0  # seconds (ours) in which they come, and in which a new connection asks for something
WRITE_TIME = 60.0  # seconds (ours) in which a reader takes what lies in front of it, some dozens of KiB
LINGER_TIME = 2.0  # seconds (ours): a client that is closed before it has sent its body may not read the answer
GONE_TIME = 30  # seconds (ours) until a machine that acknowledges nothing counts as gone
PROBE_TIME = 10  # seconds (ours) between two questions to one that is silent


class _Timer:
    """One time-out at a time; `action` is called when it has passed."""

    __slots__ = ("_action", "_handle", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, action: Any) -> None:
        self._loop = loop
        self._action = action
        self._handle: asyncio.TimerHandle | None = None

    def start(self, seconds: float) -> None:
        """Does nothing if it runs already."""
        if self._handle is None:
            self._handle = self._loop.call_later(seconds, self._fire)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _fire(self) -> None:
        self._handle = None
        self._action()


class GuardedHttp(HttpToolsProtocol):
    """One connection over HTTP/1.1."""

    head_time = HEAD_TIME
    write_time = WRITE_TIME
    linger_time = LINGER_TIME

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._in_head = True
        self._head_size = 0
        self._ended_one = False  # the bytes that have come last have ended a request
        self._refusal = Problem(400, "this is not a request of HTTP/1.1")
        self._head_timer = _Timer(self.loop, self._give_up_head)
        self._write_timer = _Timer(self.loop, self._abort)
        self._linger_timer = _Timer(self.loop, self._close)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        _watch_peer(transport)
        self._head_timer.start(self.head_time)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._head_timer, self._write_timer, self._linger_timer):
            timer.stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._in_head:
            self._head_timer.start(self.head_time)  # also of a client that sends nothing but empty lines
        self._ended_one = False
        super().data_received(data)
        if self._in_head and not self._ended_one and not self.transport.is_closing():
            self._head_size += len(data)
            if self._head_size > HEAD_SIZE:
                self._refuse_head()
                self.send_400_response("")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._head_size = 0
        self._head_timer.start(self.head_time)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_timer.stop()
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > HEAD_SIZE or len(self.headers) > HEAD_FIELDS:
            self._refuse_head()
            raise ValueError("header fields")  # httptools makes it an error of the parser
        if self.parser.get_http_version() not in VERSIONS:
            raise ValueError("version")
        super().on_headers_complete()
        if self.cycle is not None and self.cycle.scope is self.scope:
            extensions: dict[str, Any] = {ABORT: partial(self._cut_off, self.cycle)}
            self.scope["extensions"] = extensions

    def on_message_complete(self) -> None:
        self._linger_timer.stop()
        self._in_head = self._ended_one = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        if not self._in_head and not self.transport.is_closing():
            self._linger_timer.start(self.linger_time)
        super().on_response_complete()

    def handle_websocket_upgrade(self) -> None:
        self._head_timer.stop()
        super().handle_websocket_upgrade()

    def pause_writing(self) -> None:
        self._write_timer.start(self.write_time)
        super().pause_writing()

    def resume_writing(self) -> None:
        self._write_timer.stop()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        self._close()

    def send_400_response(self, msg: str) -> None:
        """Answers what the parser refuses; uvicorn's words about it are not for clients."""
        fields, body = problem_fields(self._refusal)
        lines = [f"HTTP/1.1 {self._refusal.status} {self._refusal.document()['title']}".encode()]
        lines += [b"%s: %s" % field for field in [*fields, (b"connection", b"close")]]
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            if self.cycle is not None:
                self.cycle.disconnected = True  # a request whose body is damaged is not answered twice
                self.cycle.message_event.set()
            self.transport.write(b"\r\n".join([*lines, b"", body]))
        self._close()

    def _give_up_head(self) -> None:
        if self.cycle is None or self.cycle.response_complete:  # else the next request can wait
            self._close()

    def _refuse_head(self) -> None:
        self._refusal = Problem(431, f"at most {HEAD_FIELDS} header fields of {HEAD_SIZE} bytes together are read")

    def _close(self) -> None:
        """Closes when what was written has been read, or has not been in time."""
        if not self.transport.is_closing():
            self.transport.close()
            self._write_timer.start(self.write_time)

    def _abort(self) -> None:
        self.transport.abort()

    def _cut_off(self, cycle: RequestResponseCycle) -> None:
        if not cycle.disconnected:
            cycle.disconnected = True
            cycle.message_event.set()
            self._close()


class GuardedWebSocket(WebSocketsSansIOProtocol):
    """One WebSocket."""

    write_time = WRITE_TIME

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._write_timer = _Timer(self.loop, self._abort)
        vars(self.conn)["reject"] = _refused_handshake  # websockets' own answer is plain text

    def connection_lost(self, exc: Exception | None) -> None:
        self._write_timer.stop()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        self._write_timer.start(self.write_time)
        super().pause_writing()

    def resume_writing(self) -> None:
        self._write_timer.stop()
        super().resume_writing()

    def _abort(self) -> None:
        self.transport.abort()


def _refused_handshake(status: int, text: str) -> Response:
    """Returns the answer to what is no handshake; `text` may have words of an exception."""
    detail = "this is not the handshake of a WebSocket" if status < 500 else "cgate has failed; its log says why"
    fields, body = problem_fields(Problem(status, detail, headers={"Connection": "close"}))
    headers = WebSocketHeaders((name.decode(), value.decode()) for name, value in fields)
    return Response(int(status), HTTPStatus(status).phrase, headers, body)


def _watch_peer(transport: asyncio.BaseTransport) -> None:
    """Lets the kernel notice a peer that has vanished, idle or in the middle of an answer."""
    connection = transport.get_extra_info("socket")
    if connection is None or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    options = [
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        (socket.IPPROTO_TCP, "TCP_NODELAY", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE", PROBE_TIME),
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", PROBE_TIME),
        (socket.IPPROTO_TCP, "TCP_KEEPCNT", max(1, GONE_TIME // PROBE_TIME - 1)),
        (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", GONE_TIME * 1000),
    ]
    for level, name, value in options:
        number = getattr(socket, name, None)
        if number is None:
            continue  # another system
        try:
            connection.setsockopt(level, number, value)
        except OSError:
            pass  # it has ended already
