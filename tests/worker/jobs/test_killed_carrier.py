"""N8 where a process that carries a job is killed: each job that may have begun has one closing line, or is in a gap.

The process kills itself, or all of its worker, before or after it notes one of its reports.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cexec.protocol.base.limits import IDENTITY_SIZE
from tests.loggers import Crat
from tests.service import Application, Service

# cservice whose first job ends itself, or cservice (its grandparent), at one point.  argv: whom, when, report, marker.
LAUNCHER = """
import os, signal, sys
from cexec.worker.jobs.worker_link import WorkerLink
whom, when, name, marker = sys.argv[1:5]
del sys.argv[1:5]
victim, note = os.getpid() if whom == "worker" else 0, WorkerLink.note

def strike(report, now):
    if report.name == name and now == when and not os.path.exists(marker):
        open(marker, "x").close()
        os.kill(victim or os.getpid(), signal.SIGKILL)

def noted(self, report):
    strike(report, "before")
    note(self, report)
    strike(report, "after")

WorkerLink.note = noted
from cexec.commands.cservice import main
raise SystemExit(main())
"""
BEGUN = {  # at which points the job may have begun, and the worker has to answer for it
    ("before", "taken"): False, ("after", "taken"): False, ("before", "starting"): False, ("after", "starting"): True,
    ("before", "started"): True, ("after", "started"): True, ("before", "finished"): True, ("after", "finished"): True,
}  # fmt: skip
IDS = ["-".join(point) for point in BEGUN]


class Scene:
    """A worker whose first job is killed at one point, and a logger."""

    def __init__(self, directory: Path, whom: str, point: tuple[str, str]) -> None:
        self.application = Application(directory)
        self.crat = Crat(directory, "--json", self.application.public)
        self._state = directory / "state"
        self._launcher = directory / "launcher.py"
        self._launcher.write_text(LAUNCHER)
        self._arguments = [whom, *point, os.fspath(directory / "struck")]
        self.service = self.start()

    def start(self) -> Service:
        launcher = [sys.executable, os.fspath(self._launcher), *self._arguments]
        environment = {"XDG_STATE_HOME": os.fspath(self._state)}
        return Service(self.application, ["true"], ["-j", "1"], environment=environment, launcher=launcher)

    def mark(self) -> int:
        """Numbers up to here are used: they have closing lines, or are a gap for every logger."""
        (file,) = (path for path in self._state.rglob("*") if path.is_file() and path.name.startswith("series"))
        return int.from_bytes(file.read_bytes()[IDENTITY_SIZE:], "big")

    def close(self) -> None:
        self.service.kill()
        self.crat.close()


@pytest.mark.parametrize("point", BEGUN, ids=IDS)
def test_a_job_whose_process_is_killed_is_closed_if_it_may_have_begun(tmp_path: Path, point: tuple[str, str]) -> None:
    """Regression: if it was killed before it noted the end, the client had success, and the log an abandoned job."""
    scene = Scene(tmp_path, "process", point)
    try:
        assert scene.application.run().returncode == 0
        completed = 1 + (point == ("after", "finished"))  # its client, which knows nothing of that, runs it again
        scene.service.lines_with(" finished ", completed)
        scene.service.signal(signal.SIGTERM)
        scene.service.wait()
        assert scene.mark() == 1 + BEGUN[point], scene.service.lines
        assert len(scene.crat.wait_for("completed by", completed)) == completed
    finally:
        scene.close()


@pytest.mark.parametrize("point", BEGUN, ids=IDS)
def test_a_job_whose_worker_is_killed_is_in_a_gap_if_it_may_have_begun(tmp_path: Path, point: tuple[str, str]) -> None:
    """Regression: a worker that was killed between the start of a program and its report had not used a number."""
    scene = Scene(tmp_path, "worker", point)
    try:
        client, environment = scene.application.client()
        with subprocess.Popen(client, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
            scene.service.wait()
            running.kill()  # it may have the result, or ask again
        assert scene.mark() == 1  # given away when the slot was, because nobody can tell any more
        scene.service = scene.start()
        assert scene.application.run().returncode == 0
        scene.service.wait_for(" finished ")
        scene.service.signal(signal.SIGTERM)
        scene.service.wait()
        assert scene.mark() == 2
    finally:
        scene.close()
