"""Applications, workers, pools, events and metrics, on two workers."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress

import httpx
import pytest

from tests.gate.gates import Gate, run_job, script, start_job, wait_for_state
from tests.python.clients import ALLOW, SHELL
from tests.service import Application, Service
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def second(key: Application) -> Iterator[Service]:
    """Another worker of the same application."""
    service = Service(key, SHELL, (*ALLOW, "--name", "second", "--label", "fast"))
    yield service
    service.close()


@pytest.fixture
def uuids(http: httpx.Client, second: Service) -> dict[str, str]:
    """UUIDs of both workers, by name."""
    found: dict[str, str] = {}

    def look() -> bool:
        found.clear()
        found.update((one["name"], one["uuid"]) for one in http.get("/v1/workers").json()["workers"])
        return len(found) == 2

    wait_until(look)
    return found


def test_workers(http: httpx.Client, uuids: dict[str, str]) -> None:
    workers = http.get("/v1/workers", params={"app": "app"}).json()["workers"]
    found = {one["name"]: one for one in workers}
    assert found.keys() == uuids.keys() and "second" in found
    one = found["second"]
    assert (one["app"], one["slots"], one["running"], one["health"]) == ("app", 4, 0, "ok")
    assert one["labels"] == {"fast": ""} and one["address"] == "127.0.0.1" and one["since"].endswith("Z")
    assert http.get("/v1/workers", params={"app": "none"}).status_code == 404
    assert http.get("/v1/apps").json() == {"apps": [{"name": "app"}]}


def test_a_pool_of_all_workers(http: httpx.Client, uuids: dict[str, str]) -> None:
    answer = http.post("/v1/jobs", params={"wait": "60"}, json=script("echo here", workers="all"))
    pool = answer.json()
    assert answer.status_code == 201 and answer.headers["location"] == f"/v1/pools/{pool['id']}"
    assert pool["state"] == "succeeded" and pool["ended"]
    assert {job["instance"] for job in pool["jobs"]} == {*uuids.values()}
    assert http.get(f"/v1/pools/{pool['id']}").json() == pool
    assert http.get("/v1/pools", params={"limit": "1"}).json()["pools"] == [pool]


def test_a_pool_of_listed_workers_and_its_end_at_one(http: httpx.Client, uuids: dict[str, str]) -> None:
    other = next(uuid for name, uuid in uuids.items() if name != "second")
    answer = http.post("/v1/jobs", json=script("echo here; sleep 1000", workers=["second", other]))
    pool = answer.json()
    assert pool["state"] == "running" and len(pool["jobs"]) == 2
    url = f"/v1/pools/{pool['id']}"
    for job in pool["jobs"]:
        wait_for_state(http, job["id"], "running")
    refused = http.post(f"{url}/kill", json={"workers": ["second", "nobody"]})
    assert refused.status_code == 404 and "nothing was ended" in refused.json()["detail"]
    after = http.post(f"{url}/kill", json={"workers": ["second"]}).json()
    assert {job["instance"]: job["state"] for job in after["jobs"]} == {uuids["second"]: "cancelled", other: "running"}
    assert after["state"] == "running"
    ended = http.post(f"{url}/kill").json()
    assert {job["state"] for job in ended["jobs"]} == {"cancelled"} and ended["state"] == "failed"


def test_an_absent_worker_starts_nothing(http: httpx.Client, uuids: dict[str, str]) -> None:
    before = http.get("/v1/jobs", params={"limit": "1"}).json()
    answer = http.post("/v1/jobs", json=script("true", workers=["second", "absent"]))
    assert answer.status_code == 404 and answer.json()["absent"] == ["absent"]
    twice = http.post("/v1/jobs", json=script("true", workers=["127.0.0.1"]))
    assert twice.status_code == 409 and "UUID" in twice.json()["detail"]
    assert http.get("/v1/jobs", params={"limit": "1"}).json() == before


def test_a_worker_that_vanishes_during_a_job(http: httpx.Client, key: Application) -> None:
    third = Service(key, SHELL, (*ALLOW, "--name", "third"))
    try:
        wait_until(lambda: "third" in http.get("/v1/workers").text)
        five = [
            http.post("/v1/jobs", json=script("echo here; sleep 1000", workers=["third"], retries=0)).json()["jobs"][0]
            for _ in range(5)
        ]
        job, waiting = five[0], five[4]
        for one in five[:4]:
            wait_for_state(http, one["id"], "running")
        for pid in third.pids():
            with suppress(ProcessLookupError):  # it has ended with another one
                os.kill(pid, signal.SIGKILL)
        wait_for_state(http, job["id"], "failed")
        job = http.get(f"/v1/jobs/{job['id']}").json()
        assert job["exit_status"] is None and "third" in job["reason"]
        wait_for_state(http, waiting["id"], "failed")
        assert http.get(f"/v1/jobs/{waiting['id']}").json()["reason"] == "its worker has gone"
    finally:
        third.kill()


def test_a_key_of_a_pool(http: httpx.Client, uuids: dict[str, str]) -> None:
    headers = {"Idempotency-Key": "pool"}
    first = http.post("/v1/jobs", json=script("true", workers="all"), headers=headers)
    again = http.post("/v1/jobs", json=script("true", workers="all"), headers=headers)
    assert (first.status_code, again.status_code) == (201, 200) and first.json()["id"] == again.json()["id"]


def events(http: httpx.Client, count: int, **options: dict[str, str]) -> list[tuple[int, str, dict[str, object]]]:
    """The first events of a stream: id, kind and data."""
    found: list[tuple[int, str, dict[str, object]]] = []
    with http.stream("GET", "/v1/events", **options) as answer:  # type: ignore[arg-type]
        assert answer.headers["content-type"].startswith("text/event-stream")
        fields: dict[str, str] = {}
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if line:
                fields[name] = value
            elif "data" in fields:
                found.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
                fields.clear()
            if len(found) == count:
                break
    return found


def test_events_and_their_resumption(http: httpx.Client) -> None:
    job = run_job(http, "exit 3")
    query = {"job": job["id"], "last_event_id": "0"}
    seen = events(http, 3, params=query)
    assert [data["state"] for _, _, data in seen] == ["queued", "running", "failed"]
    assert seen[2][2]["exit_status"] == 3 and seen[2][2]["worker"] == job["worker"]
    last = {"Last-Event-ID": str(seen[1][0])}
    assert events(http, 1, params={"job": job["id"]}, headers=last) == seen[2:]
    (reset,) = events(http, 1, headers={"Last-Event-ID": "999999999"})
    assert reset[1] == "reset"
    assert http.get("/v1/events", headers={"Last-Event-ID": "x"}).status_code == 422


def test_events_come_as_they_happen(http: httpx.Client, gate: Gate) -> None:
    id = start_job(http, "read line", stdin={"stream": True})
    wait_for_state(http, id, "running")
    with gate.http() as other, other.stream("GET", "/v1/events", params={"job": id}) as answer:
        lines = answer.iter_lines()
        assert next(lines).startswith("retry:")
        http.put(f"/v1/jobs/{id}/stdin", content=b"x\n")
        data = next(line for line in lines if line.startswith("data:"))
        assert json.loads(data[5:])["state"] == "succeeded"


def test_metrics_and_health(http: httpx.Client, gate: Gate, uuids: dict[str, str]) -> None:
    run_job(http, "echo some output", stdin="1234")
    text = http.get("/metrics").text
    for line in ('cexec_gate_workers{app="app"} 2.0', 'cexec_gate_slots{app="app"} 8.0',
                 'cexec_gate_jobs{app="app",state="queued"} 0.0'):  # fmt: skip
        assert line in text.splitlines()
    assert 'cexec_gate_jobs_ended_total{app="app",outcome="succeeded"}' in text
    assert 'cexec_gate_bytes_total{app="app",stream="stdin"}' in text
    assert httpx.get(f"{gate.url}/healthz").json()["status"] == "ok"
    assert httpx.get(f"{gate.url}/metrics").status_code == 401


def test_the_door_is_shut_for_others(http: httpx.Client, gate: Gate) -> None:
    id = start_job(http, "sleep 1000")
    with gate.http(gate.new_token("looks", "viewer")) as viewer:
        assert viewer.get(f"/v1/jobs/{id}").status_code == 200
        for answer in (viewer.post("/v1/jobs", json=script("true")), viewer.post(f"/v1/jobs/{id}/cancel")):
            assert answer.status_code == 403
    with gate.http(gate.new_token("another", "submitter")) as other:
        refused = other.post(f"/v1/jobs/{id}/cancel")
        assert refused.status_code == 403 and "belongs to admin" in refused.json()["detail"]
        own = start_job(other, "sleep 1000")
        assert other.post(f"/v1/jobs/{own}/cancel").json()["state"] == "cancelled"
    with gate.http(gate.new_token("foreign", "submitter", "other")) as foreign:
        assert foreign.get(f"/v1/jobs/{id}").status_code == 404
        assert foreign.get("/v1/jobs").json()["jobs"] == []
        assert foreign.post("/v1/jobs", json=script("true")).status_code == 403
        assert foreign.get("/v1/workers").json() == {"workers": []}
    assert http.post(f"/v1/jobs/{id}/cancel").json()["state"] == "cancelled"
