"""Releases: what a worker runs, as a virtual environment that is made from wheels without pip.

Contract: a release is the directory `releases/ID` with `bin/python` (a link to the host's Python), `bin/cservice` and
the unpacked wheels.  It appears by a rename when it is complete.  `files.json` in it lists its files; `remove_release`
removes those and what Python has compiled of them, and leaves every other file.  A wheel is a zip archive whose files
belong into site-packages as they are, except those of its `.data` directory (Binary distribution format, PEP 427).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from cexec.boot.remote.place import LOCK_PATIENCE, HostPlace, RemoteError, write_json

FILES = "files.json"
DRAFT = ".new-"
_LIBRARIES = ("purelib", "platlib")  # parts of `.data` that belong into site-packages, too

CONFIGURATION = """\
home = {home}
include-system-site-packages = false
version = {version}
"""
LAUNCHER = """\
#!{python} -I
import _signal

for number in (_signal.SIGUSR1, _signal.SIGUSR2):
    _signal.signal(number, _signal.SIG_IGN)  # they never end it

from cexec.commands.cservice import main

raise SystemExit(main())
"""


def describe(place: HostPlace, name: str) -> dict[str, Any] | None:
    """Returns the record of a release; None if it is not there."""
    try:
        found: dict[str, Any] = json.loads((place.releases / name / FILES).read_text())
    except (OSError, ValueError):
        return None
    return found


def install(
    place: HostPlace, request: dict[str, Any], read: Callable[[int], bytes], want: Callable[[], None]
) -> dict[str, Any]:
    """Installs `request["release"]`, unless it is there; calls `want` before it reads the wheels with `read`.

    `request["wheels"]`: name, size and SHA-256 of each; `request["unpacked"]`: bytes of all files.
    `request["note"]`: kept in the record, for the next host that shares this home.
    Returns `{"present": true, "note": ...}` or `{"present": false}`.
    """
    name = request["release"]
    with place.locked():
        sweep(place, LOCK_PATIENCE)
        found = describe(place, name)
        if found is not None:
            return {"present": True, "note": found["note"]}
        free = place.free()
        if free < request["unpacked"]:
            place.tidy(keep_programs=True)
            text = f"{_millions(request['unpacked'])} are needed, {_millions(free)} are free in {place.home}"
            raise RemoteError("space", text)
        want()
        draft = place.releases / f"{DRAFT}{os.urandom(6).hex()}"
        try:
            _fill(draft, place.releases / name, request, read)
            os.rename(draft, place.releases / name)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            place.tidy(keep_programs=True)
            raise
    return {"present": False}


def remove_release(place: HostPlace, name: str) -> list[str]:
    """Removes the files of a release; returns the paths of those that are not ours and stay."""
    directory = place.releases / name
    record = describe(place, name)
    if record is None:
        return []
    folders = {directory}
    for file in record["files"]:
        path = directory / file
        path.unlink(missing_ok=True)
        folders.update(parent for parent in path.parents if directory in parent.parents)
    for folder in list(folders):
        compiled = folder / "__pycache__"
        for path in compiled.glob("*.pyc*"):
            path.unlink(missing_ok=True)
        folders.add(compiled)
    (directory / FILES).unlink(missing_ok=True)
    for folder in sorted(folders, key=lambda path: len(path.parts), reverse=True):
        try:
            folder.rmdir()
        except OSError:
            pass  # absent, or it has a file of somebody else
    return sorted(str(path) for path in directory.rglob("*") if not path.is_dir())


def _fill(draft: Path, final: Path, request: dict[str, Any], read: Callable[[int], bytes]) -> None:
    library = PurePosixPath("lib", f"python{sys.version_info.major}.{sys.version_info.minor}", "site-packages")
    files: list[str] = []
    for wheel in request["wheels"]:
        data = read(wheel["size"])
        if hashlib.sha256(data).hexdigest() != wheel["sha256"]:
            raise RemoteError("remote", f"{wheel['name']} came damaged")
        files += _unpack(data, draft, library)
    base = os.path.realpath(sys.executable)
    version = ".".join(map(str, sys.version_info[:3]))
    (draft / "bin").mkdir(parents=True)
    (draft / "bin" / "python").symlink_to(base)
    (draft / "pyvenv.cfg").write_text(CONFIGURATION.format(home=os.path.dirname(base), version=version))
    launcher = draft / "bin" / "cservice"
    launcher.write_text(LAUNCHER.format(python=final / "bin" / "python"))
    launcher.chmod(0o755)
    files += ["bin/python", "bin/cservice", "pyvenv.cfg"]
    write_json(draft / FILES, {"version": request["version"], "note": request["note"], "files": files})


def _unpack(data: bytes, draft: Path, library: PurePosixPath) -> list[str]:
    """Unpacks one wheel; returns the paths of its files in the release."""
    files = []
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for member in archive.infolist():
            inner = _place_of(PurePosixPath(member.filename))
            if member.is_dir() or inner is None:
                continue
            name = library / inner
            path = draft / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(archive.read(member))
            path.chmod(0o755 if member.external_attr >> 16 & 0o100 else 0o644)
            files.append(str(name))
    return files


def _place_of(name: PurePosixPath) -> PurePosixPath | None:
    """Returns where in site-packages a member of a wheel belongs; None for scripts, headers and data."""
    if name.is_absolute() or ".." in name.parts:
        raise RemoteError("remote", f"a wheel has a file outside of itself: {name}")
    if not name.parts[0].endswith(".data"):
        return name
    return PurePosixPath(*name.parts[2:]) if name.parts[1:2] and name.parts[1] in _LIBRARIES else None


def sweep(place: HostPlace, age: float = 0.0) -> None:
    """Removes what a killed installation has left and nobody has changed for `age` seconds.

    We have the lock, but a file system may have none.
    """
    for path in place.releases.glob(f"{DRAFT}*"):
        try:
            recent = time.time() - path.stat().st_mtime < age
        except OSError:
            continue
        if not recent:
            shutil.rmtree(path, ignore_errors=True)


def _millions(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
