"""The answer of one request, watched on its way to the client.

Contract: `GuardedAnswer.send` passes ASGI messages on.  It adds the header fields that keep browsers from showing,
keeping or guessing what they get, without replacing those that the application has set, and remembers the status.
`give_up` ends an answer that has begun and cannot be completed, so that the client sees that it is cut off.
"""

from __future__ import annotations

from cexec.gate.access.asgi import REFUSAL, Fields, Message, Scope, Send

ABORT = "cexec.abort"  # an extension of ASGI: the function that ends a connection in the middle of its answer
CLOSE_FAILED = 1011  # RFC 6455 section 7.4.1: an internal error
CLOSE_UNAUTHORIZED = 4401  # a close code (ours, RFC 6455 section 7.4.2): the token has ended
# No Strict-Transport-Security: it is a rule for all ports of a host name, and other servers there may have no TLS.
_FIELDS: Fields = [
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"same-origin"),  # with no-referrer, browsers send forms of our own pages with Origin: null
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
]


class GuardedAnswer:
    """`status` is None until the answer has begun; that of a WebSocket that was accepted is 101."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.status: int | None = None
        self.complete = False
        self._scope = scope
        self._send = send

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind in ("http.response.start", f"{REFUSAL}.start"):
            self.status = message["status"]
            there = {name.lower() for name, _ in message.get("headers", ())}
            message["headers"] = [
                *message.get("headers", ()),
                *((name, value) for name, value in _FIELDS if name not in there),
            ]
        elif kind == "websocket.accept":
            self.status = 101
        elif kind == "websocket.close":
            self.complete = True
            self.status = self.status or 403
        elif kind in ("http.response.body", f"{REFUSAL}.body"):
            self.complete = not message.get("more_body", False)
        await self._send(message)

    async def give_up(self, reason: str, code: int) -> None:
        """Closes the WebSocket, with this code, or the connection."""
        if self.complete:
            return
        if self._scope["type"] == "websocket" and self.status == 101:
            await self.send({"type": "websocket.close", "code": code, "reason": reason[:100]})
            return
        abort = (self._scope.get("extensions") or {}).get(ABORT)
        if abort is None:
            raise ConnectionAbortedError(reason)  # the server hangs up then
        abort()
