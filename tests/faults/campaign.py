"""Runs rows of the campaign, one after the other, and judges them.

Contract: `run_row(row, directory)` returns a `Result`, whose `harm` lists everything that is not as it must be; it
raises only if the row could not be run.  `RunningRow` does the same in two steps, so that the next row can run while
this one only waits for its logger.
"""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.faults.checker import check
from tests.faults.recovery import Recovery, find_successes, recovery
from tests.faults.rows import Row
from tests.faults.scene import PATIENCE, Scene
from tests.faults.worker import Footprint
from tests.waiting import comes_true

BEFORE = 2  # successes of each lane before the first fault
MEMORY_GROWTH = 20_000_000  # bytes by which a cservice may grow: announcements are remembered, payloads are not


@dataclass
class Result:
    """What a row has shown.  `recovery` is None if a lane has not succeeded again."""

    name: str
    jobs: int
    injected: int
    counts: dict[str, int]
    recovery: Recovery | None
    descriptors: str  # of one cservice that lived all the time, before and after
    memory: str  # the same, in MB
    harm: list[str] = field(default_factory=list)


class RunningRow:
    """A row: `inject` runs it until its load has ended, and `judge` waits for what loggers say a minute later."""

    def __init__(self, row: Row, directory: Path) -> None:
        self._row = row
        self._directory = directory
        self._scene = Scene(directory, row.layout, row.plan, row.worker_options)
        self._recovered: Recovery | None = None

    def inject(self) -> None:
        """After an exception nothing of it runs any more."""
        with ExitStack() as stack:
            scene = stack.enter_context(self._scene)
            scene.warm_up()
            scene.load.start()
            comes_true(self._all_lanes_work, PATIENCE, pause=0.2)
            self._row.inject(scene)
            comes_true(lambda: scene.recovered, PATIENCE, pause=0.2)
            scene.load.stop()
            self._recovered = self._recovery()
            stack.pop_all()

    def judge(self) -> Result:
        """Ends everything."""
        scene, row = self._scene, self._row
        with scene.ended():
            scene.settle()
            footprints = _footprints(scene)
        evidence = scene.evidence()
        verdict = check(evidence)
        harm = verdict.lines() + [f"traceback: {line}" for line in scene.tracebacks()]
        if not scene.injected:
            harm.append("no fault was injected")
        if self._recovered is None or self._recovered.beyond > row.limit:
            harm.append(f"recovery: {self._recovered} in place of {row.limit:g} s")
        harm += [one.told() for one in footprints if one.grown]
        worst = max(footprints, key=lambda one: one.after.memory - one.before.memory, default=None)
        return Result(
            row.name,
            len(evidence.submitted),
            scene.injected,
            verdict.counts,
            self._recovered,
            f"{worst.before.descriptors} → {worst.after.descriptors}" if worst else "",
            f"{worst.before.memory / 1e6:.0f} → {worst.after.memory / 1e6:.0f}" if worst else "",
            harm,
        )

    def _all_lanes_work(self) -> bool:
        """So that it is known what a lane usually needs; for `cmap`, also from one run to the next."""
        successes = find_successes(self._directory)
        lanes = self._scene.load.lanes
        return all(
            len(successes[name]) >= BEFORE and lanes[name].done > (name != "cmap") for name in self._scene.load.probes
        )

    def _recovery(self) -> Recovery | None:
        return recovery(self._directory, self._scene.load.probes)


def run_row(row: Row, directory: Path) -> Result:
    running = RunningRow(row, directory)
    running.inject()
    return running.judge()


@dataclass
class Growth:
    """One cservice at the beginning and at the end of a row."""

    name: str
    before: Footprint
    after: Footprint

    @property
    def grown(self) -> bool:
        return (
            self.after.descriptors > self.before.descriptors or self.after.memory > self.before.memory + MEMORY_GROWTH
        )

    def told(self) -> str:
        return f"footprint of {self.name}: {asdict(self.before)} before, {asdict(self.after)} after"


def _footprints(scene: Scene) -> list[Growth]:
    """Of the workers that were there all the time, once they have nothing left to do."""
    constant = [worker for worker in scene.workers if worker.lives == 1 and worker.footprint is not None]
    found: list[Growth] = []

    def settled() -> bool:
        found[:] = [Growth(one.name, one.footprint, one.measure()) for one in constant if one.footprint is not None]
        return not any(one.grown for one in found)

    comes_true(settled, 30.0, pause=0.5)
    return found


def keep_or_remove(result: Result, directory: Path) -> None:
    """The records of a row that did harm are kept, without the large files."""
    if not result.harm:
        shutil.rmtree(directory)
