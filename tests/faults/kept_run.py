"""A run of `cmap --state` that the injector interrupts, and that goes on with --resume.

Contract: results, journal and joblog are in `place`.  `collect` copies what is there into the row's records, and
records the end of the run; results that the injector has moved elsewhere are `found_in` those places.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.faults.checker import RUN_FAILED
from tests.faults.load import SAID
from tests.faults.records import Ended, append
from tests.faults.scene import Scene
from tests.waiting import wait_until

MOST = 6  # times that a run goes on
DEADLINE = 120.0  # seconds until a run ends


class KeptRun:
    """One run."""

    def __init__(self, scene: Scene, place: Path, tasks: int, name: str = "kept") -> None:
        self.name = name
        self.place = place
        self.results = place / "results"
        self.status: int | None = None
        self._scene = scene
        self._began = False
        self._process: subprocess.Popen[Any] | None = None
        self._said = ""
        self.results.mkdir(parents=True, exist_ok=True)
        scene.load.make_table(name, name, tasks)

    def start(self) -> None:
        options = ["--state", str(self.place / "state"), *(["--resume"] if self._began else [])]
        argv = self._scene.load.cmap(self.name, f"{self.results}/{{id}}", str(self.place / "joblog"), *options)
        self._process = self._scene.load.popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self._began = True

    def wait_for(self, count: int) -> None:
        """Until so many results are there, or the run has ended."""
        wait_until(lambda: self._ended or len(list(self.results.iterdir())) >= count, DEADLINE)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self.wait()

    def wait(self) -> int:
        """Its status, when it has ended."""
        assert self._process is not None and self._process.stderr is not None
        self._said = self._process.stderr.read().decode(errors="replace")
        self._process.stderr.close()
        self.status = self._process.wait(DEADLINE)
        return self.status

    def go_on(self) -> None:
        """Until it ends by itself, with each task done or failed."""
        for _ in range(MOST):
            if self._process is None or self._process.returncode is not None:
                self.start()
            if self.wait() >= 0 and self.status not in RUN_FAILED:
                return

    def collect(self, found_in: Iterable[Path] = ()) -> None:
        records = self._scene.directory
        for directory in (*found_in, self.results):
            for path in directory.iterdir():
                shutil.copy(path, records / "out" / path.name)
        if (self.place / "joblog").exists():
            shutil.copy(self.place / "joblog", records / "runs" / f"{self.name}.joblog")
        assert self.status is not None
        append(records, Ended(self.name, self.status, time.time(), self._said[-SAID:]))

    @property
    def _ended(self) -> bool:
        return self._process is None or self._process.poll() is not None
