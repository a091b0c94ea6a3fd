"""A state on a disk that is full: the right words, nothing started, nothing told that is not so."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.environment import command
from tests.gate.gates import Gate, run_job, script, wait_for_state
from tests.needs import require_tool, skip_for_want_of
from tests.service import Application

SCRIPT = """
mount -t tmpfs -o size=6m none "$1" &&
"$0" "$2" token add --state "$1/state" --role admin me > "$3" 2> "$3-words" &&
shift 3 && exec "$@"
"""


@pytest.fixture
def gate(key: Application, tmp_path: Path) -> Iterator[Gate]:
    """A cgate whose state is on a file system of six megabytes."""
    require_tool("unshare", "mount")
    tried = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", str(tmp_path)]
    if subprocess.run(tried, capture_output=True).returncode:
        skip_for_want_of("file systems in memory that root may mount")
    disk, token = tmp_path / "disk", tmp_path / "token"
    disk.mkdir()
    python, cgate = command("cgate")
    wrapper: list[str | Path] = ["unshare", "--mount", "sh", "-c", SCRIPT, python, disk, cgate, token]
    known = object.__new__(Gate)
    known.token = ""
    running = Gate(key, disk / "state", after=known, wrapper=wrapper)
    running.token = token.read_text().strip()
    yield running
    running.close()


def test_a_full_disk(gate: Gate) -> None:
    with gate.http() as http:
        big = run_job(http, "head -c 100000000 /dev/zero")
        assert (big["state"], big["exit_status"]) == ("failed", None)
        assert big["reason"] == "the output cannot be kept: no space left on device"
        gone = http.get(f"/v1/jobs/{big['id']}/stdout")
        assert gone.status_code == 410
        # The same disk takes the next job: the output that was too long does not stay.
        filler = run_job(http, "head -c 4500000 /dev/zero; exit 3")
        assert filler["exit_status"] == 3
        parts = [("job", (None, b'{"app": "app", "args": ["wc -c"]}')), ("stdin", ("in", bytes(3_000_000)))]
        refused = http.post("/v1/jobs", files=parts)
        assert refused.status_code == 507 and refused.headers["content-type"] == "application/problem+json"
        before = http.get("/v1/jobs").json()["jobs"]
        assert [job["id"] for job in before] == [filler["id"], big["id"]]
        long = {"file": "x" * 900_000}
        for _ in range(20):
            answer = http.post("/v1/jobs", json=script("true", env={"A": "x" * 60_000}, files=long))
            assert answer.status_code in (201, 507), answer.text
        assert http.delete(f"/v1/jobs/{filler['id']}").status_code == 200
        assert run_job(http, "echo again")["state"] == "succeeded"
        for job in http.get("/v1/jobs").json()["jobs"]:
            wait_for_state(http, job["id"], "succeeded" if job["id"] != big["id"] else "failed")
