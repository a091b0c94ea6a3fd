"""Workers on a host: each has a directory with its key, its start script, its log and a record.

Contract: `start` writes the directory and starts cservice; it returns when cservice serves, and raises `RemoteError`
with cservice's own last words if it ended instead.  `look` describes a worker and writes nothing.  `remove` undoes
`start`, then removes the releases that no worker needs and, if nothing is left, the place.  Nothing is removed that is
not named in a record, apart from the files that cservice itself writes into the worker's directory.
"""

from __future__ import annotations

import base64
import json
import os
import shlex
import socket
import time
from pathlib import Path
from typing import Any

from cexec.boot.remote.place import HostPlace, RemoteError, write_json, write_whole
from cexec.boot.remote.release import describe, remove_release, sweep
from cexec.boot.remote.service import Detached, Unit

RECORD = "worker.json"
SCRIPT, LOG, OLD_LOG, PID, HEARTBEAT = "start", "log", "log.old", "pid", "heartbeat"
START_PATIENCE = 60.0  # seconds (ours): a slow machine compiles all modules at the first start
PAUSE = 0.05  # seconds (ours)
SERVING = "serving"  # the event that cservice writes first, also with --log json
LONGEST_WORDS = 300  # characters (ours) of the words of a failed cservice


class PlacedWorker:
    """The directory of one worker."""

    def __init__(self, place: HostPlace, name: str) -> None:
        self.place = place
        self.name = name
        self.directory = place.workers / name
        self.log = self.directory / LOG
        self.heartbeat = self.directory / HEARTBEAT
        self._record = self.directory / RECORD

    def record(self) -> dict[str, Any]:
        """Returns what was written when it was started; empty if it never was."""
        try:
            found: dict[str, Any] = json.loads(self._record.read_text())
        except (OSError, ValueError):
            return {}
        return found

    def look(self) -> dict[str, Any]:
        """Describes it: its record, if it runs, and the release that it runs."""
        record = self.record()
        if not record:
            return {}
        release = describe(self.place, record["release"]) or {}
        return {**record, "running": self.service(record).running(), "version": release.get("version", "")}

    def service(self, record: dict[str, Any]) -> Unit | Detached:
        if record["how"] == "unit":
            return Unit(self.place.home, self.name, record["host"])
        return Detached(self.directory / PID)

    def start(self, request: dict[str, Any]) -> dict[str, Any]:
        """Starts it in place of the one that runs; see `cexec/boot/serve.py` for the request."""
        record = {**request["record"], "host": socket.gethostname()}
        with self.place.locked():
            if describe(self.place, record["release"]) is None:
                raise RemoteError("remote", f"the release {record['release']} has gone from {self.place.releases}")
            before = self.record()
            if before:
                service = self.service(before)
                service.stop(request["grace"])
                service.forget()
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            service = self.service(record)
            self.place.note([*map(Path, self._written(request)), *service.files])
            self._write(request, record)
            write_json(self._record, record)
        self._rotate()
        service.start(self.directory / SCRIPT, self.log, request["grace"])
        self._wait(service)
        if before and before["release"] != record["release"]:
            with self.place.locked():
                remove_unused(self.place, before["release"])
        return self.look()

    def stop(self, grace: float) -> bool:
        """Returns True if it ran."""
        record = self.record()
        if not record:
            return False
        service = self.service(record)
        ran = service.running()
        service.stop(grace)
        if record["how"] == "unit":
            service.forget()  # it would start again with the machine
        return ran

    def remove(self, grace: float) -> None:
        record = self.record()
        if record:
            service = self.service(record)
            service.stop(grace)
            service.forget()
        for path in [*self.directory.glob("*.worker"), *self.directory.glob("*.revoked")]:
            path.unlink(missing_ok=True)
        for name in (RECORD, SCRIPT, LOG, OLD_LOG, PID, HEARTBEAT):
            (self.directory / name).unlink(missing_ok=True)
        try:
            self.directory.rmdir()
        except OSError:
            pass  # somebody else has put a file there, which `left` tells

    def left(self) -> list[str]:
        """Returns the paths of files that are not ours and stay."""
        return sorted(str(path) for path in self.directory.glob("**/*")) or []

    def _write(self, request: dict[str, Any], record: dict[str, Any]) -> None:
        """Writes the key, if a new one came, the list of revoked certificates and the script that starts cservice."""
        key = self.directory / f"{record['app']}.worker"
        if request["key"] is not None:
            for old in self.directory.glob("*.worker"):
                old.unlink()
            write_whole(key, base64.b64decode(request["key"]), 0o600)
        elif not key.exists():
            raise RemoteError("remote", f"{key} has gone")
        if request["revoked"] is not None:
            write_whole(self.directory / f"{record['app']}.revoked", base64.b64decode(request["revoked"]), 0o644)
        release = self.place.releases / record["release"]
        names = {"{python}": str(release / "bin" / "python"), "{place}": str(self.place.root)}
        words = [
            release / "bin" / "python",
            "-I",
            release / "bin" / "cservice",
            *_filled(record["options"], names),
            key,
        ]
        words += _filled(record["program"], names)
        lines = ["#!/bin/sh", "# Written by cboot; it starts this worker.", f"cd {shlex.quote(str(self.place.home))}"]
        lines += [f"export {name}={shlex.quote(value)}" for name, value in sorted(record["environment"].items())]
        lines.append(f"exec {shlex.join(map(str, words))}")
        write_whole(self.directory / SCRIPT, ("\n".join(lines) + "\n").encode(), 0o700)

    def _written(self, request: dict[str, Any]) -> list[str]:
        """Returns the files that cservice will write outside of its directory, besides those of jobs."""
        environ, home = os.environ, str(self.place.home)
        state = environ.get("XDG_STATE_HOME") or f"{home}/.local/state"
        cache = environ.get("XDG_CACHE_HOME") or f"{home}/.cache"
        runtime = environ.get("XDG_RUNTIME_DIR")
        jobs = f"{runtime}/cexec/jobs" if runtime else f"/tmp/cexec-{os.getuid()}/jobs"  # not a file: for the directory
        named = ((state, request["state"]), (cache, request["cache"]))
        return [jobs, *(f"{base}/cexec/{name}" for base, names in named for name in names)]

    def _rotate(self) -> None:
        """The log of the last time stays beside the new one."""
        try:
            os.replace(self.log, self.directory / OLD_LOG)
        except FileNotFoundError:
            pass

    def _wait(self, service: Unit | Detached) -> None:
        deadline = time.monotonic() + START_PATIENCE
        while SERVING not in self._logged():
            if not service.running():
                words = (self._logged().strip().splitlines() or ["it ended and said nothing"])[-1]
                service.stop(0.0)
                service.forget()
                raise RemoteError("worker", f"cservice did not start: {words[-LONGEST_WORDS:]}")
            if time.monotonic() > deadline:
                raise RemoteError("worker", f"cservice has not served within {START_PATIENCE:g} s; see {self.log}")
            time.sleep(PAUSE)

    def _logged(self) -> str:
        try:
            return self.log.read_text(errors="replace")
        except OSError:
            return ""


