"""Clocks that are wrong, certificates that have ended or are revoked, lists and key files that are damaged."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

from tests.environment import ROOT, clean_environment, command
from tests.faults.load import Lane, Plan, submit_to_file
from tests.faults.rows import DISK, TIME, row
from tests.faults.scene import Scene
from tests.faults.worker_rows import restart

CLOCK_PATH = f"{ROOT}:{ROOT / 'tests' / 'faults' / 'clock'}"
HOUR, DAY = 3600, 86_400
PLAN = Plan(bulk=(5_000_000,))
# The clients' clock, too: they run in the directory of the scene.
WRONG = Plan(bulk=(5_000_000,), environment={"PYTHONPATH": CLOCK_PATH, "FAULTS_CLOCK": "clock"})
BRIEFLY = 2.5  # seconds: longer than a worker needs to notice that a list has changed
LOOKS = "workers look at the list every 2 s, and clients that were refused wait until they announce again"
LIMIT = 6.0  # seconds


def set_clock(path: Path, seconds: float) -> None:
    draft = path.with_suffix(".new")
    draft.write_text(f"{seconds}")
    draft.rename(path)


def wrong_clock(scene: Scene, name: str) -> dict[str, str]:
    return {"PYTHONPATH": CLOCK_PATH, "FAULTS_CLOCK": os.fspath(scene.directory / name)}


@row("clocks are off", TIME, "the clocks of three workers are an hour and two days ahead, and at 1970", plan=PLAN)
def clocks_are_off(scene: Scene) -> None:
    for worker, seconds in zip(scene.workers, (HOUR, 2 * DAY, -time.time()), strict=True):
        with scene.fault():
            set_clock(scene.directory / worker.name, seconds)
            restart(worker, environment=wrong_clock(scene, worker.name))
        scene.work()
    scene.work(20)


@row("clocks jump", TIME, "the clocks of all hosts jump back and forth, by seconds and by years, 240 times", plan=WRONG)
def clocks_jump(scene: Scene) -> None:
    for worker in scene.workers:
        restart(worker, environment=wrong_clock(scene, worker.name))
    clocks = [scene.directory / name for name in ("clock", *(worker.name for worker in scene.workers))]
    for _ in range(3):
        with scene.fault(len(clocks) * 20):
            for seconds in (-5.0, 5.0, -HOUR, HOUR, -2 * DAY, 0.0, -time.time() + 10, 30 * 365 * DAY, 0.0, -1.0) * 2:
                for clock in clocks:
                    set_clock(clock, seconds)
                scene.last(0.1)
            for clock in clocks:
                set_clock(clock, 0.0)
        scene.work(2)


making = threading.Lock()


def ckeygen(*words: str | os.PathLike[str]) -> None:
    subprocess.run(command("ckeygen", *words), env=clean_environment(), check=True, capture_output=True, timeout=60)


def submit_with_a_key_of_its_own(lane: Lane) -> None:
    """The key whose name is in the file `holder`, or else the one for a day."""
    directory = lane.load.directory
    name = (directory / "holder").read_text() if (directory / "holder").exists() else "soon"
    key = directory / f"{name}.pub"
    with making, suppress(FileExistsError):
        key.with_suffix(".made").touch(exist_ok=False)
        ckeygen("--client", name, "--days", "1", lane.load.application.secret, key)
    submit_to_file(lane, lane.load.shape(), key)


OWN = Plan(small=2, piped=0, bulk=(5_000_000,), others=(submit_with_a_key_of_its_own, submit_with_a_key_of_its_own))


@row("a certificate ends", TIME, "a client's key is good for a day, and it is two days later at one worker, at two, at"
     " none", plan=OWN)  # fmt: skip
def certificate_ends(scene: Scene) -> None:
    late = scene.workers[:2]
    for worker in late:
        restart(worker, environment=wrong_clock(scene, worker.name))
    for days in ((2, 0), (2, 2), (0, 0)):
        with scene.fault(2):
            for worker, later in zip(late, days, strict=True):
                set_clock(scene.directory / worker.name, later * DAY)
        scene.work(8)


@row("clients are revoked", TIME, "a client with running jobs is revoked, and goes on with a new key, four times",
     plan=OWN, limit=LIMIT, reason=LOOKS)  # fmt: skip
def clients_are_revoked(scene: Scene) -> None:
    for number in range(4):
        name = f"holder{number}"
        key = scene.directory / f"{name}.pub"
        ckeygen("--client", name, "--days", "1", scene.application.secret, key)
        key.with_suffix(".made").touch()
        (scene.directory / "holder").write_text(name)
        scene.work(4)
        with scene.fault():
            ckeygen("--revoke", name, scene.application.secret)
            scene.last(BRIEFLY)


@row("the list is damaged", TIME, "the list of revoked certificates is missing, cut short, older, writable by others, a"
     " directory", plan=PLAN, kind=DISK, limit=LIMIT, reason=LOOKS)  # fmt: skip
def list_is_damaged(scene: Scene) -> None:
    path = scene.directory / "app.revoked"
    ckeygen("--client", "nobody", scene.application.secret, scene.directory / "nobody.pub")
    ckeygen("--revoke", "nobody", scene.application.secret)
    old = path.read_bytes()
    ckeygen("--client", "nobody2", scene.application.secret, scene.directory / "nobody2.pub")
    ckeygen("--revoke", "nobody2", scene.application.secret)
    whole = path.read_bytes()
    scene.last(BRIEFLY)
    for damage in (None, whole[: len(whole) // 2], old, whole, b""):
        scene.work(2)
        with scene.fault():
            path.unlink()
            if damage == b"":
                path.mkdir()
            elif damage is not None:
                path.write_bytes(damage)
                path.chmod(0o666 if damage is whole else 0o600)
            scene.last(BRIEFLY)
            if path.is_dir():
                path.rmdir()
            put(path, whole)


def put(path: Path, data: bytes) -> None:
    draft = path.with_name("draft")
    draft.write_bytes(data)
    draft.chmod(0o600)
    draft.rename(path)


@row("key files are damaged", TIME, "keys that others may read, cut short, of the wrong kind, in disorder: cservice and"
     " cexec refuse each", plan=PLAN, kind=DISK)  # fmt: skip
def key_files_are_damaged(scene: Scene) -> None:
    secret, public = scene.application.secret.read_bytes(), scene.application.public.read_bytes()
    swapped = b"".join(sorted(public.splitlines(keepends=True)))
    path = scene.directory / "damaged"
    for name, good, wrong_kind in (("cservice", secret, public), ("cexec", public, secret)):
        for data, mode in ((good, 0o644), (good[:-20], 0o600), (wrong_kind, 0o600), (swapped, 0o600), (b"", 0o600)):
            put(path, data)
            path.chmod(mode)
            words: list[str | Path] = [path, "cat"] if name == "cservice" else ["-n", path]
            with scene.fault():
                host = scene.workers[0].host if name == "cservice" else scene.client
                ended = host.run(command(name, *words), env=clean_environment(), capture_output=True, timeout=60)
                assert ended.returncode in (100, 111), (name, data[:40], ended)
            scene.work(1)
