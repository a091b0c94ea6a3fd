"""The WebSocket /v1/exec: a conversation with a program."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.gate.gates import Gate, script, start_job, state_of, wait_for_state
from tests.waiting import PATIENCE, wait_until


@pytest.fixture
def socket(gate: Gate) -> Iterator[ClientConnection]:
    with gate.socket() as connection:
        yield connection


def tell(socket: ClientConnection, kind: str, **members: Any) -> None:
    socket.send(json.dumps({"type": kind, **members}))


def start(socket: ClientConnection, text: str, **members: Any) -> str:
    """Starts a script; returns the id of its job."""
    tell(socket, "start", **script(text, **members))
    first = json.loads(socket.recv(PATIENCE))
    assert first["type"] == "job", first
    return str(first["job"]["id"])


class Heard:
    """All that comes until the job is over: bytes by stream, and messages by type."""

    def __init__(self, socket: ClientConnection) -> None:
        self.outputs = {1: b"", 2: b""}
        self.messages: dict[str, Any] = {}
        try:
            while True:
                message = socket.recv(PATIENCE)
                if isinstance(message, bytes):
                    self.outputs[message[0]] += message[1:]
                else:
                    value = json.loads(message)
                    self.messages.setdefault(value["type"], value)
        except ConnectionClosed:
            self.code = socket.close_code


def test_a_conversation(socket: ClientConnection) -> None:
    start(socket, "read a; echo you said $a; cat; echo bad >&2; exit 3")
    socket.send(b"\0hello\n")
    assert socket.recv(PATIENCE) == b"\x01you said hello\n"
    socket.send(b"\0more")
    tell(socket, "eof")
    heard = Heard(socket)
    assert heard.outputs == {1: b"more", 2: b"bad\n"}
    assert (heard.messages["exit"]["job"]["exit_status"], heard.code) == (3, 1000)


def test_many_bytes_both_ways(socket: ClientConnection) -> None:
    start(socket, "wc -c >&2; head -c 20000000 /dev/zero")
    for _ in range(80):
        socket.send(b"\0" + b"x" * 250_000)
    tell(socket, "eof")
    heard = Heard(socket)
    assert heard.outputs == {1: bytes(20_000_000), 2: b"20000000\n"}
    assert heard.messages["exit"]["job"]["state"] == "succeeded"


def test_a_signal_passes_input_that_waits(socket: ClientConnection) -> None:
    start(socket, "trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.05; done")
    assert socket.recv(PATIENCE) == b"\x01ready\n"
    socket.send(b"\0" + b"x" * 500_000)  # which nobody reads
    tell(socket, "signal", signal="INT")
    heard = Heard(socket)
    assert (heard.outputs[1], heard.messages["exit"]["job"]["exit_status"]) == (b"caught\n", 5)


def test_a_program_that_reads_no_more(socket: ClientConnection) -> None:
    start(socket, "head -c 1; exec <&-; echo closed; sleep 0.2")
    for _ in range(20):
        socket.send(b"\0" + b"x" * 250_000)
    heard = Heard(socket)
    assert heard.outputs[1] == b"xclosed\n" and "exit" in heard.messages


def test_cancel(socket: ClientConnection) -> None:
    start(socket, "echo ready; sleep 1000")
    assert socket.recv(PATIENCE) == b"\x01ready\n"
    tell(socket, "cancel")
    assert Heard(socket).messages["exit"]["job"]["state"] == "cancelled"


def test_input_that_is_known_at_the_start(socket: ClientConnection) -> None:
    start(socket, "cat", stdin="all of it")
    assert Heard(socket).outputs[1] == b"all of it"


def test_a_client_that_goes_comes_back_from_where_it_was(gate: Gate, http: httpx.Client) -> None:
    with gate.socket() as socket:
        id = start(socket, "echo one; cat; echo three >&2")
        assert socket.recv(PATIENCE) == b"\x01one\n"
        socket.send(b"\0two\n")
        assert socket.recv(PATIENCE) == b"\x01two\n"
    wait_until(lambda: state_of(http, id) == "running")

    heard: list[Heard] = []

    def attach() -> bool:
        with gate.socket() as again:
            tell(again, "attach", job=id, stdout=4, stdin=True)
            first = json.loads(again.recv(PATIENCE))
            if first["type"] == "error":
                return False  # the first client has not been missed yet
            assert first["job"]["stdin"] == {"received": 4, "open": True}
            tell(again, "eof")
            heard.append(Heard(again))
            return True

    wait_until(attach)
    assert heard[0].outputs == {1: b"two\n", 2: b"three\n"}
    assert heard[0].messages["exit"]["job"]["state"] == "succeeded"
    with gate.socket() as late:
        tell(late, "attach", job=id)
        assert json.loads(late.recv(PATIENCE))["problem"]["status"] == 409


def test_a_client_that_stops_reading_stops_the_program(gate: Gate, http: httpx.Client) -> None:
    before = gate.memory()
    with gate.socket() as socket:
        id = start(socket, "yes | head -c 1000000000")
        socket.recv_bufsize = 1
        wait_for_state(http, id, "running")
        size = 0

        def settled() -> bool:
            nonlocal size
            last, size = size, int(http.head(f"/v1/jobs/{id}/stdout").headers["content-length"])
            return 0 < size == last

        wait_until(settled, pause=0.3)
        assert size < 50_000_000 and gate.memory() < before + 30_000_000
        tell(socket, "cancel")
        wait_for_state(http, id, "cancelled")
        socket.close_socket()


def test_nobody_attaches_behind_the_end(gate: Gate, http: httpx.Client) -> None:
    id = start_job(http, "printf abc; sleep 1000")
    wait_until(lambda: http.get(f"/v1/jobs/{id}/stdout").content == b"abc")
    with gate.socket() as socket:
        socket.send(json.dumps({"type": "attach", "job": id, "stdout": 4}))
        problem = json.loads(socket.recv(PATIENCE))["problem"]
    assert (problem["status"], problem["detail"]) == (416, "that is behind the end, which is at byte 3")
    http.post(f"/v1/jobs/{id}/cancel")


BAD = [
    ("{", 400, "not JSON"),
    ("[]", 422, "JSON object"),
    (b"\0x", 422, "JSON object"),
    ('{"type": "begin"}', 422, "has to be"),
    ('{"type": "start", "app": "none"}', 404, "no application"),
    ('{"type": "start", "app": "app", "workers": "all"}', 422, "no member workers"),
    ('{"type": "start", "app": "app", "args": 3}', 422, "args"),
    ('{"type": "attach", "job": "none"}', 404, "there is no job"),
    ('{"type": "attach", "job": "none", "stdout": -1}', 422, "attach has the members"),
    ('{"type": "attach", "job": "\\ud800"}', 422, "half a character"),
]


@pytest.mark.parametrize(("message", "status", "words"), BAD, ids=[repr(message) for message, _, _ in BAD])
def test_a_first_message_that_is_not_right(
    socket: ClientConnection, http: httpx.Client, message: str | bytes, status: int, words: str
) -> None:
    before = http.get("/v1/jobs", params={"limit": "1"}).json()["jobs"]
    socket.send(message)
    problem = json.loads(socket.recv(PATIENCE))["problem"]
    assert problem["status"] == status and words in problem["detail"]
    with pytest.raises(ConnectionClosed):
        socket.recv(PATIENCE)
    assert socket.close_code == 1008
    assert http.get("/v1/jobs", params={"limit": "1"}).json()["jobs"] == before


@pytest.mark.parametrize(
    "message", [b"\x01x", b"", '{"type": "start"}', '{"type": "signal"}', '{"type": "signal", "signal": "KILL"}']
)
def test_a_later_message_that_is_not_right_leaves_the_job(gate: Gate, http: httpx.Client, message: str | bytes) -> None:
    with gate.socket() as socket:
        id = start(socket, "sleep 1000")
        socket.send(message)
        heard = Heard(socket)
        assert heard.messages["error"]["problem"]["status"] == 422 and heard.code == 1008
    assert http.post(f"/v1/jobs/{id}/cancel").json()["state"] == "cancelled"


def test_without_a_token_there_is_a_problem_document(gate: Gate) -> None:
    with pytest.raises(InvalidStatus) as refused, connect(gate.url.replace("http", "ws") + "/v1/exec"):
        pass
    assert refused.value.response.status_code == 401
    assert json.loads(refused.value.response.body or b"")["status"] == 401


def test_messages_are_not_compressed(gate: Gate) -> None:
    headers = {"Authorization": f"Bearer {gate.token}"}
    with connect(gate.url.replace("http", "ws") + "/v1/exec", additional_headers=headers) as socket:
        assert socket.response is not None and "Sec-WebSocket-Extensions" not in socket.response.headers
