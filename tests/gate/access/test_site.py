"""Which pages may use a browser's session: the table of attackers."""

from __future__ import annotations

import pytest

from cexec.gate.access.credential import cookie_name, credential_of
from cexec.gate.access.secret import Kind, new_secret
from cexec.gate.access.site import Headers, Site, check_page
from cexec.gate.problem import Problem

LOCAL = Site.make("127.0.0.1", 8042, tls=False)
FAR = Site.make("0.0.0.0", 443, tls=True, names=["gate.example.org", "*.lab.example.org", "10.0.0.5", "fd77::5"])


def headers(**fields: str) -> Headers:
    return Headers([(name.replace("_", "-").encode(), value.encode()) for name, value in fields.items()])


@pytest.mark.parametrize("host", ["127.0.0.1:8042", "localhost:8042", "LOCALHOST:8042", "[::1]:8042"])
def test_names_of_the_loopback(host: str) -> None:
    assert LOCAL.is_host(host) and LOCAL.is_origin(f"http://{host}")


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8042", "localhost", "localhost:80", "localhost:8042.evil.example", "", ":8042",
     "localhost:8042:1", "127.0.0.1.evil.example:8042", "127.0.0.1@evil:8042", "[::1", "[::1]x:8042", "localhost.:8042",
     "localhost:08042", "localhost:8042 "],
)  # fmt: skip
def test_names_of_others(host: str) -> None:
    assert not LOCAL.is_host(host)


def test_names_of_a_certificate() -> None:
    for host in ("gate.example.org", "gate.example.org:443", "a.lab.example.org", "10.0.0.5", "[fd77::5]", "localhost"):
        assert FAR.is_host(host), host
    for host in ("example.org", "a.b.lab.example.org", "lab.example.org", "gate.example.org:8042", "0.0.0.1", "*.x"):
        assert not FAR.is_host(host), host
    assert FAR.is_origin("https://gate.example.org") and not FAR.is_origin("http://gate.example.org")


def test_people_are_told_a_name_that_works() -> None:
    assert LOCAL.url == "http://127.0.0.1:8042"
    assert FAR.url == "https://gate.example.org:443"
    assert Site.make("::", 1, tls=True, names=["*.example.org"]).url == "https://localhost:1"
    assert Site.make("fd77::5", 1, tls=True, names=["a"]).url == "https://[fd77::5]:1"
    for site in (LOCAL, FAR):
        assert site.is_origin(site.url)


OWN = {"host": "localhost:8042"}
PAGES = [
    # method, fields beside the cookie, status of the refusal
    ("GET", OWN, None),
    ("GET", {**OWN, "sec_fetch_site": "none"}, None),
    ("GET", {**OWN, "sec_fetch_site": "same-origin", "origin": "http://localhost:8042"}, None),
    ("POST", {**OWN, "origin": "http://localhost:8042"}, None),
    ("POST", {**OWN, "origin": "http://localhost:8042", "sec_fetch_site": "same-origin"}, None),
    ("WEBSOCKET", {**OWN, "origin": "http://localhost:8042"}, None),
    # the attacker's name server says 127.0.0.1
    ("GET", {"host": "evil.example:8042"}, 421),
    ("POST", {"host": "evil.example:8042", "origin": "http://evil.example:8042"}, 421),
    ("GET", {}, 421),
    # a form, a script or a picture of another site
    ("POST", {**OWN, "origin": "http://evil.example"}, 403),
    ("POST", {**OWN, "origin": "null"}, 403),
    ("POST", OWN, 403),
    ("DELETE", {**OWN, "origin": "https://localhost:8042"}, 403),
    ("GET", {**OWN, "sec_fetch_site": "cross-site"}, 403),
    ("GET", {**OWN, "origin": "http://evil.example"}, 403),
    ("POST", {**OWN, "origin": "http://localhost:8042", "sec_fetch_site": "cross-site"}, 403),
    ("POST", {**OWN, "origin": "http://localhost:8042", "sec_fetch_site": "none"}, 403),
    # another server on this machine: the same site for a browser, which sends it our cookie
    ("POST", {**OWN, "origin": "http://localhost:3000"}, 403),
    ("GET", {**OWN, "sec_fetch_site": "same-site"}, 403),
    ("POST", {**OWN, "origin": "http://127.0.0.1:8042"}, 403),
    # a WebSocket, which no rule of browsers keeps to one origin
    ("WEBSOCKET", {**OWN, "origin": "http://evil.example"}, 403),
    ("WEBSOCKET", OWN, 403),
]


@pytest.mark.parametrize(("method", "fields", "status"), PAGES)
def test_pages(method: str, fields: dict[str, str], status: int | None) -> None:
    if status is None:
        check_page(LOCAL, headers(**fields), method)
        return
    with pytest.raises(Problem) as refused:
        check_page(LOCAL, headers(**fields), method)
    assert refused.value.status == status


def test_a_second_host_or_origin_is_refused() -> None:
    for name in (b"host", b"origin", b"sec-fetch-site"):
        twice = Headers([(b"host", b"localhost:8042"), (name, b"localhost:8042"), (name, b"evil")])
        with pytest.raises(Problem) as refused:
            check_page(LOCAL, twice, "GET")
        assert refused.value.status == 400


def test_a_cookie_that_another_page_has_added_is_refused() -> None:
    """A page of another port can set a cookie for this host: the browser then sends two."""
    one, two = (new_secret(Kind.SESSION).text for _ in range(2))
    for fields in (
        [(b"cookie", f"cgate={one}; cgate={two}")],
        [(b"cookie", f"cgate={one}"), (b"cookie", f"cgate={two}")],
    ):
        with pytest.raises(Problem) as refused:
            credential_of(Headers((name, value.encode()) for name, value in fields), secure=False, websocket=False)
        assert refused.value.status == 400


def test_the_cookie_over_tls_cannot_be_set_by_other_hosts() -> None:
    assert cookie_name(secure=True) == "__Host-cgate"
    text = new_secret(Kind.SESSION).text
    with pytest.raises(Problem):
        credential_of(headers(cookie=f"cgate={text}"), secure=True, websocket=False)
    assert credential_of(headers(cookie=f"a=b; __Host-cgate={text}"), secure=True, websocket=False).kind is Kind.SESSION


def test_a_token_is_no_cookie_and_a_session_no_token() -> None:
    token, session, login = (new_secret(kind).text for kind in (Kind.TOKEN, Kind.SESSION, Kind.LOGIN))
    for fields in ({"cookie": f"cgate={token}"}, {"cookie": f"cgate={login}"}, {"authorization": f"Bearer {session}"},
                   {"authorization": f"Bearer {login}"}):  # fmt: skip
        with pytest.raises(Problem) as refused:
            credential_of(headers(**fields), secure=False, websocket=False)
        assert refused.value.status == 401


def test_a_wrong_token_is_not_saved_by_a_good_cookie() -> None:
    session = new_secret(Kind.SESSION).text
    with pytest.raises(Problem):
        credential_of(headers(authorization="Bearer x", cookie=f"cgate={session}"), secure=False, websocket=False)


def test_a_subprotocol_is_a_token_for_a_websocket_only() -> None:
    text = new_secret(Kind.TOKEN).text
    offered = headers(sec_websocket_protocol=f"cgate.v1, bearer.{text}")
    assert credential_of(offered, secure=False, websocket=True).kind is Kind.TOKEN
    with pytest.raises(Problem):
        credential_of(offered, secure=False, websocket=False)
    with pytest.raises(Problem):
        credential_of(headers(sec_websocket_protocol=f"bearer.{text}, bearer.{text}"), secure=False, websocket=True)
