"""Faults of disks under results, journals and standard output; they need root, because disks are mounted."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from time import monotonic

from tests.faults.kept_run import KeptRun
from tests.faults.load import Lane, Plan, Shape
from tests.faults.mounts import PowerlessDisk, enlarge, small_disk
from tests.faults.records import CAT, CEXEC, SUM
from tests.faults.rows import STORAGE, row
from tests.faults.scene import PATIENCE, Scene

TASKS = 120  # of a run that is interrupted
LIGHT = Plan(small=1, piped=0, bulk=(), tasks=10, everywhere=False)  # beside the run that the row is about


@row("power lost after a run", STORAGE, "a run of `cmap --state` has ended, and the disk loses what was not written",
     plan=LIGHT)  # fmt: skip
def power_lost_after_a_run(scene: Scene) -> None:
    with PowerlessDisk(scene.directory / "disk") as disk:
        for number in range(3):
            run = KeptRun(scene, disk.path / str(number), TASKS // 3, f"kept{number}")
            run.start()
            run.wait()
            with scene.fault():
                disk.cut_power()
                disk.unmount()
                disk.mount()
            run.collect()


@row("power lost during a run", STORAGE, "the same in the middle of a run, three times; it goes on with --resume",
     plan=LIGHT)  # fmt: skip
def power_lost_during_a_run(scene: Scene) -> None:
    with PowerlessDisk(scene.directory / "disk") as disk:
        run = KeptRun(scene, disk.path / "run", TASKS)
        run.start()
        for part in (1, 2, 3):
            run.wait_for(part * TASKS // 4)
            with scene.fault():
                disk.cut_power()
                run.kill()
                disk.unmount()
                disk.mount()
            run.results.mkdir(parents=True, exist_ok=True)
            run.start()
        run.go_on()
        run.collect()


@row("results moved away", STORAGE, "the results' directory of a run is moved away and made again, three times;"
     " --resume where the run has ended", plan=LIGHT)  # fmt: skip
def results_moved_away(scene: Scene) -> None:
    run = KeptRun(scene, scene.directory / "kept", TASKS)
    run.start()
    moved: list[Path] = []
    for part in (1, 2, 3):
        run.wait_for(TASKS // 6)
        with scene.fault():
            moved.append(run.results.with_name(f"moved-{part}"))
            run.results.rename(moved[-1])
            scene.last(0.2)
            run.results.mkdir()
    run.go_on()
    run.collect(moved)


@row("disk full during a run", STORAGE, "a disk of 500 KB under results, journal and joblog; then there is room, and"
     " the run goes on with --resume", plan=LIGHT)  # fmt: skip
def disk_full_during_a_run(scene: Scene) -> None:
    place = scene.directory / "disk"
    with small_disk(place, "500k"):
        run = KeptRun(scene, place, TASKS)
        with scene.fault():
            run.start()
            run.wait()
            enlarge(place, "100m")
        run.go_on()
        run.collect()


def submit_to_full(lane: Lane) -> None:
    """`cexec < in > /dev/full` and `> FILE` on a full disk, in turn."""
    load, job = lane.load, lane.new_id()
    shape = Shape(70_000, CAT) if lane.done % 2 else Shape(1_000, SUM)
    load.submit(lane.name, job, CEXEC, shape)
    full = load.directory / "disk"
    target = Path("/dev/full") if lane.done % 4 < 2 or not full.exists() else full / job
    with (load.directory / "in" / job).open("rb") as source, target.open("wb") as file:
        process = load.popen(load.cexec(job, shape), stdin=source, stdout=file)
    lane.finish(process, job)
    if target.is_file() and target.stat().st_size:
        (load.directory / "out" / job).write_bytes(target.read_bytes())


@row("disk full under cexec", STORAGE, "standard output is /dev/full, or a file on a full disk of 64 KiB",
     plan=Plan(others=(submit_to_full,)))  # fmt: skip
def disk_full_under_cexec(scene: Scene) -> None:
    place = scene.directory / "disk"
    with small_disk(place, "64k"):
        subprocess.run(["dd", "if=/dev/zero", f"of={place}/filler", "bs=4096"], stderr=subprocess.DEVNULL)
        while scene.load.lanes["own0"].done < 16:
            with scene.fault():
                scene.work(4)
        scene.load.lanes["own0"].stop(monotonic() + PATIENCE)
        os.unlink(place / "filler")
