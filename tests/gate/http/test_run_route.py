"""A pipe by HTTP: `POST /v1/apps/{app}/run`, mostly by curl, as users do."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.gate.gates import Gate, state_of, wait_for_state
from tests.waiting import PATIENCE, wait_until


def curl(gate: Gate, query: str, data: bytes = b"", *options: str) -> subprocess.CompletedProcess[bytes]:
    """`curl -T - -X POST`: the input is streamed."""
    argv = ["curl", "-sS", "-T", "-", "-X", "POST", "-H", f"Authorization: Bearer {gate.token}", *options]
    return subprocess.run(
        [*argv, f"{gate.url}/v1/apps/app/run?{query}"], input=data, capture_output=True, timeout=PATIENCE
    )


def raw_request(gate: Gate, query: str, *headers: str) -> socket.socket:
    """A connection on which the request has been sent, without its body."""
    connection = socket.create_connection(("127.0.0.1", int(gate.url.rpartition(":")[2])), timeout=PATIENCE)
    lines = [f"POST /v1/apps/app/run?{query} HTTP/1.1", "Host: x", f"Authorization: Bearer {gate.token}", *headers]
    connection.sendall("\r\n".join([*lines, "", ""]).encode())
    return connection


def read_until(connection: socket.socket, end: bytes) -> bytes:
    found = b""
    while end not in found:
        part = connection.recv(65536)
        assert part, found
        found += part
    return found


def job_of(http: httpx.Client, script: str) -> str:
    """The newest job with this script."""
    found: list[str] = []

    def look() -> bool:
        jobs = http.get("/v1/jobs", params={"limit": "5"}).json()["jobs"]
        found[:] = [job["id"] for job in jobs if job["args"] == [script]]
        return bool(found)

    wait_until(look)
    return found[0]


def test_bytes_pass_and_the_status_is_in_the_trailer(gate: Gate, tmp_path: Path) -> None:
    data = bytes(range(256)) * 40_000
    ended = curl(gate, "arg=cat", data, "--dump-header", str(tmp_path / "headers"))
    assert (ended.returncode, ended.stdout) == (0, data)
    headers = (tmp_path / "headers").read_text().lower()
    assert "cexec-job: " in headers
    assert headers.rstrip().endswith("cexec-exit-status: 0")  # curl writes trailers behind the headers


@pytest.mark.parametrize("script", ["cat;exit+3", "exit+3", "cat;kill+-KILL+$$"])
def test_a_program_that_fails_makes_curl_fail(gate: Gate, script: str) -> None:
    ended = curl(gate, f"arg={script}".replace("$$", "%24%24"), b"some input")
    assert ended.returncode == 18, ended  # partial file
    assert ended.stdout == (b"some input" if "cat" in script else b"")


def test_a_status_that_is_known_before_the_first_byte_is_in_a_header(gate: Gate) -> None:
    with raw_request(gate, "arg=exit+3", "Content-Length: 0") as connection:
        head = read_until(connection, b"\r\n\r\n").lower()
        assert b"cexec-exit-status: 3\r\n" in head and b"cexec-state: failed\r\n" in head


def test_what_could_not_be_run_is_a_problem(gate: Gate) -> None:
    ended = curl(gate, "arg=true&need=%3D", b"", "--fail")
    assert ended.returncode == 22
    assert (
        b"no application"
        in subprocess.run(
            ["curl", "-s", "-X", "POST", "-H", f"Authorization: Bearer {gate.token}", f"{gate.url}/v1/apps/none/run"],
            capture_output=True,
        ).stdout
    )


def test_variables_arguments_and_a_program_that_reads_little(gate: Gate) -> None:
    ended = curl(gate, "arg=head+-c+3;echo+$PEER_A&env=A=b", b"x" * 10_000_000)
    assert (ended.returncode, ended.stdout) == (0, b"xxxb\n")


def test_the_program_waits_for_a_slow_reader(gate: Gate, http: httpx.Client) -> None:
    script = "head -c 40000000 /dev/zero; echo done >&2"
    with raw_request(gate, f"arg={script.replace(' ', '+').replace('&', '%26')}", "Content-Length: 0") as connection:
        read_until(connection, b"\r\n\r\n")
        id = job_of(http, script)
        size = 0

        def settled() -> bool:
            nonlocal size
            before, size = size, int(http.head(f"/v1/jobs/{id}/stdout").headers["content-length"])
            return 0 < size == before

        wait_until(settled, pause=0.3)
        assert size < 16_000_000  # the window, and what the kernel has taken
        assert state_of(http, id) == "running"
    # It goes on without its client, and can be read from any byte.
    wait_for_state(http, id, "succeeded")
    assert len(http.get(f"/v1/jobs/{id}/stdout", params={"offset": "1000"}).content) == 40_000_000 - 1000


def test_a_client_that_goes_in_the_middle_can_come_back(gate: Gate, http: httpx.Client) -> None:
    script = "cat; echo end"
    with raw_request(gate, f"arg={script.replace(' ', '+')}", "Transfer-Encoding: chunked") as connection:
        connection.sendall(b"5\r\nfirst\r\n")
        assert b"first" in read_until(connection, b"first")
        id = job_of(http, script)
    wait_until(lambda: http.put(f"/v1/jobs/{id}/stdin", params={"offset": "0"}).json().get("received") == 5)
    wait_for_state(http, id, "running")  # what has come is not taken for the whole input
    assert http.put(f"/v1/jobs/{id}/stdin", params={"offset": "5"}, content=b" second\n").status_code == 200
    wait_for_state(http, id, "succeeded")
    assert http.get(f"/v1/jobs/{id}/stdout").content == b"first second\nend\n"


def test_a_body_that_is_damaged_is_no_end_of_the_input(gate: Gate, http: httpx.Client) -> None:
    script = "cat; echo the end"
    with raw_request(gate, f"arg={script.replace(' ', '+')}", "Transfer-Encoding: chunked") as connection:
        connection.sendall(b"5\r\nfirst\r\nXXX\r\n")
        while connection.recv(65536):
            pass
    id = job_of(http, script)
    wait_for_state(http, id, "running")
    assert http.get(f"/v1/jobs/{id}").json()["stdin"]["open"]
    assert http.post(f"/v1/jobs/{id}/cancel").json()["state"] == "cancelled"
