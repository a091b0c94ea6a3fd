"""The paths of PCCI over four hosts, from a fifth one."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.gate.pcci.clusters import NODES, Cluster
from tests.waiting import wait_until


def test_workers_are_called_by_their_hosts(cluster: Cluster) -> None:
    status, workers = cluster.ask("GET", "/workers")
    assert status == 200
    assert [worker["id"] for worker in workers] == list(NODES)
    addresses = [worker["socket"]["_peername"]["address"] for worker in workers]
    assert addresses == [host.address for host in cluster.hosts[:4]]
    assert all(isinstance(worker["socket"]["_peername"]["port"], int) for worker in workers)


def test_a_command_on_all_workers_is_a_pool(cluster: Cluster) -> None:
    before = round(time.time() * 1000)
    number = cluster.start("hostname -I", *NODES)
    assert before <= number <= time.time() * 1000
    pool = cluster.ended(number)
    assert (pool["id"], pool["status"]) == (number, 0)
    assert number <= pool["cached_at"] <= time.time() * 1000
    assert {job["worker_id"] for job in pool["jobs"]} == set(NODES)
    for job in pool["jobs"]:
        assert list(job) == ["code", "pool", "cmd", "pid", "result", "status", "worker_id", "time_to_calc"]
        assert (job["code"], job["pool"], job["cmd"]) == ("JOB", str(number), "hostname -I")
        assert (job["pid"], job["status"]) == (None, 0)
        assert cluster.hosts[NODES.index(job["worker_id"])].address in job["result"].split()
        assert 0 <= job["time_to_calc"] <= pool["cached_at"] - number
    assert any(shown["id"] == number for shown in cluster.ask("GET", "/pools")[1])


def test_the_result_grows_while_the_status_is_null(cluster: Cluster, tmp_path: Path) -> None:
    go = tmp_path / "go"
    script = f"echo one; echo oh >&2; until test -e {go}; do sleep 0.05; done; echo two; exit 3"
    number = cluster.start(f"sh -c '{script}'", "node2")
    wait_until(lambda: cluster.pool(number)["jobs"][0]["result"] == "oneoh\n")
    pool = cluster.pool(number)
    assert (pool["status"], pool["jobs"][0]["status"], pool["cached_at"]) == (None, None, None)
    go.touch()
    pool = cluster.ended(number)
    assert pool["status"] == 1
    assert (pool["jobs"][0]["status"], pool["jobs"][0]["result"]) == (3, "onetwooh\n")


def test_no_shell_runs(cluster: Cluster) -> None:
    number = cluster.start("echo $HOME; `id` > x | cat && 'a  b'", "node1")
    assert cluster.ended(number)["jobs"][0]["result"] == "$HOME; `id` > x | cat && a  b"


def test_kill_ends_the_jobs_of_the_listed_workers_alone(cluster: Cluster) -> None:
    number = cluster.start("sleep 300", *NODES)
    status, answer = cluster.ask("PUT", f"/kill/{number}", {"workers": ["node1", "node2"]})
    assert (status, answer) == (200, {"message": f"Trying to kill job from pool : {number} on node1,node2"})

    def statuses() -> dict[str, int | None]:
        return {job["worker_id"]: job["status"] for job in cluster.pool(number)["jobs"]}

    wait_until(lambda: statuses()["node1"] is not None and statuses()["node2"] is not None)
    assert (statuses()["node3"], statuses()["node4"], cluster.pool(number)["status"]) == (None, None, None)
    assert cluster.ask("PUT", f"/kill/{number}", {"workers": ["node3", "node4"]})[0] == 200
    assert cluster.ended(number)["status"] == 1


def test_an_absent_worker_starts_nothing_and_ends_nothing(cluster: Cluster) -> None:
    before = cluster.pools()
    absent = {"message": "One or more worker not connected, try GET /workers"}
    assert cluster.ask("POST", "/job", {"cmd": "sleep 300", "workers": ["node1", "node9"]}) == (400, absent)
    assert cluster.pools() <= before  # some may have expired
    number = cluster.start("sleep 300", "node1")
    assert cluster.ask("PUT", f"/kill/{number}", {"workers": ["node1", "node9"]}) == (400, absent)
    assert cluster.pool(number)["status"] is None
    assert cluster.ask("PUT", f"/kill/{number}", {"workers": ["node2"]})[0] == 404
    assert cluster.ask("PUT", f"/kill/{number}", {"workers": ["node1"]})[0] == 200


@pytest.mark.parametrize(
    "body",
    [
        {"workers": ["node1"]}, {"cmd": "", "workers": ["node1"]}, {"cmd": "ls"}, {"cmd": "ls", "workers": []},
        {"cmd": "ls", "workers": "node1"}, {"cmd": "ls", "workers": [1]}, {"cmd": "'", "workers": ["node1"]},
        {"cmd": ["ls"], "workers": ["node1"]}, [], "ls", None, {"cmd": "echo \ud800", "workers": ["node1"]},
        {"cmd": "ls", "workers": ["\ud800"]}, {"cmd": "echo " + "\u20ac" * 50_000, "workers": ["node1"]},
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_request_is_told(cluster: Cluster, body: object) -> None:
    status, answer = cluster.ask("POST", "/job", body)
    assert status == 400 and list(answer) == ["message"] and answer["message"]


@pytest.mark.parametrize("id", ["1", "0", "x", "-1", "9" * 30, "%31%30"])
def test_an_unknown_pool_is_told(cluster: Cluster, id: str) -> None:
    unknown = {"message": "Pool ID not found or expired"}
    assert cluster.ask("GET", f"/pool/{id}") == (404, unknown)
    assert cluster.ask("PUT", f"/kill/{id}", {"workers": ["node1"]}) == (404, unknown)


def test_a_pool_expires(cluster: Cluster) -> None:
    number = cluster.start("true", "node1")
    cluster.ended(number)
    wait_until(lambda: cluster.ask("GET", f"/pool/{number}")[0] == 404)
    assert cluster.ask("GET", f"/pool/{number}") == (404, {"message": "Pool ID not found or expired"})


def test_tokens_hold_here_too(cluster: Cluster) -> None:
    with ExitStack() as stack:
        stranger, viewer = cluster.asker("", stack), cluster.viewer(stack)
        for method, path in (
            ("GET", "/workers"),
            ("GET", "/pools"),
            ("GET", "/pool/1"),
            ("POST", "/job"),
            ("PUT", "/kill/1"),
        ):
            assert stranger(method, path, {} if method != "GET" else None)[0] == 401
        assert viewer("GET", "/workers")[0] == 200
        assert viewer("POST", "/job", {"cmd": "ls", "workers": ["node1"]})[0] == 403


def test_a_worker_that_is_lost_ends_its_job_with_words(cluster: Cluster) -> None:
    number = cluster.start("sh -c 'echo up; sleep 300'", "node3", "node4")

    def jobs() -> dict[str, dict[str, Any]]:
        return {job["worker_id"]: job for job in cluster.pool(number)["jobs"]}

    wait_until(lambda: all(job["result"] == "up" for job in jobs().values()))
    cluster.kill("node4")
    wait_until(lambda: jobs()["node4"]["status"] is not None)
    assert jobs()["node4"]["status"] == 1 and jobs()["node4"]["result"].startswith("up ")
    assert jobs()["node3"]["status"] is None
    wait_until(lambda: [worker["id"] for worker in cluster.ask("GET", "/workers")[1]] == list(NODES[:3]))
    assert cluster.ask("PUT", f"/kill/{number}", {"workers": ["node3"]})[0] == 200
    cluster.serve("node4")
