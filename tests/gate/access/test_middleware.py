"""The door of cgate, attacked over real connections: nobody comes in without a token, and no answer tells too much."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import websockets.exceptions
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from cexec.gate.access.caller import TokenRole
from cexec.gate.access.caller_limits import CallerLimits
from tests.gate.access.door import Door, open_door, problem, read_all
from tests.waiting import wait_until

LIMITS = CallerLimits(
    body=100_000, body_pause=2.0, body_rate=1000.0, look=0.05, mistakes=100.0, mistakes_at_once=1000.0
)
SECRETS = re.compile(r"hunter2|Traceback|/state|RuntimeError|\.py")


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with open_door(tmp_path_factory.mktemp("door"), LIMITS) as door:
        yield door


@pytest.fixture(scope="module")
def token(door: Door) -> str:
    return door.token()


# Who comes in


def test_everything_but_health_and_login_needs_a_token_on_loopback_too(door: Door) -> None:
    with door.client() as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/login").status_code == 200
        for method, path in (("GET", "/v1/jobs"), ("POST", "/v1/jobs"), ("GET", "/metrics"), ("GET", "/none"),
                             ("OPTIONS", "/v1/jobs"), ("PUT", "/healthz/"), ("POST", "/logout")):  # fmt: skip
            response = client.request(method, path)
            assert problem(response)[0] == 401, path
            assert response.headers["www-authenticate"] == 'Bearer realm="cgate"'


def test_a_token_comes_in_at_once_and_a_revoked_one_does_not(door: Door) -> None:
    text = door.token("brief")
    with door.client(text) as client:
        assert client.get("/v1/jobs").json() == ["brief", "submitter", None]
        door.revoke("brief")
        assert problem(client.get("/v1/jobs"))[0] == 401


@pytest.mark.parametrize(
    "value",
    ["", "Bearer", "Bearer x", "Basic Y2k6eA==", "Bearer cgate_" + "A" * 43, "Bearer cgates_" + "A" * 43],
)
def test_a_wrong_token_is_refused(door: Door, value: str) -> None:
    with door.client(headers={"Authorization": value}) as client:
        assert problem(client.get("/v1/jobs"))[0] == 401


def test_a_token_of_another_state_is_refused(door: Door, tmp_path: Path) -> None:
    with open_door(tmp_path) as other:
        foreign = other.token()
    with door.client(foreign) as client:
        assert problem(client.get("/v1/jobs")) == (401, "the token or session is not valid, or no longer")


def test_a_token_that_has_ended_is_refused(door: Door) -> None:
    with door.client(door.token("past", days=-1)) as client:
        assert problem(client.get("/v1/jobs"))[0] == 401


def test_a_viewer_changes_nothing(door: Door) -> None:
    with door.client(door.token("eyes", TokenRole.VIEWER, frozenset({"app"}))) as client:
        assert client.get("/v1/jobs").json() == ["eyes", "viewer", ["app"]]
        before = door.started
        status, detail = problem(client.post("/v1/jobs", content=b"x"))
        assert (status, detail) == (403, "this needs a token with the role submitter; yours is viewer")
        assert door.started == before


def test_two_tokens_in_one_request_are_refused(door: Door, token: str) -> None:
    answer = door.raw(f"GET /v1/jobs HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n"
                      f"Authorization: Bearer {token}\r\n\r\n".encode())  # fmt: skip
    assert answer.startswith(b"HTTP/1.1 400 ")


# Secrets in addresses, and paths


def test_a_secret_in_an_address_is_refused_and_written_nowhere(
    door: Door, token: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    for query in (f"token={token}", f"access_token={token.replace('_', '%5F')}", f"a={token}x"):
        with door.client(token) as client:
            assert problem(client.get(f"/v1/jobs?{query}"))[0] == 400
            assert problem(client.post(f"/v1/jobs/{token}?x=1"))[0] == 400
    with pytest.raises(websockets.exceptions.InvalidStatus):
        connect(f"ws://127.0.0.1:{door.port}/v1/exec?token={token}", proxy=None)
    output, errors = capfd.readouterr()
    assert token[6:] not in door.audit.read_text() + caplog.text + output + errors


@pytest.mark.parametrize(
    "path",
    ["/static/../v1/jobs", "/static/%2e%2e/v1/jobs", "/static/%2e%2e%2fv1", "/static//etc", "/..%5cv1", "/v1/./jobs",
     "//v1/jobs", "/static/%00", "/static/a%0ab"],
)  # fmt: skip
def test_a_path_that_means_another_one_is_refused(door: Door, path: str) -> None:
    answer = door.raw(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 400 "), answer


# What answers tell


def test_an_exception_tells_the_client_nothing(door: Door, token: str) -> None:
    with door.client(token) as client:
        response = client.get("/v1/crash")
    assert problem(response)[0] == 500
    assert not SECRETS.search(response.text + str(response.headers))
    assert re.fullmatch("[0-9a-f]{8}", response.json()["reference"])


def test_an_exception_in_the_middle_of_an_answer_cuts_it_off(door: Door, token: str) -> None:
    with door.client(token) as client, pytest.raises(httpx.RemoteProtocolError):
        client.get("/v1/crash_late")


def test_every_answer_forbids_frames_guesses_and_copies(door: Door, token: str) -> None:
    with door.client(token) as client:
        answers = [client.get(path) for path in ("/v1/jobs", "/healthz", "/login", "/none", "/v1/crash")]
    for answer in answers:
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"], answer.url
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in answer.headers
        assert "server" not in answer.headers
        assert "strict-transport-security" not in answer.headers


# Bodies


def test_a_body_that_announces_too_much_is_refused_before_it_is_sent(door: Door, token: str) -> None:
    before = door.started
    head = f"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nExpect: 100-continue\r\n"
    with door.connect() as connection:
        connection.sendall(f"{head}Content-Length: 100001\r\n\r\n".encode())
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413 ") and b"application/problem+json" in answer
    assert door.started == before


def test_a_body_that_grows_too_large_is_refused(door: Door, token: str) -> None:
    before = door.started
    with door.client(token) as client:
        response = client.post("/v1/jobs", content=(bytes(10_000) for _ in range(30)))
    assert problem(response) == (413, "the body is too large: at most 97.7 KiB are read")
    assert door.started == before


def test_a_body_of_the_largest_size_is_read(door: Door, token: str) -> None:
    with door.client(token) as client:
        assert client.post("/v1/jobs", content=bytes(100_000)).json() == {"size": 100_000}


def test_the_input_of_a_job_has_no_limit(door: Door, token: str) -> None:
    with door.client(token) as client:
        response = client.put("/v1/jobs/7/stdin", content=(bytes(100_000) for _ in range(10)))
    assert response.json() == {"size": 1_000_000}


def test_a_body_that_stops_is_given_up(door: Door, token: str) -> None:
    with door.connect() as connection:
        connection.sendall(
            f"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
            "Content-Length: 1000\r\n\r\nbegin".encode()
        )
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 408 ") and b"too slowly" in answer


def test_a_body_that_drips_is_given_up(door: Door, token: str) -> None:
    with door.connect() as connection:
        connection.sendall(
            f"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
            "Content-Length: 1000\r\n\r\n".encode()
        )
        answer = b""
        connection.settimeout(0.1)
        for _ in range(900):  # one byte each tenth of a second would take 100 s
            try:
                connection.sendall(b"x")
                answer = connection.recv(65536)
                break
            except TimeoutError:
                continue
    assert answer.startswith(b"HTTP/1.1 408 ")


# Revoked in the middle


def test_a_stream_ends_soon_after_its_token_is_revoked(door: Door) -> None:
    text = door.token("streaming")
    ended = door.seen.count("stream ended")
    with door.client(text) as client, client.stream("GET", "/v1/jobs/7/stdout") as response:
        lines = response.iter_lines()
        assert next(lines) == "line"
        door.revoke("streaming")
        begun = time.monotonic()
        with pytest.raises(httpx.RemoteProtocolError):  # cut off: never a complete answer
            for _ in lines:
                assert time.monotonic() - begun < 30
    wait_until(lambda: door.seen.count("stream ended") == ended + 1)


def test_a_stream_ends_soon_after_the_end_of_its_token(door: Door) -> None:
    text = door.token("short", days=3.0 / 86400)
    with door.client(text) as client, client.stream("GET", "/v1/jobs/7/stdout") as response:
        lines = response.iter_lines()
        assert next(lines) == "line"
        with pytest.raises(httpx.RemoteProtocolError):
            list(lines)


def test_a_request_that_waits_is_refused_when_its_token_is_revoked(door: Door) -> None:
    text = door.token("patient")
    with door.client(text) as client, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.get, "/v1/wait")
        wait_until(lambda: "waiting" in door.seen)
        door.revoke("patient")
        assert problem(waiting.result())[0] == 401


def test_a_websocket_ends_soon_after_its_token_is_revoked(door: Door) -> None:
    text = door.token("socket")
    headers = {"Authorization": f"Bearer {text}"}
    with connect(f"ws://127.0.0.1:{door.port}/v1/exec", additional_headers=headers, proxy=None) as websocket:
        websocket.send("hello")
        assert websocket.recv() == "hello"
        door.revoke("socket")
        with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
            websocket.recv(timeout=30)
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 4401


def test_a_request_whose_client_has_gone_leaves_nothing(door: Door, token: str) -> None:
    ended = door.seen.count("stream ended")
    with door.client(token) as client, client.stream("GET", "/v1/jobs/7/stdout") as response:
        next(response.iter_lines())
    wait_until(lambda: door.seen.count("stream ended") == ended + 1)


# WebSockets


def refusal(
    door: Door, headers: dict[str, str] | None = None, subprotocols: list[Subprotocol] | None = None
) -> tuple[int, dict[str, object]]:
    with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
        connect(
            f"ws://127.0.0.1:{door.port}/v1/exec", proxy=None, additional_headers=headers, subprotocols=subprotocols
        )
    response = refused.value.response
    assert response.headers["content-type"] == "application/problem+json"
    return response.status_code, json.loads(response.body)


def test_a_refused_websocket_gets_a_problem_document(door: Door) -> None:
    before = door.started
    status, document = refusal(door)
    assert (status, document["status"]) == (401, 401)
    viewer = door.token("watching", TokenRole.VIEWER)
    status, document = refusal(door, {"Authorization": f"Bearer {viewer}"})
    assert (status, document["status"]) == (403, 403)
    assert door.started == before


def test_a_token_as_subprotocol_opens_a_websocket_and_is_not_sent_back(door: Door, token: str) -> None:
    protocols = [Subprotocol("cgate.v1"), Subprotocol(f"bearer.{token}")]
    with connect(f"ws://127.0.0.1:{door.port}/v1/exec", subprotocols=protocols, proxy=None) as websocket:
        assert websocket.subprotocol == "cgate.v1"
    assert refusal(door, subprotocols=[Subprotocol("cgate.v1"), Subprotocol("bearer.x")])[0] == 401


def test_what_is_no_handshake_gets_a_problem_document(door: Door, token: str) -> None:
    answer = door.raw(f"GET /v1/exec HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: upgrade\r\n"
                      "Upgrade: websocket\r\n\r\n".encode())  # fmt: skip
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 4") and b"application/problem+json" in head
    assert json.loads(body)["detail"] == "this is not the handshake of a WebSocket"


def test_an_exception_behind_a_websocket_tells_the_client_nothing(door: Door, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    with (
        connect(f"ws://127.0.0.1:{door.port}/v1/fail", additional_headers=headers, proxy=None) as websocket,
        pytest.raises(websockets.exceptions.ConnectionClosed) as closed,
    ):
        websocket.recv(timeout=30)
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 1011
    assert not SECRETS.search(closed.value.rcvd.reason)


# CallerRates


def test_a_token_that_asks_too_often_has_to_wait_alone(tmp_path: Path) -> None:
    with open_door(tmp_path, CallerLimits(rate=0.01, burst=3.0)) as door:
        quick, other = door.token("quick"), door.token("other")
        with door.client(quick) as client:
            statuses = [client.get("/v1/jobs").status_code for _ in range(10)]
            response = client.get("/v1/jobs")
            for _ in range(60):  # of which not each is written down
                client.post("/v1/jobs")
        assert statuses[:3] == [200] * 3 and statuses[4:] == [429] * 6
        assert problem(response)[0] == 429 and int(response.headers["retry-after"]) >= 1
        assert 1 <= len(door.lines()) < 40
        with door.client(other) as client:
            assert client.get("/v1/jobs").status_code == 200


def test_strangers_are_slowed_down_and_cannot_fill_the_audit(tmp_path: Path) -> None:
    with open_door(tmp_path, CallerLimits(mistakes=0.01, mistakes_at_once=3.0)) as door:
        valid = door.token()
        with door.client("cgate_" + "A" * 43) as client:
            statuses = [client.post("/v1/jobs").status_code for _ in range(30)]
        assert statuses[:3] == [401] * 3 and statuses[4:] == [429] * 26
        wait_until(lambda: len(door.lines()) >= 3)
        assert len(door.lines()) <= 4
        with door.client(valid) as client:  # from the same address
            assert client.post("/v1/jobs").status_code == 201


# The audit


def test_each_change_has_a_line_that_says_who_what_when_and_from_where(door: Door) -> None:
    text = door.token("auditor")
    with door.client(text) as client:
        client.get("/v1/jobs")
        client.post("/v1/jobs", content=b"x")
        client.delete('/v1/jobs/a"b%20who=root')

    def of_auditor() -> list[str]:
        return [line for line in door.lines() if "who=auditor(" in line]

    wait_until(lambda: len(of_auditor()) >= 2)  # a line follows its answer
    mine = of_auditor()
    number = r"who=auditor\(submitter,#\d+\) from=127\.0\.0\.1:\d+"
    when = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ audit:"
    assert len(mine) == 2
    assert re.fullmatch(rf'{when} {number} what="POST /v1/jobs" status=201 job 7 started', mine[0])
    assert re.fullmatch(rf'{when} {number} what="DELETE /v1/jobs/a\\"b who=root" status=404', mine[1])


def test_a_line_cannot_be_forged(door: Door) -> None:

    def of_strangers() -> list[str]:
        return [line for line in door.lines() if "audit: who=- from=127.0.0.1:" in line]

    before = len(of_strangers())
    door.raw(b"POST /v1/x%0aforged HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    door.raw(b"POST /v1/%E2%80%AE%1b%5b2J%22%20who=root HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    wait_until(lambda: len(of_strangers()) == before + 2)
    assert all(line.isprintable() and re.match(r"\S+Z audit: who=", line) for line in door.lines())


def test_what_commands_change_has_a_line(door: Door, token: str) -> None:
    with door.client(token) as client, client.stream("GET", "/v1/jobs/7/stdout"):  # it is noticed while requests run
        door.token("added", TokenRole.VIEWER, frozenset({"app"}))
        wait_until(lambda: any('from=command what="token add added" status=done' in line for line in door.lines()))
        door.revoke("added")
        door.login_url()
        wait_until(lambda: any('what="token revoke added"' in line for line in door.lines()))
        wait_until(lambda: any('from=command what="login login" status=done' in line for line in door.lines()))
    (made,) = [line for line in door.lines() if '"token add added"' in line]
    assert re.search(r"token #\d+ is a viewer of app$", made)
    assert len([line for line in door.lines() if '"token revoke added"' in line]) == 1


def test_a_websocket_has_a_line(door: Door) -> None:
    text = door.token("executor")
    with connect(
        f"ws://127.0.0.1:{door.port}/v1/exec", additional_headers={"Authorization": f"Bearer {text}"}, proxy=None
    ):
        pass
    wait_until(
        lambda: any("who=executor(" in line and '"WEBSOCKET /v1/exec" status=101' in line for line in door.lines())
    )
