"""kill -9 of a `cgate`: what it has told is true, and nothing goes on."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil

from tests.gate.gates import Gate, run_job, start_job, state_of
from tests.service import Application, Service
from tests.waiting import wait_until


def sleeps(process: psutil.Process) -> bool:
    try:
        return "sleep" in " ".join(process.cmdline())
    except psutil.Error:
        return False  # it has ended meanwhile


def test_killed_under_a_hundred_jobs(worker: Service, key: Application, state: Path) -> None:
    gate = Gate(key, state)
    told: dict[str, str] = {}  # jobs that were told to be over
    started: list[str] = []

    def one(number: int) -> None:
        try:
            with gate.http() as http:
                job = run_job(http, f"echo {number}; sleep 0.0{number % 7}")
                told[job["id"]] = job["state"]
        except (httpx.HTTPError, AssertionError):
            pass  # it was killed meanwhile

    with gate.http() as http, ThreadPoolExecutor(20) as pool:
        long = [start_job(http, "echo begun; sleep 1000") for _ in range(2)]
        for id in long:
            wait_until(lambda id=id: state_of(http, id) == "running")  # type: ignore[misc]
        waiting = [pool.submit(one, number) for number in range(100)]
        wait_until(lambda: len(told) >= 20)
        started += [start_job(http, "sleep 1000") for _ in range(20)]
        gate.kill()
        for done in waiting:
            done.result()
    wait_until(lambda: not any(map(sleeps, worker.started())))
    again = Gate(key, state, after=gate)
    with again.http() as http:
        jobs = {job["id"]: job for job in http.get("/v1/jobs", params={"limit": "1000"}).json()["jobs"]}
        assert {id: jobs[id]["state"] for id in told} == told
        assert all(state == "succeeded" for state in told.values())
        for id in told:  # with their outputs
            assert http.get(f"/v1/jobs/{id}/stdout").content.strip().isdigit()
        for id in (*long, *started):
            assert jobs[id]["state"] == "interrupted" and "was killed" in jobs[id]["reason"]
            assert http.get(f"/v1/jobs/{id}/stdout").headers["cexec-complete"] == "false"
        assert {job["state"] for job in jobs.values()} == {"succeeded", "interrupted"}
        assert http.get("/v1/jobs", params={"state": "running"}).json()["jobs"] == []
        assert run_job(http, "exit 0")["state"] == "succeeded"
    assert "interrupted when the last cgate ended" in again.lines[1]
    again.close()


def test_outputs_in_files_survive_and_those_of_nobody_go(key: Application, state: Path) -> None:
    gate = Gate(key, state)
    with gate.http() as http:
        ended = run_job(http, "head -c 9000000 /dev/zero")["id"]
        half = start_job(http, "head -c 9000000 /dev/zero; sleep 1000")
        wait_until(lambda: http.head(f"/v1/jobs/{half}/stdout").headers["content-length"] == "9000000")
        gate.kill()
    outputs = Path(f"{state}-outputs")
    (outputs / "stranger.1.000000").write_bytes(b"x")
    again = Gate(key, state, after=gate)
    with again.http() as http:
        assert http.get(f"/v1/jobs/{ended}/stdout").content == bytes(9_000_000)
        kept = http.get(f"/v1/jobs/{half}/stdout").content
        assert 8_900_000 < len(kept) <= 9_000_000 and kept == bytes(len(kept))
    assert not [name for name in again.files if name.startswith("stranger")]
    again.close()


def test_a_second_one_is_refused_and_an_orderly_end_is_told(key: Application, state: Path) -> None:
    gate = Gate(key, state)
    with gate.http() as http:
        id = start_job(http, "sleep 1000")
        try:
            Gate(key, state, after=gate)
        except AssertionError as error:
            refused = str(error)
        assert f"in use by process {gate.process.pid} " in refused
        gate.close()
    again = Gate(key, state, after=gate)
    with again.http() as http:
        job = http.get(f"/v1/jobs/{id}").json()
        assert (job["state"], job["reason"]) == ("interrupted", "cgate was stopped")
    again.close()