def all_workers(place: HostPlace) -> list[PlacedWorker]:
    """Returns the workers in this home, also those of other hosts that share it."""
    names = sorted(os.listdir(place.workers)) if place.workers.is_dir() else []
    return [PlacedWorker(place, name) for name in names]


def remove(place: HostPlace, names: list[str], grace: float, *, keep_programs: bool) -> dict[str, Any]:
    """Removes these workers and what nobody needs any more; returns the paths of files that stay."""
    if not place.exists():
        return {"removed": [], "left": []}
    removed, left = [], list[str]()
    with place.locked(make=False):
        for worker in all_workers(place):
            if worker.name in names:
                worker.remove(grace)
                removed.append(worker.name)
                left += worker.left()
        sweep(place)
        left += remove_unused(place)
        left += place.tidy(keep_programs=keep_programs)
    return {"removed": removed, "left": left, "place": place.exists()}


def remove_unused(place: HostPlace, only: str = "") -> list[str]:
    """Removes the releases that no worker needs, or `only` this one; returns the paths of files that are not ours."""
    used = {worker.record().get("release") for worker in all_workers(place)}
    names = sorted(os.listdir(place.releases)) if place.releases.is_dir() else []
    return [path for name in names if name not in used and only in ("", name) for path in remove_release(place, name)]


def _filled(words: list[str], names: dict[str, str]) -> list[str]:
    """Puts the host's own paths in the place of their names."""
    for name, value in names.items():
        words = [word.replace(name, value) for word in words]
    return words
