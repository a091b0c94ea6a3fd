"""Runs of `cmap` over HTTP: what is told of journals, and who may steer a run."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from cexec.cmap.results.journal import Journal
from tests.cmap.watch.journals import BEGUN, end_task, write_journal
from tests.gate.gates import Gate
from tests.service import Application
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of --runs, with a run that is over."""
    found = tmp_path_factory.mktemp("runs")
    outcomes = [None if number % 3 else f"no scene {number}" for number in range(1, 301)]
    write_journal(found / "render.journal", outcomes)
    os.utime(found / "render.journal", (BEGUN / 2, BEGUN / 2))
    return found


@pytest.fixture(scope="module")
def gate(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    """A cgate whose application has no worker."""
    place = tmp_path_factory.mktemp("gate")
    running = Gate(Application(place), place / "state", ["--runs", os.fspath(directory)])
    try:
        yield running
    finally:
        running.close()


@pytest.fixture(scope="module")
def id(http: httpx.Client) -> str:
    """That of the run that is over."""
    (found,) = [one["id"] for one in http.get("/v1/runs").json()["runs"] if one["name"] == "render.journal"]
    return str(found)


def refused(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    detail = str(answer.json()["detail"])
    assert "/tmp" not in detail
    return detail


def listed(http: httpx.Client, name: str) -> dict[str, Any]:
    """A run of the list, once it is there."""
    found: list[dict[str, Any]] = []

    def there() -> bool:
        found[:] = [one for one in http.get("/v1/runs").json()["runs"] if one["name"] == name]
        return bool(found)

    wait_until(there)
    return found[0]


def test_a_run_is_told(http: httpx.Client, directory: Path, id: str) -> None:
    run = http.get(f"/v1/runs/{id}").json()
    told = {
        name: run[name] for name in ("name", "directory", "owner", "state", "problem", "control", "command", "host")
    }
    assert told == {
        "name": "render.journal", "directory": str(directory), "owner": None, "state": "done", "problem": None,
        "control": False, "command": "cmap app.pub", "host": "here",
    }  # fmt: skip
    assert run["counts"] == {"done": 200, "failed": 100, "running": 0, "waiting": 0}
    assert (run["real"], run["cpu"], run["elapsed"], run["runs"], run["eta"]) == (150.0, 75.0, 300.0, 1, None)
    (work,) = run["workers"]
    assert (work["name"], work["succeeded"], work["failed"], run["more_workers"]) == ("w@x", 200, 100, 0)
    in_list = listed(http, "render.journal")
    assert in_list == {name: value for name, value in run.items() if name in in_list}


def test_the_map_is_told_task_by_task_or_in_cells(http: httpx.Client, id: str) -> None:
    path = f"/v1/runs/{id}/map"
    whole = http.get(path).json()
    assert whole == {"first": 1, "count": 300, "size": 300, "cell": 1, "states": "2df" * 100}
    assert http.get(path, params={"first": "299", "count": "7"}).json()["states"] == "df"
    cells = http.get(path, params={"cells": "150"}).json()
    assert (cells["cell"], cells["states"][:8]) == (2, "d2fd2fd2")
    assert http.get(path, params={"first": "301"}).json()["states"] == ""
    for name, value in (("first", "0"), ("count", "0"), ("cells", "100001"), ("size", "1")):
        refused(http.get(path, params={name: value}), 422)


def test_failed_tasks_are_told_page_by_page(http: httpx.Client, id: str) -> None:
    found: list[dict[str, Any]] = []
    after, pages = 0, 0
    while after is not None:
        page = http.get(f"/v1/runs/{id}/failed", params={"limit": "40", "after": str(after)}).json()
        found, after, pages = [*found, *page["failed"]], page["next"], pages + 1
    assert [row["task"] for row in found] == list(range(3, 301, 3)) and pages == 3
    assert found[1] == {
        "task": 6, "command": "app.pub -- 6", "worker": "w@x", "reason": "exited with 4", "last_line": "no scene 6",
        "exit_status": 4, "signal": None, "started": "2027-01-15T08:00:05.500Z", "seconds": 0.5,
    }  # fmt: skip


def test_a_run_is_followed_while_it_grows(http: httpx.Client, directory: Path) -> None:
    journal = Journal(str(directory / "growing"), "new", now=BEGUN)
    end_task(journal, 1, None, at=BEGUN + 1)
    journal.flush()
    run = listed(http, "growing")
    assert run["state"] == "running" and run["process"].startswith(f"process {os.getpid()} on ")
    journal.close()


def test_runs_are_listed_page_by_page(http: httpx.Client, directory: Path, id: str) -> None:
    write_journal(directory / "newer", [None])
    listed(http, "newer")
    first = http.get("/v1/runs", params={"limit": "1"}).json()
    assert first["runs"][0]["name"] != "render.journal" and first["next"] == first["runs"][0]["id"]
    names, after = [], None
    for _ in range(10):
        page = http.get("/v1/runs", params={"limit": "1", **({"after": after} if after else {})}).json()
        names += [one["name"] for one in page["runs"]]
        after = page["next"]
        if after is None:
            break
    assert names[-1] == "render.journal" and "newer" in names
    refused(http.get("/v1/runs", params={"after": "0" * 16}), 404)


def test_what_is_wrong_is_words_in_the_list(http: httpx.Client, directory: Path) -> None:
    write_journal(directory / "future", [None])
    with closing(sqlite3.connect(directory / "future")) as database:
        database.execute("PRAGMA user_version=99")
    run = listed(http, "future")
    assert (run["state"], run["counts"]) == ("unreadable", None) and "newer cmap" in run["problem"]
    for path in ("map", "failed"):
        assert "newer cmap" in refused(http.get(f"/v1/runs/{run['id']}/{path}"), 409)
    refused(http.post(f"/v1/runs/{run['id']}/pause"), 409)


def test_what_is_not_there_is_not_found(http: httpx.Client) -> None:
    for path in ("", "/map", "/failed"):
        refused(http.get(f"/v1/runs/{'0' * 16}{path}"), 404)
    refused(http.post(f"/v1/runs/{'0' * 16}/pause"), 404)


def test_a_run_that_is_over_is_not_steered(http: httpx.Client, id: str) -> None:
    assert refused(http.post(f"/v1/runs/{id}/pause"), 409).startswith("no cmap runs with this journal")
    refused(http.post(f"/v1/runs/{id}/continue"), 409)
    refused(http.post(f"/v1/runs/{id}/weight", json={"weight": 2}), 409)
    wrong: list[Any] = [{"weight": one} for one in (0, 65536, True, "2", 1.5, None)]
    for body in (*wrong, {}, [], {"weight": 1, "more": 1}):
        assert "from 1 to 65535" in refused(http.post(f"/v1/runs/{id}/weight", json=body), 422), body
    assert http.post(f"/v1/runs/{id}/weight", content=b"{").status_code == 400


def test_admins_steer_others_look_and_tokens_for_some_applications_see_none(gate: Gate, id: str) -> None:
    for role, allowed in (("viewer", False), ("submitter", False), ("admin", True)):
        with gate.http(gate.new_token(f"a-{role}", role)) as client:
            assert client.get(f"/v1/runs/{id}").status_code == 200
            for action in ("pause", "continue", "weight"):
                answer = client.post(f"/v1/runs/{id}/{action}", json={"weight": 3})
                refused(answer, 409 if allowed else 403)
    with gate.http(gate.new_token("narrow", "admin", "--app", "app")) as client:
        for path in ("", f"/{id}", f"/{id}/map", f"/{id}/failed"):
            refused(client.get(f"/v1/runs{path}"), 403)
        refused(client.post(f"/v1/runs/{id}/pause"), 403)
        assert client.get("/page/identity").json()["parts"] == []


def test_without_runs_there_are_none(tmp_path: Path) -> None:
    gate = Gate(Application(tmp_path), tmp_path / "state")
    with gate.http() as client:
        assert "--runs" in refused(client.get("/v1/runs"), 404)
        assert client.get("/page/identity").json()["parts"] == []
    gate.close()
