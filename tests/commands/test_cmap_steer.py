"""`cmap pause`, `cmap continue` and `cmap weight`, as people type them: beside real runs, and where there is none."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from cexec.cmap.control.asking import ask
from cexec.cmap.control.control_messages import ControlAction, ControlRequest, ControlStatus
from cexec.cmap.watch.explain import explain
from tests import preloaded
from tests.conftest import StartService
from tests.environment import command, local_environment
from tests.needs import NOBODY, require_second_user, require_tool
from tests.second_user import AS_NOBODY, readable_python
from tests.service import Application
from tests.waiting import wait_until

RUNS: list[subprocess.Popen[str]] = []  # that a test has started


@pytest.fixture(autouse=True)
def _directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, service: StartService) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    while RUNS:
        process = RUNS.pop()
        if process.poll() is None:
            process.kill()
            process.communicate()


class Tasks:
    """Each task writes its number to `began`, and ends when there is a file `go`; both are in this directory."""

    def __init__(self, start: StartService, slots: int) -> None:
        here = Path.cwd()
        self._began, self._go = here / "began", here / "go"
        script = f'echo $1 >> {self._began}; until test -e {self._go}; do sleep 0.02; done; echo "$1"'
        start("sh", "-c", script, "sh", options=["--allow-args", f"-j{slots}"])

    def begun(self) -> list[int]:
        return [int(word) for word in self._began.read_text().split()] if self._began.exists() else []

    def end(self) -> None:
        self._go.touch()


class Run:
    """`cmap --state s` in the background, over the numbers from 1 to `tasks`, or over what comes to its input."""

    def __init__(self, application: Application, tasks: int = 0, *words: str) -> None:
        inputs = ["--array", f"1-{tasks}"] if tasks else []
        argv = [*command("cmap", application.public), "--state", "s", *words, *inputs, "--", "{}"]
        self.process = subprocess.Popen(
            argv, env=local_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        RUNS.append(self.process)

    def ended(self) -> tuple[int, list[int], str]:
        """Its exit status, the numbers that came, and what it said."""
        out, said = self.process.communicate(timeout=60)
        return self.process.returncode, sorted(map(int, out.split())), said


def steer(*words: str) -> tuple[int, str]:
    """The exit status and the only line, without the number of the process."""
    done = preloaded.run_text(command("cmap", *words), env=local_environment(), timeout=60)
    assert not (done.stdout and done.stderr)
    return done.returncode, re.sub(r"^process \d+, ", "", done.stdout + done.stderr)


def status() -> ControlStatus:
    return ask("s", ControlRequest(ControlAction.STATUS), 30.0)


def paused(run: Run, tasks: Tasks, number: int) -> None:
    """Waits until so many tasks run, and pauses."""
    wait_until(lambda: len(tasks.begun()) == number, explain=lambda: run.process.poll())
    assert steer("pause", "s")[0] == 0


def test_a_pause_frees_the_slots_for_another_client_and_then_each_task_runs_once(
    service: StartService, application: Application
) -> None:
    tasks, run = Tasks(service, 2), Run(application, 7)
    wait_until(lambda: len(tasks.begun()) == 2)
    told = "paused, weight 1, 2 tasks running, 5 waiting; cmap continue s lets it go on\n"
    assert steer("pause", "s") == (0, told)
    tasks.end()
    wait_until(lambda: (now := status()).running == now.leases == 0)
    wait_until(lambda: "what waits: cmap is paused; cmap continue lets it go on" in explain("s", None, time.time()))
    other = application.run("--", "99")
    assert (other.returncode, other.stdout) == (0, b"99\n"), "another client has a slot"
    assert sorted(tasks.begun()) == [1, 2, 99] and status().waiting == 5
    assert steer("continue", "s") == (0, "weight 1, 0 tasks running, 5 waiting\n")
    said = "cmap: paused; cmap continue s lets it go on\ncmap: goes on\n"
    assert run.ended() == (0, [1, 2, 3, 4, 5, 6, 7], said)
    assert Counter(tasks.begun()) == Counter([1, 2, 3, 4, 5, 6, 7, 99])
    assert steer("pause", "s") == (111, "cmap pause: no cmap runs with s\n") and not os.path.lexists("s-control")


def test_lines_that_arrive_and_their_end_wait_for_the_end_of_the_pause(
    service: StartService, application: Application
) -> None:
    tasks, run = Tasks(service, 2), Run(application)
    tasks.end()
    assert run.process.stdin is not None
    print(1, file=run.process.stdin, flush=True)
    paused(run, tasks, 1)
    print("2\n3", file=run.process.stdin, flush=True)
    wait_until(lambda: status().waiting == 2)
    run.process.stdin.close()
    run.process.stdin = None
    assert tasks.begun() == [1]
    assert steer("continue", "s")[0] == 0
    assert run.ended()[:2] == (0, [1, 2, 3])


def test_a_run_that_is_interrupted_or_killed_in_a_pause_goes_on_without_one(
    service: StartService, application: Application
) -> None:
    tasks, run = Tasks(service, 1), Run(application, 3)
    paused(run, tasks, 1)
    code, said = steer("weight", "s", "7")
    wanted = r"paused( for [\d.]+ s)?, weight 7, 1 task running, 2 waiting; cmap continue s lets it go on\n"
    assert code == 0 and re.fullmatch(wanted, said), said
    run.process.send_signal(signal.SIGINT)
    wait_until(lambda: status().ending)
    words = "the run is about to end, so no further task begins anyway\n"
    assert steer("continue", "s") == (111, f"cmap continue: {words}")
    run.process.send_signal(signal.SIGINT)
    code, numbers, said = run.ended()
    assert (code, numbers) == (255, []) and "cmap: has the weight 7 now\n" in said
    assert not os.path.lexists("s-control")
    killed = Run(application, 3, "--resume")
    paused(killed, tasks, 2)
    killed.process.kill()
    killed.ended()
    assert os.path.lexists("s-control") and steer("continue", "s")[0] == 111
    tasks.end()
    last = Run(application, 3, "--resume")
    assert last.ended() == (0, [1, 2, 3], "")


def test_another_user_cannot_ask(service: StartService, application: Application, tmp_path: Path) -> None:
    """The mode of the socket forbids it, and if its user has changed that, cmap does."""
    require_second_user()
    require_tool("setpriv")
    (tmp_path / "python").mkdir()
    as_nobody = [*readable_python(tmp_path / "python"), *AS_NOBODY]
    tasks, run = Tasks(service, 1), Run(application, 2)
    wait_until(lambda: len(tasks.begun()) == 1)
    for mode in (0o600, 0o666):
        os.chmod("s-control", mode)
        argv = [*as_nobody, *command("cmap", "pause", os.path.abspath("s"))]
        done = subprocess.run(argv, capture_output=True, text=True, env=local_environment(), timeout=60)
        refusal = "cmap pause: only the user who has started this cmap, or root, may do that\n"
        assert (done.returncode, done.stdout, done.stderr) == (111, "", refusal)
    assert not status().paused
    tasks.end()
    assert run.ended() == (0, [1, 2], "")


def test_what_another_user_has_put_there_stays_and_the_run_goes_on(
    service: StartService, application: Application
) -> None:
    require_second_user()
    Path("s-control").write_text("mine")
    os.chown("s-control", NOBODY, NOBODY)
    tasks = Tasks(service, 1)
    tasks.end()
    code, numbers, said = Run(application, 2).ended()
    assert (code, numbers) == (0, [1, 2]) and Path("s-control").read_text() == "mine"
    (line,) = said.splitlines()
    assert line.startswith("cmap: cannot listen at ") and line.endswith("cannot be used with this run")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["pause"], 100, "cmap pause: missing argument 'JOURNAL'; see cmap pause --help"),
        (["pause", "s"], 100, "cmap pause: there is no journal s; give the --state of the run"),
        (["pause", "--state", "s"], 100, "cmap pause: no such option '--state': it is the argument JOURNAL here"),
        (["continue", "s", "t"], 100, "cmap continue: got unexpected extra argument (t); see cmap continue --help"),
        (["weight", "s"], 100, "cmap weight: missing argument 'N'; see cmap weight --help"),
        (["weight", "s", "0"], 100, "invalid value for 'N': 0 is not in the range 1<=x<=65535"),
        (["weight", "s", "x"], 100, "invalid value for 'N': 'x' is not a whole number"),
        (["weight", "", "1"], 100, "cmap weight: JOURNAL is empty; is a variable of the shell not set?"),
        (["pasue", "s"], 100, "cmap: for a run that goes on: cmap pause FILE, where FILE is its --state"),
        (["wieght"], 111, "; for a run that goes on: cmap weight FILE N, where FILE is its --state"),
    ],
)
def test_wrong_use_is_told(words: list[str], code: int, said: str) -> None:
    ended, line = steer(*words)
    assert ended == code and said in line and line.count("\n") == 1
