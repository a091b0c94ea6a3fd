"""The body of a request that is read whole: not too large, and not too slow.

Contract: `limited` wraps ASGI's `receive`.  It raises the `Problem` 413 when more bytes than allowed have come, and 408
when none has come for `body_pause` seconds, or when the body as a whole comes slower than `body_rate` after that time.
After the body it waits for the client's disconnect as long as that takes.  `check_length` refuses a body by the length
that it announces, before any of it is read.
"""

from __future__ import annotations

import asyncio
from time import monotonic

from cexec.gate.access.asgi import Message, Receive
from cexec.gate.access.caller_limits import CallerLimits
from cexec.gate.access.site import Headers
from cexec.gate.problem import Problem
from cexec.system.units import show_size


def check_length(headers: Headers, limits: CallerLimits) -> None:
    text = headers.only("content-length")
    if text is not None and (not text.isdigit() or len(text) > 18 or int(text) > limits.body):
        raise _too_large(limits)


def limited(receive: Receive, limits: CallerLimits) -> Receive:
    begun = monotonic()
    got = 0
    more = True

    async def receive_some() -> Message:
        nonlocal got, more
        if not more:
            return await receive()
        try:
            async with asyncio.timeout(limits.body_pause):
                message = await receive()
        except TimeoutError:
            raise _too_slow() from None
        if message["type"] != "http.request":
            more = False
            return message
        got += len(message.get("body", b""))
        more = bool(message.get("more_body", False))
        if got > limits.body:
            raise _too_large(limits)
        elapsed = monotonic() - begun
        if more and elapsed > limits.body_pause and got < limits.body_rate * elapsed:
            raise _too_slow()
        return message

    return receive_some


def _too_large(limits: CallerLimits) -> Problem:
    return Problem(413, f"the body is too large: at most {show_size(limits.body)} are read")


def _too_slow() -> Problem:
    return Problem(408, "the body comes too slowly", headers={"Connection": "close"})
