"""The pages by which a browser gets its session and ends it.

Contract: `routes` returns starlette's routes GET and POST /login, and POST /logout.  POST /login takes a form with
`code` and answers with the cookie; a code that is wrong, used or too old is a 401, all in the same words.  A form that
another origin's page sends is refused (403), so nobody logs somebody else in.  Handlers raise `Problem`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from cexec.gate.access.caller import SCOPE_KEY, Caller
from cexec.gate.access.caller_limits import CallerLimits
from cexec.gate.access.credential import unauthorized
from cexec.gate.access.key_rows import find_key, revoke_keys, swap_login
from cexec.gate.access.middleware import CHANGES_KEY
from cexec.gate.access.secret import Secret, parse_secret
from cexec.gate.access.sessions import LOGIN_PATH, LOGOUT_PATH, login_page, session_cookie
from cexec.gate.access.site import Headers, Site, check_page
from cexec.gate.access.steady_clock import SteadyClock
from cexec.gate.problem import Problem

if TYPE_CHECKING:
    from starlette.requests import Request

    from cexec.gate.store.database import Database

LARGEST_FORM = 4096  # bytes (ours)
FORM = "application/x-www-form-urlencoded"


def routes(database: Database, site: Site, limits: CallerLimits, clock: SteadyClock | None = None) -> list[Route]:
    login = _Login(database, site, limits, clock or SteadyClock())
    return [
        Route(LOGIN_PATH, login.show, methods=["GET"]),
        Route(LOGIN_PATH, login.enter, methods=["POST"]),
        Route(LOGOUT_PATH, login.leave, methods=["POST"]),
    ]


class _Login:
    def __init__(self, database: Database, site: Site, limits: CallerLimits, clock: SteadyClock) -> None:
        self._database = database
        self._site = site
        self._limits = limits
        self._clock = clock

    async def show(self, request: Request) -> Response:
        page, policy = login_page()
        return HTMLResponse(page, headers={"Content-Security-Policy": policy})

    async def enter(self, request: Request) -> Response:
        self._check_origin(request)
        code = await _code_of(request)
        now = self._clock.now()
        ends = now + self._limits.session
        session = None
        # Looked for first: strangers who guess must not take the time of the writer.
        if code is not None and await self._database.read(lambda c: find_key(c, code, now) is not None):
            session = await self._database.write(lambda connection: swap_login(connection, code, now, ends))
        if session is None:
            raise unauthorized("the code was used, is too old, or is none: cgate login prints another one")
        request.scope[CHANGES_KEY].append("a session has begun")
        cookie = session_cookie(session.text, self._limits.session, secure=self._site.secure)
        return RedirectResponse("/", status_code=303, headers={"Set-Cookie": cookie})

    async def leave(self, request: Request) -> Response:
        identity: Caller = request.scope[SCOPE_KEY]
        if "authorization" in request.headers:
            raise Problem(409, "a token has no session; cgate token revoke ends it")
        now = self._clock.now()
        await self._database.write(lambda connection: revoke_keys(connection, f"#{identity.token}", now))
        request.scope[CHANGES_KEY].append("the session has ended")
        cookie = session_cookie("", 0, secure=self._site.secure)
        return RedirectResponse(LOGIN_PATH, status_code=303, headers={"Set-Cookie": cookie})

    def _check_origin(self, request: Request) -> None:
        """A program that sends no Origin is no browser, and has nobody's cookies."""
        headers = Headers(request.scope["headers"])
        sent_by_browser = headers.all("origin") or headers.all("sec-fetch-site")
        check_page(self._site, headers, "POST" if sent_by_browser else "GET")


async def _code_of(request: Request) -> Secret | None:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise Problem(415, f"this takes {FORM}")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_FORM:
            raise Problem(413, f"the form is too large: at most {LARGEST_FORM} bytes are read")
    try:
        codes = parse_qs(body.decode("ascii"), max_num_fields=10).get("code", [])
    except ValueError:
        codes = []
    return parse_secret(codes[0].strip()) if len(codes) == 1 else None
