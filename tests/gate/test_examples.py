"""The examples for cgate work as they say."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.environment import ROOT
from tests.gate.gates import Gate, script
from tests.needs import require_tool
from tests.waiting import PATIENCE, wait_until

EXAMPLES = ROOT / "examples" / "gate"


def run(gate: Gate, name: str, *arguments: str, input: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    require_tool("curl")
    environment = {**os.environ, "CGATE_URL": gate.url, "CGATE_TOKEN": gate.token}
    argv = [str(EXAMPLES / name), *arguments]
    return subprocess.run(argv, env=environment, input=input, capture_output=True, timeout=PATIENCE)


@pytest.mark.parametrize("status", [0, 7])
def test_a_step_of_ci_ends_as_the_job_does(gate: Gate, status: int) -> None:
    ended = run(gate, "ci-step.sh", json.dumps(script(f"echo out; echo bad >&2; exit {status}")))
    assert (ended.returncode, ended.stdout) == (status, b"out\n")
    assert ended.stderr.splitlines()[1:] == [b"bad"]


def test_a_step_of_ci_without_an_end_of_its_job(gate: Gate) -> None:
    ended = run(gate, "ci-step.sh", json.dumps(script("echo out; sleep 1000", time_limit=0.2)))
    assert ended.returncode == 111
    assert run(gate, "ci-step.sh", '{"app": "none"}').returncode == 111


def test_a_step_of_ci_that_is_stopped_cancels_its_job(gate: Gate, http: httpx.Client) -> None:
    require_tool("curl")
    environment = {**os.environ, "CGATE_URL": gate.url, "CGATE_TOKEN": gate.token}
    argv = [str(EXAMPLES / "ci-step.sh"), json.dumps(script("echo ready; sleep 1000"))]
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as step:
        assert step.stdout is not None and step.stdout.readline() == b"ready\n"
        step.terminate()
        wait_until(lambda: http.get("/v1/jobs?limit=1").json()["jobs"][0]["state"] == "cancelled")
        assert step.wait(PATIENCE) == 130


def test_the_pipe(gate: Gate) -> None:
    data = bytes(range(256)) * 1000
    ended = run(gate, "pipe.sh", "app", "cat; echo end & wait", input=data)
    assert (ended.returncode, ended.stdout) == (0, data + b"end\n")
    assert run(gate, "pipe.sh", "app", "cat; exit 1", input=data).returncode == 18


def test_the_module_for_javascript(gate: Gate, tmp_path: Path) -> None:
    require_tool("node")
    program = tmp_path / "program.mjs"
    program.write_text(f"""
import {{ Gate, Problem }} from {json.dumps(str(EXAMPLES / "gate.mjs"))};
const gate = new Gate({json.dumps(gate.url)}, {{ token: process.env.CGATE_TOKEN }});
const told = [];
const job = await gate.run({{ app: "app", args: ["cat; exit 3"], stdin: "äöü" }});
told.push(job.state, job.exit_status, await gate.output(job.id));
const other = await gate.start({{ app: "app", args: ["echo one; sleep 0.1; echo two"] }});
let text = "";
for await (const part of gate.follow(other.id)) text += part;
told.push(text);
try {{
  await gate.start({{ app: "none" }});
}} catch (error) {{
  told.push(error instanceof Problem, error.document.status);
}}
const parts = [];
const talk = await gate.exec(
  {{ app: "app", args: ["cat; echo bad >&2; exit 5"] }},
  {{ stdout: bytes => parts.push(new TextDecoder().decode(bytes)) }},
);
talk.write("hello");
talk.end();
told.push((await talk.exit).exit_status, parts.join(""));
console.log(JSON.stringify(told));
""")
    environment = {**os.environ, "CGATE_TOKEN": gate.token}
    ended = subprocess.run(
        ["node", "--experimental-websocket", "--no-warnings", str(program)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == ["failed", 3, "äöü", "one\ntwo\n", True, 404, 5, "hello"]


def test_the_unit_for_systemd_names_options_that_exist() -> None:
    unit = (EXAMPLES / "cgate.service").read_text()
    used = set(re.findall(r"(?<= )--[a-z-]+", unit.partition("ExecStart=")[2].partition("\nRestart")[0]))
    argv = [sys.executable, str(ROOT / "bin" / "cgate"), "--help"]
    helped = subprocess.run(argv, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)}, timeout=PATIENCE)
    assert used >= {"--http", "--state"} and not [one for one in used if one not in helped.stdout]
