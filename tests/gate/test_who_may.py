"""Who may do what at a real `cgate`: roles, owners, applications; and strangers, who start and leave nothing."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from cexec.gate.access.caller import TokenRole
from cexec.gate.access.key_rows import add_token
from cexec.gate.store.database import Database
from tests.gate.gates import Gate, script, start_job, state_of, wait_for_state
from tests.service import Application
from tests.waiting import PATIENCE, wait_until

SECRETS = re.compile(r"Traceback|\.py\b|/tmp/|sqlite|cexec\.gate")


@pytest.fixture(scope="module")
def clients(gate: Gate) -> Iterator[dict[str, httpx.Client]]:
    """A client of each kind."""
    tokens = {
        "ci": gate.new_token("ci", "submitter"),
        "other": gate.new_token("other", "submitter"),
        "eyes": gate.new_token("eyes", "viewer"),
        "narrow": gate.new_token("narrow", "admin", "secret"),
        "admin": gate.token,
    }
    with ExitStack() as stack:
        yield {name: stack.enter_context(gate.http(token)) for name, token in tokens.items()}


def refused(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert not SECRETS.search(answer.text)
    detail: str = answer.json()["detail"]
    return detail


def test_a_submitter_handles_its_own_jobs_and_reads_those_of_others(clients: dict[str, httpx.Client]) -> None:
    id = start_job(clients["ci"], "echo out; sleep 300")
    path = f"/v1/jobs/{id}"
    for reader in ("ci", "other", "eyes", "admin"):
        assert clients[reader].get(path).json()["owner"] == "ci"
        wait_until(lambda: clients[reader].get(f"{path}/stdout").content == b"out\n")  # noqa: B023
        assert [one["id"] for one in clients[reader].get("/v1/jobs").json()["jobs"]] == [id]
    for stranger in ("other", "eyes"):
        for action, body in (("cancel", None), ("signal", {"signal": "TERM"})):
            refused(clients[stranger].post(f"{path}/{action}", json=body), 403)
        refused(clients[stranger].delete(path), 403)
    assert state_of(clients["ci"], id) == "running"
    assert clients["ci"].post(f"{path}/cancel").status_code == 200
    wait_for_state(clients["ci"], id, "cancelled")
    refused(clients["other"].delete(path), 403)
    assert clients["admin"].delete(path).status_code in (200, 204)


def test_a_viewer_starts_nothing(gate: Gate, clients: dict[str, httpx.Client]) -> None:
    before = len(clients["admin"].get("/v1/jobs").json()["jobs"])
    refused(clients["eyes"].post("/v1/jobs", json=script("true")), 403)
    refused(clients["eyes"].post("/v1/apps/app/run", content=b"x"), 403)
    refused(clients["eyes"].post("/v1/jobs", json=script("true", workers="all")), 403)
    assert len(clients["admin"].get("/v1/jobs").json()["jobs"]) == before


def test_a_token_sees_its_applications_only(gate: Gate, clients: dict[str, httpx.Client]) -> None:
    id = start_job(clients["ci"], "true")
    wait_for_state(clients["ci"], id, "succeeded")
    narrow = clients["narrow"]
    assert narrow.get("/v1/apps").json()["apps"] == []
    assert narrow.get("/v1/workers").json()["workers"] == []
    assert narrow.get("/v1/jobs").json()["jobs"] == []
    for path in ("", "/stdout", "/stderr"):
        refused(narrow.get(f"/v1/jobs/{id}{path}"), 404)
    refused(narrow.delete(f"/v1/jobs/{id}"), 404)
    assert narrow.post("/v1/jobs", json=script("true")).status_code in (403, 404)
    assert 'app="app"' not in narrow.get("/metrics").text


def test_a_job_belongs_to_the_name_and_its_key_to_nobody_else(gate: Gate, clients: dict[str, httpx.Client]) -> None:
    """Two tokens may use the same Idempotency-Key, and a token that replaces another one has its jobs."""
    fields = {"Idempotency-Key": "nightly"}
    first = clients["ci"].post("/v1/jobs", json=script("sleep 300"), headers=fields).json()["id"]
    second = clients["other"].post("/v1/jobs", json=script("sleep 300"), headers=fields).json()["id"]
    assert first != second
    with closing(Database(str(gate.state), sole=False)) as database:
        database.write_now(lambda c: c.execute("UPDATE access_key SET revoked = 1 WHERE name = 'other'"))
    refused(clients["other"].post(f"/v1/jobs/{second}/cancel"), 401)
    with gate.http(gate.new_token("other", "submitter")) as renewed:
        assert renewed.post(f"/v1/jobs/{second}/cancel").status_code == 200
    assert clients["ci"].post(f"/v1/jobs/{first}/cancel").status_code == 200
    for id in (first, second):
        wait_for_state(clients["admin"], id, "cancelled")


def bad_tokens(gate: Gate, directory: Path) -> dict[str, str]:
    with closing(Database(str(gate.state), sole=False)) as database:
        past = time.time() - 10
        expired = database.write_now(
            lambda connection: add_token(connection, "past", TokenRole.ADMIN, None, past - 10, past).text
        )
    with closing(Database(str(directory / "other"), sole=False)) as other:
        foreign = other.write_now(
            lambda connection: add_token(connection, "ci", TokenRole.ADMIN, None, time.time()).text
        )
    return {"wrong": "cgate_" + "A" * 43, "expired": expired, "foreign": foreign, "garbage": "x" * 1000}


def test_strangers_start_nothing_and_leave_nothing(
    gate: Gate, clients: dict[str, httpx.Client], tmp_path: Path
) -> None:
    tokens = bad_tokens(gate, tmp_path)
    admin = clients["admin"]
    before = [one["id"] for one in admin.get("/v1/jobs").json()["jobs"]], gate.files
    process = psutil.Process(gate.process.pid)
    descriptors = process.num_fds()
    for token in tokens.values():
        with gate.http(token) as stranger:
            refused(stranger.post("/v1/jobs", json=script("true")), 401)
            refused(stranger.post("/v1/apps/app/run", content=b"x"), 401)
            refused(stranger.post("/v1/jobs", files={"files": ("name", b"x" * 100_000)}), 401)
    where = httpx.URL(gate.url)
    for sent in (b"", b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{", b"\x00" * 100_000):
        with socket.create_connection((where.host, where.port or 0), PATIENCE) as connection:
            connection.sendall(sent)
    assert ([one["id"] for one in admin.get("/v1/jobs").json()["jobs"]], gate.files) == before
    wait_until(lambda: process.num_fds() <= descriptors)


def test_a_body_that_is_too_large_starts_nothing(key: Application, state: Path) -> None:
    gate = Gate(key, state, ["--max-body", "64K"])
    try:
        with gate.http() as client:
            body: dict[str, Any] = script("cat", stdin="x" * 70_000)
            assert "too large" in refused(client.post("/v1/jobs", json=body), 413)
            refused(client.post("/v1/jobs", files={"files": ("name", b"x" * 70_000)}), 413)
            streamed = client.post("/v1/apps/app/run", params={"arg": "wc -c"}, content=b"x" * 200_000)
            assert streamed.content.strip() == b"200000", streamed.text
            assert len(client.get("/v1/jobs").json()["jobs"]) == 1
    finally:
        gate.close()
    assert gate.files == [] or all("outputs" not in name for name in gate.files)


def test_too_many_jobs_at_a_time_wait_for_their_turn(key: Application, state: Path) -> None:
    gate = Gate(key, state, ["--jobs-per-token", "2"])
    try:
        with gate.http() as client, gate.http(gate.new_token("ci", "submitter")) as other:
            ids = [start_job(client, "sleep 300") for _ in range(2)]
            answer = client.post("/v1/jobs", json=script("true"))
            refused(answer, 429)
            assert int(answer.headers["retry-after"]) >= 1
            wait_for_state(other, start_job(other, "true"), "succeeded")  # a limit of each token
            assert client.post(f"/v1/jobs/{ids[0]}/cancel").status_code == 200
            wait_for_state(client, ids[0], "cancelled")
            wait_for_state(client, start_job(client, "true"), "succeeded")
            assert client.post(f"/v1/jobs/{ids[1]}/cancel").status_code == 200
    finally:
        gate.close()


def test_the_log_has_a_line_for_each_change_and_no_secret(gate: Gate, clients: dict[str, httpx.Client]) -> None:
    id = start_job(clients["ci"], "true")
    wait_for_state(clients["ci"], id, "succeeded")
    wait_until(lambda: any(id in line for line in gate.lines))
    (line,) = [line for line in gate.lines if id in line]
    started = rf'who=ci\(submitter,#\d+\) from=127\.0\.0\.1:\d+ what="POST /v1/jobs" status=201 .*\b{id}\b.* started'
    assert re.search(rf"^\S+Z audit: {started}", line), line
    assert "cgate_" not in "".join(gate.lines).replace("cgate_...", "")


def test_a_secret_in_an_address_is_nowhere_in_the_log(gate: Gate) -> None:
    secret = gate.new_token("careless", "submitter")
    with gate.http(secret) as client:
        refused(client.get("/v1/jobs", params={"token": secret}), 400)
        refused(client.post(f"/v1/jobs/{secret}/cancel"), 400)
    with pytest.raises(InvalidStatus):
        connect(f"{gate.url.replace('http', 'ws', 1)}/v1/exec?token={secret}", proxy=None)
    wait_until(lambda: any("cgate_..." in line and "status=400" in line for line in gate.lines))
    assert secret.removeprefix("cgate_") not in "".join(gate.lines)
