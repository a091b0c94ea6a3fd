"""Connections that clients try to hold, to fill or to confuse: bytes that no library sends."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from cexec.gate.access.connection import HEAD_FIELDS, HEAD_SIZE, GuardedHttp, GuardedWebSocket
from tests.gate.access.door import Door, open_door, read_all
from tests.waiting import PATIENCE, wait_until


class QuickHttp(GuardedHttp):
    """Less patient than users' servers."""

    head_time = 0.4
    write_time = 0.4
    linger_time = 0.4


class QuickWebSocket(GuardedWebSocket):
    write_time = 0.4


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with open_door(tmp_path_factory.mktemp("door"), http=QuickHttp, websocket=QuickWebSocket) as door:
        yield door


@pytest.fixture(scope="module")
def token(door: Door) -> str:
    return door.token()


def refused(answer: bytes, status: int) -> str:
    """Checks that this is one problem document; returns its detail."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer[:300]
    assert b"application/problem+json" in head and b"connection: close" in head.lower()
    document = json.loads(body)
    assert document["status"] == status
    return str(document["detail"])


# Heads


def test_a_request_names_its_host(door: Door) -> None:
    answer = door.raw(b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert refused(answer, 400) == "the field host is missing"
    assert door.raw(b"GET /healthz HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_too_many_header_fields_are_refused(door: Door) -> None:
    fields = b"".join(b"A%d: b\r\n" % number for number in range(HEAD_FIELDS + 1))
    detail = refused(door.raw(b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + fields + b"\r\n"), 431)
    assert detail == f"at most {HEAD_FIELDS} header fields of {HEAD_SIZE} bytes together are read"


@pytest.mark.parametrize("field", [b"A: %s", b"%s: a", b"Cookie: cgate=%s"])
def test_a_head_that_is_too_large_is_refused(door: Door, field: bytes) -> None:
    head = b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + field % (b"x" * (HEAD_SIZE + 1)) + b"\r\n\r\n"
    refused(door.raw(head), 431)


def test_a_head_that_never_ends_is_refused_when_it_is_too_large(door: Door) -> None:
    with door.connect() as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: ")
        try:
            for _ in range(64):
                connection.sendall(b"x" * 16384)
        except (BrokenPipeError, ConnectionResetError):
            pass
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 431 ") or answer == b""  # the reset may come before it


def test_a_path_that_is_too_long_is_refused(door: Door) -> None:
    refused(door.raw(b"GET /" + b"x" * (HEAD_SIZE + 1) + b" HTTP/1.1\r\nHost: x\r\n\r\n"), 431)


@pytest.mark.parametrize(
    "begin", [b"", b"\r\n", b"GET /healthz HTTP/1.1\r\nHos", b"GET /healthz HTTP/1.1\r\nHost: x\r\n"]
)
def test_a_head_that_does_not_come_is_given_up(door: Door, begin: bytes) -> None:
    began = time.monotonic()
    assert door.raw(begin) == b""
    assert time.monotonic() - began < PATIENCE


def test_a_head_that_drips_is_given_up(door: Door) -> None:
    with door.connect() as connection:
        connection.settimeout(0.1)
        for byte in b"GET /healthz HTTP/1.1\r\n" + b"A: b\r\n" * 100:
            try:
                connection.sendall(bytes([byte]))
                if connection.recv(1000) == b"":
                    return
            except TimeoutError:
                continue
            except (BrokenPipeError, ConnectionResetError):
                return
    pytest.fail("it was never given up")


def test_empty_lines_do_not_hold_a_connection(door: Door) -> None:
    with door.connect() as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200 OK" in connection.recv(65536)
        connection.sendall(b"\r\n")
        connection.settimeout(PATIENCE)
        read_all(connection)


def test_an_empty_line_behind_a_request_does_not_end_its_answer(door: Door, token: str) -> None:
    with door.connect() as connection:
        connection.sendall(
            f"GET /v1/jobs/7/stdout HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
        )
        connection.recv(65536)
        connection.sendall(b"\r\n")
        deadline = time.monotonic() + 3 * QuickHttp.head_time
        while time.monotonic() < deadline:
            assert connection.recv(65536)


# What two programs on the way may understand in two ways


SMUGGLED = b"GET /v1/jobs HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"Content-Length: 5, 5\r\n\r\nhello",
        b"Content-Length: +5\r\n\r\nhello",
        b"Content-Length: -1\r\n\r\n",
        b"Content-Length: 0x5\r\n\r\nhello",
        b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        b"X: a\r\n b\r\n\r\n",
        b"X: a\rY: b\r\n\r\n",
        b"X: a\x00b\r\n\r\n",
        b"X y: a\r\n\r\n",
        b": a\r\n\r\n",
    ],
)
def test_an_ambiguous_request_ends_the_connection(door: Door, token: str, head: bytes) -> None:
    before = door.started
    begin = f"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n".encode()
    answer = door.raw(begin + head + SMUGGLED)
    assert answer.count(b"HTTP/1.1 ") == 1 and refused(answer, 400)
    assert door.started == before


@pytest.mark.parametrize(
    "line", [b"GET /healthz HTTP/9.9", b"GET /healthz", b"\x16\x03\x01\x02\x00\x01", b"GET  HTTP/1.1"]
)
def test_what_is_no_http_is_refused(door: Door, line: bytes) -> None:
    answer = door.raw(line + b"\r\nHost: x\r\n\r\n")
    assert refused(answer, 400) == "this is not a request of HTTP/1.1"


def test_two_hosts_are_refused(door: Door) -> None:
    answer = door.raw(b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")


def test_a_request_behind_a_body_belongs_to_the_body(door: Door, token: str) -> None:
    begin = f"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n"
    answer = door.raw(f"{begin}Content-Length: {len(SMUGGLED)}\r\n\r\n".encode() + SMUGGLED)
    assert answer.count(b"HTTP/1.1 ") == 1 and b'{"size":%d}' % len(SMUGGLED) in answer


# Bodies that were refused, readers that do not read


def test_a_refused_body_is_not_read_for_ever(door: Door) -> None:
    with door.connect() as connection:
        connection.sendall(b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")
        answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 401 ")
        connection.settimeout(PATIENCE)
        try:
            while True:
                connection.sendall(bytes(65536))
                time.sleep(0.01)
        except (BrokenPipeError, ConnectionResetError):
            pass


def test_a_client_that_sends_all_of_a_refused_body_reads_the_answer_and_goes_on(tmp_path: Path) -> None:
    """However slowly it sends: this server has the patience of users' servers."""
    with (
        open_door(tmp_path) as patient,
        closing(HTTPConnection("127.0.0.1", patient.port, timeout=PATIENCE)) as connection,
    ):
        sockets = set()
        for _ in range(2):
            connection.request("POST", "/v1/jobs", bytes(200_000))
            answer = connection.getresponse()
            assert answer.status == 401 and answer.read()
            sockets.add(connection.sock)
    assert len(sockets) == 1


def test_a_reader_that_does_not_read_is_given_up(door: Door, token: str) -> None:
    ended = door.seen.count("flood ended")
    with door.connect() as connection:
        connection.sendall(f"GET /v1/flood HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
        wait_until(lambda: door.seen.count("flood ended") > ended)


def test_a_websocket_whose_reader_does_not_read_is_given_up(door: Door, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    url = f"ws://127.0.0.1:{door.port}/v1/exec"
    with (
        connect(url, additional_headers=headers, proxy=None, close_timeout=0.1, max_queue=1) as websocket,
        pytest.raises((ConnectionClosed, OSError, TimeoutError)),
    ):
        for _ in range(10_000):
            websocket.send("x" * 65536)  # which comes back, and is not read
    # the server is still there
    assert door.raw(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_the_door_serves_on_while_it_is_attacked(door: Door, tmp_path: Path, token: str) -> None:
    held = [door.connect() for _ in range(50)]
    try:
        for connection in held:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHos")
        with door.client(token) as client:
            assert client.get("/v1/jobs").status_code == 200
    finally:
        for connection in held:
            connection.close()
