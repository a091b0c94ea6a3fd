"""A worker of a scene: one host's cservice, which may be killed and started again.

Contract: `Worker(scene, host)` runs; `start` gives it a new life after its end.  Everything that it starts has the
scene's mark in its environment, and its lines are kept in `logs` by `keep_log`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from tests.environment import ROOT
from tests.lab import Host
from tests.service import Service

if TYPE_CHECKING:
    from tests.faults.scene import Scene

MARK = "FAULTS_MARK"  # everything that a worker starts inherits it
DOOMED = ROOT / "tests" / "faults" / "doomed.py"
PROGRAM = ROOT / "tests" / "faults" / "program.py"


@dataclass
class Footprint:
    """Descriptors and bytes of memory of one cservice."""

    descriptors: int
    memory: int


class Worker:
    """One host's cservice, which may be killed and started again."""

    def __init__(self, scene: Scene, host: Host, options: Sequence[str] = ()) -> None:
        self.name = f"w{host.number}"
        self.host = host
        self.lives = 0
        self.footprint: Footprint | None = None
        self._scene = scene
        self._options = options
        self.service = self.start()

    def start(
        self, doom: str = "", launcher: Sequence[str] = (), environment: Mapping[str, str] | None = None
    ) -> Service:
        """A new life; `doom` is the point of doomed.py at which it will kill itself.

        `launcher`: the words in place of `cservice`, for this life; `environment`: what else it has.
        """
        scene = self._scene
        self.lives += 1
        runtime = scene.directory / "runtime" / self.name
        for name in ("run", "tmp"):
            (runtime / name).mkdir(parents=True, exist_ok=True)
        variables = {
            **scene.layout.worker_environment,
            MARK: scene.mark,
            "FAULTS_WORKER": self.name,
            "FAULTS_STARTS": os.fspath(scene.directory / "starts"),
            "FAULTS_POINTS": os.fspath(scene.points),
            "XDG_RUNTIME_DIR": os.fspath(runtime / "run"),
            "XDG_STATE_HOME": os.fspath(scene.directory / "state" / self.name),
            "TMPDIR": os.fspath(runtime / "tmp"),
            **(environment or {}),
        }
        options = ["-j", str(scene.layout.slots), "--name", self.name, "--speed", "1", *self._options]
        doomed = [sys.executable, os.fspath(DOOMED), doom] if doom else None
        self.service = Service(
            scene.application,
            [sys.executable, "-S", os.fspath(PROGRAM)],
            options,
            self.host,
            variables,
            launcher=launcher or doomed,
        )
        return self.service

    def processes(self) -> list[psutil.Process]:
        """Those of cservice, not those of programs."""
        found = []
        for pid in self.service.pids():
            try:
                process = psutil.Process(pid)
                if os.fspath(PROGRAM) not in process.cmdline()[:3]:
                    found.append(process)
            except psutil.Error:
                continue  # it has ended meanwhile
        return found

    def job_processes(self) -> list[psutil.Process]:
        try:
            return self.service.supervisor.children()
        except psutil.Error:
            return []  # it has ended

    def kill_job_processes(self) -> int:
        """SIGKILL of each of them; how many."""
        killed = 0
        for process in self.job_processes():
            try:
                process.kill()
                killed += 1
            except psutil.NoSuchProcess:
                continue  # it has ended by itself
        return killed

    def kill(self) -> None:
        """SIGKILL of cservice and its job processes, not of programs, which the next life has to find."""
        for process in self.processes():
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue  # it has ended with cservice
        self.service.process.wait()
        self.keep_log()

    def keep_log(self) -> None:
        logs = self._scene.directory / "logs"
        logs.mkdir(exist_ok=True)
        (logs / f"{self.name}.{self.lives}").write_text("".join(line + "\n" for line in self.service.lines))

    def measure(self) -> Footprint:
        process = psutil.Process(self.service.pid)
        return Footprint(process.num_fds(), process.memory_info().rss)
