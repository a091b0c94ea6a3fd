"""cps(1): which keys, what is shown, and who comes and goes."""

from __future__ import annotations

import json
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from cexec.client.search.roster import Roster, WorkerRow
from cexec.commands.cps import View, format_skew, format_table
from cexec.protocol.decisions.census import Answer
from cexec.system.storage.revocations import Revocations
from tests import preloaded
from tests.conftest import StartService
from tests.environment import command, local_environment
from tests.protocol.wires import APPLICATION, hello_of
from tests.service import Application
from tests.waiting import PATIENCE, comes_true, wait_until


def run(*arguments: str | Path, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    argv = command("cps", *arguments)
    env = local_environment({"HOME": "/nonexistent", **environment})
    return preloaded.run_text(argv, env=env, cwd=cwd or ".", timeout=30)


def rows(result: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def seen(count: int, *arguments: str | Path, **options: Any) -> list[dict[str, Any]]:
    """The rows of a census, once so many have answered: it does not wait for a worker that gets no CPU for a moment."""
    found: list[dict[str, Any]] = []

    def all_answer() -> bool:
        answers = run("--json", *arguments, **options)
        found[:] = rows(answers) if answers.returncode == 0 else []
        return len(found) >= count

    wait_until(all_answer, explain=lambda: found)
    return found


def test_the_table_and_the_json_say_the_same(service: StartService, application: Application) -> None:
    service("cat", options=["-j", "3", "--name", "node1", "--label", "gpu", "--label", "rack=7", "--speed", "1.5"])
    (row,) = seen(1, application.public)
    result = run(application.public)
    assert (result.returncode, result.stderr) == (0, "")
    headings, cells = (line.split() for line in result.stdout.splitlines())
    shown = dict(zip(headings, cells, strict=True))
    assert row["app"] == "app" and row["name"] == "node1" and row["instance"].startswith(shown["INSTANCE"])
    assert shown["NAME"] == "node1" and shown["LABELS"] == "gpu,rack=7" and shown["HEALTH"] == row["health"] == "ok"
    assert (row["slots"], row["running"], row["waiting"], row["speed"]) == (3, 0, 0, 1.5)
    assert row["labels"] == {"gpu": "", "rack": "7"} and set(row["attributes"]) == {
        "os",
        "arch",
        "cpus",
        "mem",
        "terminal",
    }
    assert abs(row["clock"]) < 30 and row["uptime"] < 100 and row["address"] == shown["ADDRESS"]


def test_a_running_job_is_seen(service: StartService, application: Application) -> None:
    running = service("sleep", "60", options=["-j", "1"])
    argv, environment = application.client("-n")
    jobs = [subprocess.Popen(argv, env=environment) for _ in range(2)]
    running.wait_for("started")
    found: list[dict[str, Any]] = []

    def waits() -> bool:
        found[:] = seen(1, application.public)
        return bool(found[0]["waiting"])

    comes_true(waits)
    row = found[0]
    for job in jobs:
        job.terminate()
        job.wait()
    assert (row["slots"], row["running"], row["waiting"]) == (1, 1, 1)


def test_a_worker_whose_program_fails_at_once_says_so(service: StartService, application: Application) -> None:
    broken = service("false")
    for _ in range(3):
        assert application.run("-n").returncode == 1
    assert "seconds=0.5 " in broken.wait_for(" slowed ")
    (row,) = seen(1, application.public)
    assert "failed" in row["health"]


def test_workers_that_share_a_name_are_told_apart(service: StartService, application: Application) -> None:
    for name in ("twin", "twin", "other"):
        service("cat", options=["--name", name])
    found = seen(3, application.public)
    assert sorted(row["name"] for row in found) == ["other", "twin@127.0.0.1", "twin@127.0.0.1"]
    assert len({row["instance"] for row in found}) == 3


def test_keys_are_looked_for_where_they_are_kept(
    service: StartService, application: Application, tmp_path: Path
) -> None:
    kept = tmp_path / "config" / "cexec"
    kept.mkdir(parents=True)
    second = Application(kept, "second")
    here = application.public.parent
    (here / "id_rsa.pub").write_text("ssh-rsa AAAA\n")
    (here / "copy.pub").write_bytes(application.public.read_bytes())
    (here / "copy.pub").chmod(0o600)
    service("cat", options=["--name", "one"])
    service("cat", options=["--name", "two"], application=second)
    (here / ".hidden.pub").write_bytes(application.public.read_bytes())
    assert len(seen(2, cwd=here, XDG_CONFIG_HOME=str(tmp_path / "config"))) == 2
    result = run(cwd=here, XDG_CONFIG_HOME=str(tmp_path / "config"))
    assert result.returncode == 0, result.stderr
    lines = [line.split()[:2] for line in result.stdout.splitlines()]
    assert lines == [["APP", "NAME"], ["app", "one"], ["second", "two"]]
    (row,) = seen(1, cwd=here, HOME=str(tmp_path))
    assert row["name"] == "one"


def test_without_a_key_it_says_what_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "id_rsa.pub").write_text("ssh-rsa AAAA\n")
    result = run(cwd=tmp_path)
    assert result.returncode == 111
    assert "no client key *.pub here" in result.stderr and "id_rsa.pub" in result.stderr


def test_the_private_key_is_not_taken_for_the_clients(application: Application) -> None:
    application.public.unlink()
    result = run(application.secret)
    assert (result.returncode, result.stdout) == (111, "")
    assert "private key" in result.stderr


def test_when_nobody_answers_that_is_said_after_a_second(application: Application) -> None:
    start = time.monotonic()
    result = run(application.public)
    assert (result.returncode, result.stdout) == (111, "")
    assert "no worker of app (" in result.stderr and "127.255.255.255" in result.stderr
    assert time.monotonic() - start < 30


# Watching


class Watched:
    """A `cps --watch --json` whose lines are read as they come."""

    def __init__(self, application: Application, *options: str) -> None:
        argv = command("cps", "--watch", "--json", *options, application.public)
        self.process = subprocess.Popen(argv, env=local_environment(), stdout=subprocess.PIPE, text=True)

    def next(self) -> tuple[str, str]:
        assert self.process.stdout is not None
        line = json.loads(self.process.stdout.readline())
        return line["event"], line["name"]

    def says_something(self) -> bool:
        """Whether anybody has answered: without an interval one is asked once, and waited for for a second."""
        assert self.process.stdout is not None
        return bool(select.select([self.process.stdout], [], [], 10.0)[0])

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(PATIENCE)
        finally:
            self.process.kill()


def test_who_comes_and_who_goes_is_seen_at_once_and_without_asking(
    service: StartService, application: Application
) -> None:
    first = service("cat", options=["--name", "first"])
    watched = Watched(application, "--interval", "0")
    while not watched.says_something():
        watched.end()
        watched = Watched(application, "--interval", "0")
    assert watched.next() == ("worker", "first")
    second = service("cat", options=["--name", "second"])
    assert watched.next() == ("worker", "second")
    first.close()
    assert watched.next() == ("gone", "first")
    assert watched.end() == 0
    second.close()


def test_a_killed_worker_is_missed(service: StartService, application: Application) -> None:
    killed = service("cat", options=["--name", "killed"])
    watched = Watched(application, "--interval", "0.5")
    assert watched.next() == ("worker", "killed")
    killed.kill()
    while (seen := watched.next()) == ("worker", "killed"):  # a last answer, perhaps
        pass
    assert seen == ("gone", "killed")
    assert watched.end() == 111  # nobody is there


def test_a_watcher_passes_unicast_on_to_the_workers_of_its_host(
    service: StartService, application: Application
) -> None:
    """The kernel gives a unicast datagram to whoever bound the port last, which is the watcher."""
    environment = {"CEXEC_GROUP": "127.0.0.1"}
    service("cat", environment=environment)
    argv = command("cps", "--watch", "--json", application.public)
    watched = subprocess.Popen(argv, env=local_environment(environment), stdout=subprocess.PIPE)
    assert watched.stdout is not None and watched.stdout.readline()
    result = application.run(input=b"hello", environment=environment)
    watched.send_signal(signal.SIGINT)
    watched.wait(PATIENCE)
    watched.stdout.close()
    assert (result.returncode, result.stdout) == (0, b"hello")


# Words


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0.0s"), (-0.01, "0.0s"), (1.26, "+1.3s"), (-59.0, "-59.0s"), (3600.0, "+1h"), (-1.7e9, "-19675d22h")],
)
def test_clocks(seconds: float, text: str) -> None:
    assert format_skew(seconds) == text


def test_columns_are_as_wide_as_their_cells() -> None:
    assert format_table(["NAME", "SLOTS"], [["a", "1"], ["longer", "1000000"]]) == [
        "NAME      SLOTS", "a             1", "longer  1000000",
    ]  # fmt: skip


def test_what_a_worker_says_cannot_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    said = hello_of(APPLICATION.worker, detail="bad\x1b[2J\nhealth", attributes={"la\x1bbel": "v"}, version="1\r")
    roster = Roster([APPLICATION.client], [], 3010)
    roster.rows = {said.instance: WorkerRow(0, Answer(said, "10.0.0.1", 0.0, ""))}
    lists = [Revocations(None, APPLICATION.client.authority_public)]
    view = View(roster, ["app.pub"], [APPLICATION.client], lists, as_json=False)
    view.show(now=True)
    output = capsys.readouterr().out
    assert "\x1b" not in output and "\r" not in output and output.count("\n") == 2
    assert r"bad\x1b[2J\nhealth" in output
