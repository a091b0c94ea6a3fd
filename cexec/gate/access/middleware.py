"""The door of `cgate`: what every request passes before the application sees it.

Contract: plain ASGI around the whole application, for requests and WebSockets.  In this order a request is refused: an
address that is none, or has a secret in it (400); no valid token or session (401), or too many wrong ones (429); a
session that is used by another page (403, 421); too many requests (429); a change by a viewer (403); a body that is too
large (413).  What passes has its `Caller` in `scope["cexec.identity"]` and an empty list `scope["cexec.changes"]`, to
which handlers add words about what they have changed.  When the token or session ends meanwhile, the request ends.
PUBLIC paths need no token.  Every answer gets the header fields of `answers`.  A `Problem` that comes out of the
application becomes its answer, and any other exception a 500 without a word about it; the log has the rest.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable
from math import ceil
from secrets import token_hex
from time import monotonic
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect
from starlette.websockets import WebSocketDisconnect

from cexec.errors import LocalError
from cexec.gate.access.asgi import AsgiApp, Receive, Scope, Send, send_problem
from cexec.gate.access.audit import Audit, source_of
from cexec.gate.access.body_limits import check_length, limited
from cexec.gate.access.caller import SCOPE_KEY, Caller, TokenRole
from cexec.gate.access.caller_limits import CallerLimits
from cexec.gate.access.credential import NOT_VALID, check_address, credential_of, unauthorized
from cexec.gate.access.guarded_answer import CLOSE_FAILED, CLOSE_UNAUTHORIZED, GuardedAnswer
from cexec.gate.access.key_changes import KeyChanges
from cexec.gate.access.key_rows import Key, ended_keys, find_key, list_keys
from cexec.gate.access.live_requests import LiveRequests, NoLongerValidError
from cexec.gate.access.rates import CallerRates
from cexec.gate.access.secret import Kind
from cexec.gate.access.sessions import LOGIN_PATH, LOGOUT_PATH
from cexec.gate.access.site import SAFE_METHODS, Headers, Site, check_page
from cexec.gate.access.steady_clock import SteadyClock
from cexec.gate.problem import Problem

if TYPE_CHECKING:
    from cexec.gate.store.database import Database

CHANGES_KEY = "cexec.changes"
PUBLIC = frozenset({"/healthz", LOGIN_PATH})
STATIC = "/static/"
# Fields of which only one counts: of two, the one that is not looked at would be passed over.
ONCE = ("host", "content-type", "idempotency-key", "last-event-id", "range")
WEBSOCKET = "WEBSOCKET"  # in place of a method
_READING = SAFE_METHODS | {"OPTIONS"}
_log = logging.getLogger("cexec.gate")


class Access:
    """The middleware.  `site`: the names of this server."""

    def __init__(
        self,
        app: AsgiApp,
        database: Database,
        *,
        site: Site,
        audit: Audit,
        limits: CallerLimits,
        clock: SteadyClock | None = None,
        rates: CallerRates | None = None,
    ) -> None:
        """`rates`: of tokens, if calls of gRPC count in the same."""
        self._app = app
        self._reader = database.new_reader()
        self._site = site
        self._audit = audit
        self._limits = limits
        self._clock = clock or SteadyClock()
        self._rates = rates or CallerRates(limits.rate, limits.burst)
        self._mistakes = CallerRates(limits.mistakes, limits.mistakes_at_once)
        self._refusals = CallerRates(limits.mistakes, limits.mistakes_at_once)
        self._changes = KeyChanges(self._reader.read(_all_keys))
        self._live = LiveRequests(self._ended, limits.look)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        answer = GuardedAnswer(scope, send)
        method = scope["method"] if scope["type"] == "http" else WEBSOCKET
        scope[CHANGES_KEY] = []
        try:
            check_address(scope.get("raw_path") or scope["path"].encode(), scope.get("query_string", b""))
            headers = Headers(scope["headers"])
            for name in ONCE:
                headers.only(name)
            if headers.only("host") is None and scope.get("http_version") == "1.1":
                raise Problem(400, "the field host is missing")  # RFC 9112, section 3.2
            identity = None if is_public(scope["path"]) else self._admit(headers, method, scope)
            await self._pass_on(identity, headers, scope, receive, answer)
        except Problem as problem:
            await self._refuse(problem, scope, answer)
        except (ClientDisconnect, WebSocketDisconnect):
            pass  # nobody is there any more
        except Exception as error:
            await self._refuse(self._unexpected(error), scope, answer)
        finally:
            self._write_audit(method, scope, answer)

    def _admit(self, headers: Headers, method: str, scope: Scope) -> Caller:
        identity = self._identify(headers, method, scope)
        wait = self._rates.admit(identity.token, monotonic())
        if wait is not None:
            raise _too_many("this token makes too many requests", wait)
        if method not in _READING and scope["path"] != LOGOUT_PATH:
            identity.require(TokenRole.SUBMITTER)
        return identity

    def _identify(self, headers: Headers, method: str, scope: Scope) -> Caller:
        """Returns who has the secret that the request brings."""
        try:
            secret = credential_of(headers, secure=self._site.secure, websocket=method == WEBSOCKET)
            now = self._clock.now()
            key = self._reader.read(lambda connection: find_key(connection, secret, now))
            if key is None:
                raise unauthorized(NOT_VALID)
        except Problem as problem:
            if problem.status == 401:
                self._count_mistake(scope)
            raise
        identity = scope[SCOPE_KEY] = key.identity(self._limits.jobs)
        if key.kind is Kind.SESSION:
            check_page(self._site, headers, method)
        return identity

    def _count_mistake(self, scope: Scope) -> None:
        client = scope.get("client")
        wait = self._mistakes.admit(client[0] if client else None, monotonic())
        if wait is not None:
            raise _too_many("too many requests without a valid token come from this address", wait)

    async def _pass_on(
        self, identity: Caller | None, headers: Headers, scope: Scope, receive: Receive, answer: GuardedAnswer
    ) -> None:
        if scope["type"] == "http" and not is_streamed(scope["method"], scope["path"]):
            check_length(headers, self._limits)
            receive = limited(receive, self._limits)
        if identity is None:
            await self._app(scope, receive, answer.send)
            return

        async def work() -> None:
            await self._app(scope, receive, answer.send)

        await self._live.run(identity.token, work())

    async def _refuse(self, problem: Problem, scope: Scope, answer: GuardedAnswer) -> None:
        if answer.status is not None:
            await answer.give_up(problem.detail, CLOSE_UNAUTHORIZED if problem.status == 401 else CLOSE_FAILED)
            return
        if problem.status == 401 and scope["path"] == "/" and scope.get("method") == "GET":
            problem = Problem(303, "log in", headers={"Location": LOGIN_PATH})  # a person, most likely
        await send_problem(scope, answer.send, problem)

    def _unexpected(self, error: Exception) -> Problem:
        """Returns what the client is told, and logs what has happened."""
        if isinstance(error, NoLongerValidError):
            return unauthorized(NOT_VALID)
        reference = token_hex(4)
        if isinstance(error, LocalError | sqlite3.Error | OSError):
            _log.error("request %s: %s", reference, error)
            return Problem(503, "cgate cannot do this at the moment; its log says why", reference=reference)
        _log.error("request %s", reference, exc_info=error)
        return Problem(500, "cgate has failed; its log says why", reference=reference)

    def _write_audit(self, method: str, scope: Scope, answer: GuardedAnswer) -> None:
        status = answer.status
        identity: Caller | None = scope.get(SCOPE_KEY)
        refused = status in (401, 403, 421, 429) or (identity is None and (status is None or status >= 400))
        if method in _READING and not refused:
            return
        if refused and self._refusals.admit(identity and identity.token, monotonic()) is not None:
            return  # neither strangers nor a caller who may not do it can fill the log
        what = f"{method} {scope['path']}"
        self._audit.write(identity, source_of(scope.get("client")), what, status or "gone", scope[CHANGES_KEY])

    def _ended(self, keys: Iterable[int]) -> set[int]:
        """Returns which keys are not valid any more; tells the audit what commands have changed meanwhile."""
        for what, about in self._changes.look(self._reader.read(_all_keys)):
            self._audit.write(None, "command", what, "done", [about])
        self._audit.flush()
        now = self._clock.now()
        return self._reader.read(lambda connection: ended_keys(connection, keys, now))


def _all_keys(connection: sqlite3.Connection) -> list[Key]:
    return list_keys(connection, Kind)


def is_public(path: str) -> bool:
    """Returns True for a path that needs no token."""
    return path in PUBLIC or path.startswith(STATIC)


def is_streamed(method: str, path: str) -> bool:
    """Returns True for a request whose body is read as fast as a program takes it, and may have any size."""
    words = path.split("/")
    return (method == "PUT" and words[:3] == ["", "v1", "jobs"] and words[4:] == ["stdin"]) or (
        method == "POST" and words[:3] == ["", "v1", "apps"] and words[4:] == ["run"]
    )


def _too_many(detail: str, wait: float) -> Problem:
    return Problem(429, detail, headers={"Retry-After": str(max(1, ceil(wait)))})
