"""A browser's way in, and the pages that try to use it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import websockets.exceptions
from websockets.sync.client import connect
from websockets.typing import Origin

from cexec.gate.access.caller_limits import CallerLimits
from cexec.gate.access.steady_clock import SteadyClock
from tests.gate.access.door import Door, open_door, problem
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with open_door(tmp_path_factory.mktemp("door")) as door:
        yield door


def code_of(url: str) -> str:
    return urlsplit(url).fragment


def enter(door: Door, code: str, **fields: str) -> httpx.Response:
    """What the form of the login page sends."""
    sent = {"Origin": door.base, "Sec-Fetch-Site": "same-origin", **fields}
    with door.client(headers=sent) as client:
        return client.post("/login", data={"code": code})


def log_in(door: Door) -> str:
    """Returns the value of Cookie."""
    answer = enter(door, code_of(door.login_url()))
    assert answer.status_code == 303, answer.text
    return answer.headers["set-cookie"].partition(";")[0]


def test_a_url_becomes_a_session(door: Door) -> None:
    url = door.login_url()
    answer = enter(door, code_of(url))
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie, *attributes = answer.headers["set-cookie"].split("; ")
    assert set(attributes) == {"Path=/", "Max-Age=43200", "HttpOnly", "SameSite=Strict"}
    assert cookie.startswith("cgate=cgates_") and code_of(url) not in cookie
    with door.client(headers={"Cookie": cookie}) as client:
        assert client.get("/v1/jobs").json() == ["login", "admin", None]
        assert client.post("/v1/jobs", headers={"Origin": door.base}).status_code == 201


def test_no_server_ever_gets_the_code_of_a_url(door: Door) -> None:
    """What a browser, a mail scanner and a prefetch ask for has no code, and asking is no use of it."""
    url = door.login_url()
    assert urlsplit(url).path == "/login" and not urlsplit(url).query
    with door.client() as client:
        for purpose in ({}, {"Purpose": "prefetch"}, {"Sec-Purpose": "prefetch;prerender"}):
            page = client.get(url, headers=purpose)
            assert page.status_code == 200 and "set-cookie" not in page.headers
            assert client.head("/login").status_code == 200
    assert enter(door, code_of(url)).status_code == 303


def test_a_url_works_once(door: Door) -> None:
    code = code_of(door.login_url())
    assert enter(door, code).status_code == 303
    answer = enter(door, code)
    assert problem(answer) == (401, "the code was used, is too old, or is none: cgate login prints another one")
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("code", ["", "x", "cgatel_" + "A" * 43, "cgate_" + "A" * 43])
def test_a_wrong_code_is_told_in_the_same_words(door: Door, code: str) -> None:
    assert problem(enter(door, code)) == (
        401,
        "the code was used, is too old, or is none: cgate login prints another one",
    )


def test_a_token_is_no_code(door: Door) -> None:
    assert problem(enter(door, door.token("notacode")))[0] == 401


def test_a_url_that_is_too_old_does_not_work_even_if_the_clock_is_set_back(tmp_path: Path) -> None:
    begin, wall = time.time(), [0.0]
    clock = SteadyClock(lambda: begin + wall[0], lambda: 0.0)
    with open_door(tmp_path, CallerLimits(look=0.05, session=100.0), clock=clock) as door:
        cookie = log_in(door)
        late = door.login_url()
        wall[0] = 301.0
        assert problem(enter(door, code_of(late)))[0] == 401
        with door.client(headers={"Cookie": cookie}) as client:
            assert problem(client.get("/v1/jobs"))[0] == 401  # the session has ended, too
            wall[0] = 0.0  # a clock ahead is not believed for ever
            assert client.get("/v1/jobs").status_code == 200


def test_the_page_runs_its_own_script_only_and_tells_no_address(door: Door) -> None:
    with door.client() as client:
        page = client.get("/login")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert page.headers["referrer-policy"] == "same-origin"
    assert "history.replaceState" in page.text  # the code does not stay in the address
    assert not re.search(r"(src|href)=", page.text)


def test_a_cookie_that_was_set_before_never_becomes_a_session(door: Door) -> None:
    """Fixation: the attacker knows a cookie that the browser brings to the login."""
    planted = "cgate=cgates_" + "A" * 43
    answer = enter(door, code_of(door.login_url()), Cookie=planted)
    assert answer.headers["set-cookie"].partition(";")[0] != planted
    with door.client(headers={"Cookie": planted}) as client:
        assert problem(client.get("/v1/jobs"))[0] == 401


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:3000"])
def test_no_other_page_logs_somebody_in(door: Door, origin: str) -> None:
    code = code_of(door.login_url())
    for fields in ({"Origin": origin, "Sec-Fetch-Site": "cross-site"}, {"Origin": origin}):
        assert problem(enter(door, code, **fields))[0] == 403
    assert problem(enter(door, code, Host="evil.example"))[0] == 421
    assert enter(door, code).status_code == 303  # it was not used


def test_log_out_ends_the_session_here_too(door: Door) -> None:
    cookie = log_in(door)
    with door.client(headers={"Cookie": cookie}) as client:
        assert problem(client.post("/logout", headers={"Origin": "http://evil.example"}))[0] == 403
        answer = client.post("/logout", headers={"Origin": door.base})
        assert answer.status_code == 303 and "Max-Age=0" in answer.headers["set-cookie"]
        client.cookies.clear()
        assert problem(client.get("/v1/jobs"))[0] == 401


def test_sessions_are_revoked_as_tokens_are(door: Door) -> None:
    cookie = log_in(door)
    with door.client(headers={"Cookie": cookie}) as client, client.stream("GET", "/v1/jobs/7/stdout") as response:
        lines = response.iter_lines()
        assert next(lines) == "line"
        door.revoke("login")
        with pytest.raises(httpx.RemoteProtocolError):
            list(lines)


def test_who_is_not_logged_in_is_sent_to_the_login(door: Door) -> None:
    with door.client() as client:
        answer = client.get("/")
        assert (answer.status_code, answer.headers["location"]) == (303, "/login")


@pytest.mark.parametrize("body", [b"code=" + b"x" * 5000, b"code=a&code=b", b"\xff\xfe", b"&" * 4000])
def test_odd_forms(door: Door, body: bytes) -> None:
    with door.client(headers={"Content-Type": "application/x-www-form-urlencoded"}) as client:
        assert problem(client.post("/login", content=body))[0] in (401, 413)


def test_a_form_is_nothing_else(door: Door) -> None:
    with door.client() as client:
        assert problem(client.post("/login", json={"code": "x"}))[0] == 415


# A page of another origin that tries to start a job, with the cookie that the browser adds


def attacks(door: Door) -> dict[str, dict[str, str]]:
    """The fields that a browser sends for such a page."""
    return {
        "a form of another site, in a browser without SameSite": {
            "Origin": "https://evil.example",
            "Sec-Fetch-Site": "cross-site",
            "Content-Type": "text/plain",
        },
        "a form of another server on this machine": {
            "Origin": "http://127.0.0.1:3000",
            "Sec-Fetch-Site": "same-site",
            "Content-Type": "application/x-www-form-urlencoded",
        },
        "a page in a sandbox": {"Origin": "null", "Sec-Fetch-Site": "cross-site"},
        "an old browser that tells nothing": {},
        "a name that leads here": {"Host": f"evil.example:{door.port}", "Origin": f"http://evil.example:{door.port}"},
    }


def test_a_page_of_another_origin_starts_no_job(door: Door) -> None:
    cookie = log_in(door)
    before = door.started
    for what, fields in attacks(door).items():
        with door.client(headers={"Cookie": cookie, **fields}) as client:
            status, _ = problem(client.post("/v1/jobs", content=b'{"app": "app"}'))
            assert status in (403, 421), what
    assert door.started == before

    def tried() -> list[str]:
        return [line for line in door.lines() if re.search(r'who=login\(.*what="POST /v1/jobs" status=4', line)]

    wait_until(lambda: len(tried()) == len(attacks(door)))


def test_a_page_of_another_origin_asks_in_vain_first(door: Door) -> None:
    """A preflight (a script that wants to send JSON or Authorization) is refused, and no answer may be read."""
    with door.client(headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}) as client:
        answer = client.options("/v1/jobs")
    assert problem(answer)[0] == 401
    assert not any(name.startswith("access-control") for name in answer.headers)


def test_a_page_of_another_origin_opens_no_websocket(door: Door) -> None:
    cookie = log_in(door)
    before = door.started
    url = f"ws://127.0.0.1:{door.port}/v1/exec"
    for origin in ("https://evil.example", "null", f"http://localhost:{door.port}", None):
        with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
            connect(
                url,
                additional_headers={"Cookie": cookie},
                origin=None if origin is None else Origin(origin),
                proxy=None,
            )
        assert refused.value.response.status_code == 403
        assert refused.value.response.headers["content-type"] == "application/problem+json"
    assert door.started == before
    with connect(url, additional_headers={"Cookie": cookie}, origin=Origin(door.base), proxy=None) as websocket:
        websocket.send("own page")
        assert websocket.recv() == "own page"
