"""cmap(1) with --state and real workers: what a journal takes, and what a run that goes on says and does."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests import preloaded
from tests.conftest import StartService
from tests.environment import command, local_environment
from tests.needs import NOBODY, require_second_user
from tests.service import Application
from tests.waiting import wait_until

OPTIONS = ["--allow-args", "-j4"]


@pytest.fixture(autouse=True)
def _directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Cmap:
    """Calls of cmap with one key."""

    def __init__(self, application: Application) -> None:
        self._public = application.public

    def argv(self, *words: str | bytes) -> list[str | bytes]:
        return [*command("cmap", self._public), *words]

    def run(self, *words: str | bytes, input: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return preloaded.run(self.argv(*words), input=input, env=local_environment(), timeout=60)

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        return subprocess.Popen(self.argv(*words), env=local_environment(), **pipes)


@pytest.fixture
def cmap(application: Application) -> Cmap:
    return Cmap(application)


def explain(*words: str | bytes) -> str:
    argv = [*command("cmap", "explain", "--state"), *words]
    done = subprocess.run(argv, capture_output=True, env=local_environment(), timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def test_lines_arguments_names_and_paths_that_are_no_utf_8(service: StartService, cmap: Cmap) -> None:
    service("sh", "-c", 'cat; printf %s "$1"', "sh", options=OPTIONS)
    done = cmap.run("--state", "s", input=b"caf\xe9\n\xff\n")
    assert (done.returncode, done.stderr, Counter(done.stdout)) == (0, b"", Counter(b"caf\xe9\n\xff\n"))
    names = [b"--stdin-text", b"{}", b"--stdout", b"{}.out\xe9", b"--joblog", b"log\xe9", b"--state", b"s\xe9"]
    done = cmap.run(*names, "--", b"arg\xe9{}", ":::", b"caf\xe9", "b")
    assert (done.returncode, done.stderr) == (0, b"")
    with open(b"caf\xe9.out\xe9", "rb") as file:
        assert file.read() == b"caf\xe9arg\xe9caf\xe9"
    assert "2 tasks done" in explain("s")
    assert r"caf\udce9" in explain(b"s\xe9", "1")
    again = cmap.run(*names, "--resume", "--", b"arg\xe9{}", ":::", b"caf\xe9", "b")
    assert (again.returncode, again.stderr) == (0, b"cmap: nothing to do: of 2 tasks none is left for --resume\n")


def begun(path: Path, number: int) -> None:
    wait_until(lambda: path.exists() and len(path.read_text().split()) >= number)


def test_tasks_at_a_once_worker_do_not_run_again_after_cmap_was_killed(
    service: StartService, cmap: Cmap, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    program = ["sh", "-c", 'echo "$1" >> "$RAN"; test -e "$RAN.go" || sleep 1000', "sh"]
    service(*program, options=[*OPTIONS, "--once"], environment={"RAN": str(ran)})
    words = ["--state", "s", "--", "{}", ":::", *map(str, range(1, 7))]
    process = cmap.start(*words)
    begun(ran, 4)
    process.kill()
    process.communicate()
    (tmp_path / "ran.go").touch()
    done = cmap.run("--resume", *words)
    assert done.returncode == 255
    assert done.stderr.startswith(b"cmap: not run again: tasks 1-4, which a worker whose jobs must not be repeated")
    assert Counter(ran.read_text().split()) == Counter("123456")
    assert "2 tasks done, 0 failed, 4 left" in explain("s")
    assert "--repeat-once" in explain("s", "1")
    again = cmap.run("--resume", "--repeat-once", *words)
    assert (again.returncode, again.stderr) == (0, b"")
    assert Counter(ran.read_text().split()) == Counter("1234561234")


def test_a_mended_input_and_a_changed_argument(service: StartService, cmap: Cmap, tmp_path: Path) -> None:
    service("sh", "-c", "grep -q good", "sh", options=OPTIONS)
    for name in "abc":
        Path(name).write_text("bad\n" if name == "b" else "good\n")
    words = ["--stdin", "{}", "--state", "s", "--", "x", ":::", "a", "b", "c"]
    assert cmap.run(*words).returncode == 1
    Path("b").write_text("good now\n")
    other = [word if word != "x" else "y" for word in words]
    done = cmap.run("--retry-failed", *other)
    assert done.returncode == 255
    assert b"not run again: task 2, which failed, because no row is the same task now" in done.stderr
    assert (done := cmap.run("--retry-failed", *words)).returncode == 0, done.stderr
    assert done.stderr == b""
    assert explain("s").startswith("3 tasks done, 0 failed")


def test_another_program_locks_the_journal_for_a_while(service: StartService, cmap: Cmap, tmp_path: Path) -> None:
    go = tmp_path / "go"
    worker = service("sh", "-c", f"until test -e {go}; do sleep 0.05; done", options=["-j4"])
    process = cmap.start("--state", "s", "--array", "1-8")
    worker.wait_for("started")
    with closing(sqlite3.connect("s", isolation_level=None, timeout=60)) as foreign:
        foreign.execute("BEGIN IMMEDIATE")
        go.touch()
        wait_until(lambda: sum("finished" in line for line in worker.lines) == 8)
        assert process.poll() is None  # the tasks are over, but not saved
        foreign.execute("ROLLBACK")
    said = process.communicate(timeout=60)[1]
    assert (process.returncode, said) == (0, b"")
    assert "8 tasks done" in explain("s")


def test_a_journal_of_another_user_is_refused_before_anything_runs(service: StartService, cmap: Cmap) -> None:
    require_second_user()
    service("cat", options=OPTIONS)
    assert cmap.run("--state", "s", ":::", "a").returncode == 0
    os.chown("s", NOBODY, NOBODY)
    done = cmap.run("--state", "s", "--resume", "--stdout", "{}.out", ":::", "b")
    assert done.returncode == 100
    assert b"it belongs to another user" in done.stderr
    assert not Path("b.out").exists()
