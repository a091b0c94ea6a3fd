"""The secret that a request brings.

Contract: `credential_of` returns the secret and its kind, or raises a 401.  A token comes in `Authorization: Bearer`.
JavaScript cannot set that for a WebSocket, and offers the subprotocol `bearer.TOKEN` beside `cgate.v1`.  A session
comes as a cookie.  A request that brings a token is judged by it alone: its cookie is not looked at.  An address is no
place for a secret, since it ends up in logs, histories and Referer: `check_address` refuses it there.  Pure.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

from cexec.gate.access.secret import Kind, Secret, has_secret, parse_secret
from cexec.gate.access.site import Headers
from cexec.gate.problem import Problem

NOT_VALID = "the token or session is not valid, or no longer"
SUBPROTOCOL = "cgate.v1"
BEARER_SUBPROTOCOL = "bearer."
CHALLENGE = {"WWW-Authenticate": 'Bearer realm="cgate"'}
_LONGEST_PATH = 4096  # characters (ours)
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def cookie_name(secure: bool) -> str:
    """Returns the session's cookie; browsers let no other host or port without TLS set one that begins with __Host-."""
    return "__Host-cgate" if secure else "cgate"


def credential_of(headers: Headers, *, secure: bool, websocket: bool) -> Secret:
    """Returns the secret of kind TOKEN or SESSION."""
    found = _token_text(headers, websocket=websocket)
    if found is not None:
        secret, kind = parse_secret(found), Kind.TOKEN
    else:
        text = headers.cookie(cookie_name(secure))
        if text is None:
            raise unauthorized("this needs Authorization: Bearer TOKEN; cgate token add makes a token")
        secret, kind = parse_secret(text), Kind.SESSION
    if secret is None or secret.kind is not kind:
        raise unauthorized(NOT_VALID)
    return secret


def unauthorized(detail: str) -> Problem:
    return Problem(401, detail, headers=CHALLENGE)


def check_address(raw_path: bytes, query: bytes) -> None:
    """Refuses secrets in an address, and paths that mean another one (`..`) to some programs."""
    path = unquote(raw_path.decode("latin-1"))
    if has_secret(path) or has_secret(unquote(query.decode("latin-1"))):
        raise Problem(400, "there is a secret in the address, which many programs write down: revoke it")
    segments = path.replace("\\", "/").split("/")[1:]
    odd = "" in segments[:-1] or {".", ".."} & set(segments)
    if not path.startswith("/") or odd or len(path) > _LONGEST_PATH or _CONTROLS.search(path):
        raise Problem(400, "this is not a path")


def _token_text(headers: Headers, *, websocket: bool) -> str | None:
    authorization = headers.only("authorization")
    if authorization is not None:
        scheme, _, text = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise unauthorized("this needs Authorization: Bearer TOKEN, and no other scheme")
        return text.strip()
    if not websocket:
        return None
    offered = [word.strip() for field in headers.all("sec-websocket-protocol") for word in field.split(",")]
    tokens = [word.removeprefix(BEARER_SUBPROTOCOL) for word in offered if word.startswith(BEARER_SUBPROTOCOL)]
    if len(tokens) > 1:
        raise Problem(400, "there is more than one token")
    return tokens[0] if tokens else None
