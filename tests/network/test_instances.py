"""`--on instance=UUID`: of two workers of one name on one host, one alone gets the jobs."""

from __future__ import annotations

import json
import subprocess

import pytest

import cexec
from tests.conftest import StartService
from tests.environment import command, local_environment
from tests.service import Application


def listed(application: Application) -> list[dict[str, str]]:
    argv = command("cps", "--json", application.public)
    printed = subprocess.run(argv, env=local_environment(), capture_output=True, check=True, timeout=30).stdout
    return [json.loads(line) for line in printed.splitlines()]


@pytest.mark.parametrize("ask", ["command", "api"])
def test_one_of_two_workers_of_one_name_gets_every_job(
    service: StartService, application: Application, ask: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for said in ("one", "two"):
        service("echo", said, options=["--name", "twin"])
    rows = listed(application)
    assert [row["name"].partition("@")[0] for row in rows] == ["twin", "twin"]

    def run(instance: str) -> str:
        if ask == "command":
            return application.run("--on", f"instance={instance}").stdout.decode()
        with cexec.Client(application.public) as client:
            return client.run(on=f"instance={instance}", text=True).stdout

    for name, value in local_environment().items():
        monkeypatch.setenv(name, value)
    answers = [[run(row["instance"]) for _ in range(3)] for row in rows]
    assert sorted(answers) == [["one\n"] * 3, ["two\n"] * 3]


def test_a_worker_that_has_started_again_is_another_one(service: StartService, application: Application) -> None:
    first = service("cat", options=["--name", "same"])
    (row,) = listed(application)
    first.close()
    service("cat", options=["--name", "same"])
    result = application.run("--all", "--on", f"instance={row['instance']}")
    assert result.returncode == 111
    assert f"absent: instance={row['instance'][:8]}-".encode() in result.stderr
