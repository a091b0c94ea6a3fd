"""Whatever a client writes into its header fields and its address, the answer is a `Problem`, or he is let in."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from cexec.gate.access.credential import check_address, credential_of
from cexec.gate.access.secret import PREFIXES, Kind, has_secret, hide_secrets, new_secret, parse_secret
from cexec.gate.access.site import Headers, Site, check_page
from cexec.gate.problem import Problem

SITE = Site.make("127.0.0.1", 8042, tls=False)
TOKEN, SESSION = new_secret(Kind.TOKEN).text, new_secret(Kind.SESSION).text
NAMES = ("host", "origin", "cookie", "authorization", "sec-fetch-site", "sec-websocket-protocol")
PIECES = (
    "cgate=", "; ", ",", "Bearer ", "bearer.", "cgate.v1", TOKEN, SESSION, "localhost:8042", "127.0.0.1:8042", "[::1]",
    "http://", "https://", "null", "same-origin", "none", ":", "@", "%", " ", "\t", "é",
)  # fmt: skip
VALUES = st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=6).map("".join)
FIELDS = st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=8)


@given(FIELDS, st.booleans(), st.booleans(), st.sampled_from(["GET", "POST", "WEBSOCKET"]))
def test_header_fields(fields: list[tuple[str, str]], secure: bool, websocket: bool, method: str) -> None:
    headers = Headers((name.encode(), value.encode("latin-1", "replace")) for name, value in fields)
    try:
        secret = credential_of(headers, secure=secure, websocket=websocket)
    except Problem as problem:
        assert problem.status in (400, 401)
    else:
        assert secret.kind in (Kind.TOKEN, Kind.SESSION)
        assert any(TOKEN in value or SESSION in value for _, value in fields)
    try:
        check_page(SITE, headers, method)
    except Problem as problem:
        assert problem.status in (400, 403, 421)
    else:
        assert headers.only("host") in ("localhost:8042", "127.0.0.1:8042")
        assert method == "GET" or headers.only("origin") == f"http://{headers.only('host')}"


@given(st.binary(max_size=60), st.binary(max_size=60))
@example(b"/static/%252e%252e/x", b"")
@example(b"/" + b"%c0%ae%c0%ae" + b"/x", b"")
def test_addresses(path: bytes, query: bytes) -> None:
    try:
        check_address(path, query)
    except Problem as problem:
        assert problem.status == 400
    else:
        assert path.startswith(b"/") and b"/../" not in path and not path.endswith(b"/..") and b"\0" not in path


@given(st.text(max_size=30), st.sampled_from(list(Kind)), st.text(max_size=30))
def test_no_secret_is_left_in_a_text(before: str, kind: Kind, after: str) -> None:
    text = new_secret(kind, lambda size: b"\xa5" * size).text
    hidden = hide_secrets(f"{before}{text}{after}")
    assert text.removeprefix(PREFIXES[kind]) not in hidden
    assert has_secret(f"{before}{text}{after}")


@given(st.text(max_size=60))
def test_a_text_is_a_secret_or_it_is_not(text: str) -> None:
    found = parse_secret(text)
    assert found is None or text.startswith(PREFIXES[found.kind])
