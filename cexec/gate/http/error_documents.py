"""Every error as a problem document, and nothing of the inside in it.

Contract: `ErrorDocuments` is plain ASGI and wraps the application.  An error that nobody expected is logged with its
trace, and told as 500 without one.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException

from cexec.errors import CexecError, TooLongError, UsageError
from cexec.gate.http.request_bodies import ClientGone
from cexec.gate.http.stream_answers import CutOff, problem_answer
from cexec.gate.problem import Problem
from cexec.gate.store.database import StateFullError
from cexec.gate.store.output_files import FULL

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOG = logging.getLogger("cexec.gate")


class ErrorDocuments:
    """Answers the errors of `app`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def note(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, note)
        except ClientGone:
            return
        except Exception as error:
            if started:  # the connection ends in the middle of the answer
                raise
            await problem_answer(problem_of(error))(scope, receive, send)


def problem_of(error: Exception) -> Problem:
    """Returns what a client is told of an error."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, HTTPException):
        headers = dict(error.headers or {})
        detail = error.detail if error.detail != HTTPStatus(error.status_code).phrase else _WORDS.get(error.status_code)
        return Problem(error.status_code, detail or error.detail, headers=headers)
    if isinstance(error, UsageError):
        return Problem(413 if isinstance(error, TooLongError) else 422, str(error))
    if isinstance(error, StateFullError) or (isinstance(error, OSError) and error.errno in FULL):
        return Problem(507, "there is no room to keep what was asked for; nothing was started")
    if isinstance(error, CutOff):
        return Problem(502, str(error))
    LOG.error("a request has failed", exc_info=error)
    if isinstance(error, CexecError):
        return Problem(503, "cgate cannot do that now; its log says why")
    return Problem(500, "cgate has failed; its log says more")


_WORDS = {404: "there is nothing at this path; see /v1/openapi.json", 405: "this method is not for this path"}
