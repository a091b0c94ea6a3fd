"""Outputs: whole, in ranges, followed, and no longer kept."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import httpx
import pytest

from tests.gate.gates import Gate, run_job, start_job, wait_for_state
from tests.service import Application
from tests.waiting import PATIENCE, wait_until


@pytest.fixture(scope="module")
def digits(gate: Gate) -> str:
    """A job that has written ten digits, and some bytes of errors."""
    with gate.http() as http:
        return str(run_job(http, "printf 0123456789; printf abc >&2")["id"])


@pytest.mark.parametrize(
    ("wanted", "status", "content", "range"),
    [
        ("bytes=2-4", 206, b"234", "bytes 2-4/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=5-1000", 206, b"56789", "bytes 5-9/10"),
        ("bytes=-1000", 206, b"0123456789", "bytes 0-9/10"),
        ("Bytes=2-4", 206, b"234", "bytes 2-4/10"),
        ("bytes=5-99999999999999999999", 206, b"56789", "bytes 5-9/10"),
        ("bytes=99999999999999999999-", 416, None, "bytes */10"),
        ("bytes=4-2", 200, b"0123456789", None),
        ("bytes=0-1,3-4", 200, b"0123456789", None),
        ("lines=1-2", 200, b"0123456789", None),
        ("bytes=10-", 416, None, "bytes */10"),
        ("bytes=-0", 416, None, "bytes */10"),
    ],
)
def test_ranges(
    http: httpx.Client, digits: str, wanted: str, status: int, content: bytes | None, range: str | None
) -> None:
    answer = http.get(f"/v1/jobs/{digits}/stdout", headers={"Range": wanted})
    assert (answer.status_code, answer.headers.get("content-range")) == (status, range)
    if content is not None:
        assert answer.content == content
    assert answer.headers["cache-control"] == "no-store"


def test_head_and_offset(http: httpx.Client, digits: str) -> None:
    url = f"/v1/jobs/{digits}/stdout"
    head = http.head(url)
    assert (head.status_code, head.headers["content-length"], head.content) == (200, "10", b"")
    assert head.headers["cexec-complete"] == "true" and head.headers["cexec-exit-status"] == "0"
    assert http.get(url, params={"offset": "8"}).content == b"89"
    assert http.get(url, params={"offset": "11"}).status_code == 416
    assert http.get(url, params={"follow": "1", "offset": "8"}).content == b"89"
    assert http.get(url, params={"follow": "1"}, headers={"Range": "bytes=6-"}).content == b"6789"


def test_nobody_follows_from_behind_the_end(http: httpx.Client, digits: str) -> None:
    """It would look whole to a client that comes back at a wrong byte."""
    answer = http.get(f"/v1/jobs/{digits}/stdout", params={"follow": "1", "offset": "11"})
    assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */10")
    assert http.get(f"/v1/jobs/{digits}/stdout", params={"follow": "1", "offset": "10"}).content == b""
    id = start_job(http, "read line; printf abc", stdin={"stream": True})
    with (
        pytest.raises(httpx.RemoteProtocolError),
        http.stream("GET", f"/v1/jobs/{id}/stdout", params={"follow": "1", "offset": "4"}) as answer,
    ):
        assert answer.status_code == 200
        http.put(f"/v1/jobs/{id}/stdin", content=b"line\n")
        answer.read()


def test_an_output_over_several_files(http: httpx.Client, gate: Gate) -> None:
    size = 20_000_000  # three segments
    id = run_job(http, f"yes 0123456 | head -c {size}")["id"]
    whole = http.get(f"/v1/jobs/{id}/stdout").content
    assert whole == (b"0123456\n" * (size // 8))
    assert len([name for name in gate.files if name.startswith(f"{id}.1.")]) == 3
    for start in (8 * 1024 * 1024 - 3, 16 * 1024 * 1024 - 1):
        part = http.get(f"/v1/jobs/{id}/stdout", headers={"Range": f"bytes={start}-{start + 9}"})
        assert part.content == whole[start : start + 10]


def test_following_shows_what_comes_and_the_end_of_the_job(http: httpx.Client) -> None:
    id = start_job(http, "echo first; read line; echo $line; exit 7", stdin={"stream": True})
    with http.stream("GET", f"/v1/jobs/{id}/stdout", params={"follow": "1"}) as answer:
        assert answer.status_code == 200
        parts = answer.iter_raw()
        assert next(parts) == b"first\n"
        http.put(f"/v1/jobs/{id}/stdin", content=b"second\n")
        assert b"".join(parts) == b"second\n"
    assert http.get(f"/v1/jobs/{id}", params={"wait": "60"}).json()["exit_status"] == 7


def test_the_followed_output_of_a_cancelled_job_is_cut_off(http: httpx.Client) -> None:
    id = start_job(http, "echo first; sleep 1000")
    with (
        pytest.raises(httpx.RemoteProtocolError),
        http.stream("GET", f"/v1/jobs/{id}/stdout", params={"follow": "1"}) as answer,
    ):
        parts = answer.iter_raw()
        assert next(parts) == b"first\n"
        http.post(f"/v1/jobs/{id}/cancel")
        list(parts)
    snapshot = http.get(f"/v1/jobs/{id}/stdout")
    assert (snapshot.content, snapshot.headers["cexec-complete"]) == (b"first\n", "false")


def test_many_followers_get_the_same(gate: Gate, http: httpx.Client) -> None:
    id = start_job(http, "read line; yes $line | head -c 1000000", stdin={"stream": True})
    found: list[bytes] = []

    def follow() -> None:
        with gate.http() as own:
            found.append(own.get(f"/v1/jobs/{id}/stdout", params={"follow": "1"}).content)

    threads = [threading.Thread(target=follow) for _ in range(20)]
    for one in threads:
        one.start()
    http.put(f"/v1/jobs/{id}/stdin", content=b"seven\n")
    for one in threads:
        one.join(PATIENCE)
    assert [len(one) for one in found] == [1_000_000] * 20 and len(set(found)) == 1


def test_outputs_expire_and_say_when(key: Application, state: Path) -> None:
    gate = Gate(key, state, ["--retention", "1s"])
    with gate.http() as http:
        job = run_job(http, "head -c 100000 /dev/zero; touch a", fetch=["a"])
        wait_until(lambda: http.get(f"/v1/jobs/{job['id']}/stdout").status_code == 410)
        for what in ("stdout", "stderr", "files/a"):
            answer = http.get(f"/v1/jobs/{job['id']}/{what}")
            assert answer.status_code == 410 and "kept for 1.00 s after the end" in answer.json()["detail"]
            assert answer.json()["expired"] > job["ended"]
        wait_until(lambda: not gate.files)
        assert http.get(f"/v1/jobs/{job['id']}/stdout").status_code == 410
        assert http.get(f"/v1/jobs/{job['id']}").json()["state"] == "succeeded"
    gate.close()


def test_an_output_that_is_longer_than_may_be_kept_ends_its_job(key: Application, state: Path) -> None:
    gate = Gate(key, state, ["--max-output", "1M"])
    with gate.http() as http:
        job = run_job(http, "yes")
        assert job["state"] == "failed" and "--max-output" in job["reason"] and job["exit_status"] is None
        # A pipe whose client reads has no such limit.
        piped = http.post("/v1/apps/app/run", params={"arg": "head -c 30000000 /dev/zero"}, content=b"")
        assert len(piped.content) == 30_000_000
        late = http.get(f"/v1/jobs/{piped.headers['cexec-job']}/stdout")
        assert late.status_code == 410 and late.json()["offset"] > 0
    gate.close()


def test_readers_that_go_leave_nothing_and_do_not_freeze_the_server(gate: Gate, http: httpx.Client) -> None:
    """Regression: uvicorn's `send` returns at once after a disconnect.

    A stream whose source always has bytes then never lets the event loop run, and the whole server stands still.
    """
    id = start_job(http, "yes | head -c 300000000; sleep 1000")
    wait_for_state(http, id, "running")
    wait_until(lambda: int(http.head(f"/v1/jobs/{id}/stdout").headers["content-length"]) > 1_000_000)
    before = gate.connections()
    request = (
        f"GET /v1/jobs/{id}/stdout?follow=1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {gate.token}\r\n\r\n".encode()
    )
    port = int(gate.url.rpartition(":")[2])
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(request)
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
        assert http.get("/healthz").status_code == 200
    wait_until(lambda: gate.connections() <= before)
    job = http.post(f"/v1/jobs/{id}/cancel").json()
    assert job["state"] == "cancelled"
    assert http.delete(f"/v1/jobs/{id}").status_code == 200
