"""The wheels that a host needs: which ones, and where this machine has them.

Contract: `Wheels.gather(target)` returns the paths of all wheels for a target, that of cexec first.  They come from
the directory of `--wheels`, from the cache on this machine, from what is installed here, and, unless `--wheels` was
given, from the package index by `pip download`; what is taken goes into the cache.  `HostError` names every wheel that
is not to be had, and what to do.  Requirements are followed through the metadata of the wheels themselves.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

import cexec
from cexec.boot.failures import WHEEL, HostError, HostFailure
from cexec.boot.index import download
from cexec.boot.own_wheels import repacked, requirements_of_cexec, wheel_of_cexec
from cexec.boot.target import WheelTarget
from cexec.errors import LocalError, UsageError
from cexec.system.reason import reason_of
from cexec.system.storage.directories import cache_directory

LAYOUT = b"1"  # of a release; another number makes other releases of the same wheels
ID_LENGTH = 12  # digits (ours)
BLOCK = 4096  # bytes that a file takes at least, mostly


@dataclass(frozen=True, slots=True)
class Wheel:
    """One file of a bundle."""

    name: str
    data: bytes
    sha256: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """Everything that one target needs.  `unpacked`: bytes that it takes there."""

    version: str
    release: str
    wheels: tuple[Wheel, ...]
    unpacked: int

    @classmethod
    def of(cls, paths: Iterable[Path]) -> Bundle:
        wheels, unpacked = [], 0
        for path in paths:
            data = path.read_bytes()
            wheels.append(Wheel(path.name, data, hashlib.sha256(data).hexdigest()))
            with zipfile.ZipFile(path) as archive:
                unpacked += sum(-(-member.file_size // BLOCK) * BLOCK for member in archive.infolist())
        together = LAYOUT + b"".join(sorted(bytes.fromhex(wheel.sha256) for wheel in wheels))
        name = f"{cexec.__version__}-{hashlib.sha256(together).hexdigest()[:ID_LENGTH]}"
        return cls(cexec.__version__, name, tuple(wheels), unpacked)

    @property
    def size(self) -> int:
        """Returns the bytes that travel."""
        return sum(len(wheel.data) for wheel in self.wheels)


class Wheels:
    """The sources of one run.  Not for several threads at once."""

    def __init__(self, scratch: Path, given: Path | None = None, cache: Path | None = None) -> None:
        """`scratch`: an empty directory that the caller removes; `given`: the directory of --wheels."""
        self._scratch = scratch
        self._given = given
        self._cache = cache or _cache(scratch)
        self._bundles: dict[tuple[WheelTarget, tuple[str, ...]], Bundle] = {}
        self._own: Path | None = None
        if given is not None and not any(given.glob("*.whl")):
            raise UsageError(f"--wheels {given}: there is no wheel (*.whl) in it")

    def gather(self, target: WheelTarget, packages: Iterable[str] = ()) -> Bundle:
        """Returns the bundle; `packages`: requirements (PEP 508) besides those of cexec."""
        key = (target, tuple(packages))
        if key not in self._bundles:
            if self._own is None:
                self._own = wheel_of_cexec(self._scratch)
            self._bundles[key] = Bundle.of([self._own, *self._closure(target, key[1])])
        return self._bundles[key]

    def _closure(self, target: WheelTarget, packages: tuple[str, ...]) -> list[Path]:
        """Returns the wheels of all requirements, and of theirs."""
        wanted = [Requirement(text) for text in (*packages, *requirements_of_cexec())]
        found: dict[str, Path] = {}
        while wanted := [one for one in wanted if _applies(one, target) and canonicalize_name(one.name) not in found]:
            missing = []
            for one in wanted:
                path = self._here(one, target)
                if path is None:
                    missing.append(one)
                else:
                    found[canonicalize_name(one.name)] = path
            found.update(self._fetched(missing, target))
            new = [found[canonicalize_name(one.name)] for one in wanted]
            wanted = [requirement for path in new for requirement in requirements_of(path)]
        return [found[name] for name in sorted(found)]

    def _here(self, wanted: Requirement, target: WheelTarget) -> Path | None:
        """Returns the wheel from this machine, which the cache has then."""
        for directory in (self._given, self._cache):
            path = None if directory is None else best(directory, wanted, target)
            if path is not None:
                return path if directory == self._cache else self._kept(path)
        made = repacked(wanted.name, self._scratch)
        if made is not None and best(self._scratch, wanted, target) == made:
            return self._kept(made)
        return None

    def _fetched(self, missing: list[Requirement], target: WheelTarget) -> dict[str, Path]:
        if not missing:
            return {}
        reason = "it is not in the directory of --wheels"
        if self._given is None:
            reason = download(missing, target, self._scratch)
        found: dict[str, Path] = {}
        absent = []
        for one in missing:
            path = best(self._scratch, one, target)
            if path is None:
                absent.append(str(one))
            else:
                found[canonicalize_name(one.name)] = self._kept(path)
        if absent:
            raise HostError(HostFailure(WHEEL, advice(absent, target, reason)))
        return found

    def _kept(self, path: Path) -> Path:
        """Copies a wheel into the cache; returns where it is then."""
        target = self._cache / path.name
        try:
            draft = self._cache / f".{path.name}.{os.urandom(6).hex()}"
            shutil.copyfile(path, draft)
            os.replace(draft, target)
        except OSError:
            return path  # the cache cannot be written: it is no more than a cache
        return target


def advice(absent: list[str], target: WheelTarget, reason: str) -> str:
    """Says which wheels are missing, and how to get them."""
    names = ", ".join(absent)
    words = " ".join(f"'{one}'" for one in absent)
    how = f"make it on such a machine with: python3 -m pip wheel {words}; then give its directory: --wheels DIR"
    return f"no wheel of {names} for {target.words}: {reason}; {how}"


def best(directory: Path, wanted: Requirement, target: WheelTarget) -> Path | None:
    """Returns the latest wheel that fits, of those with the same version the one whose tag is best."""
    order = {tag: number for number, tag in enumerate(target.tags)}
    found = []
    for path in directory.glob("*.whl"):
        try:
            name, version, build, tags = parse_wheel_filename(path.name)
        except InvalidWheelFilename:
            continue
        rank = min((order[tag] for tag in tags if tag in order), default=None)
        if rank is None or name != canonicalize_name(wanted.name) or version not in wanted.specifier:
            continue
        if zipfile.is_zipfile(path):
            found.append((version, -rank, build, path))
    return max(found)[-1] if found else None


def requirements_of(path: Path) -> list[Requirement]:
    """Returns what a wheel says that it needs."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA") and name.count("/") == 1]
        if not names:
            raise LocalError(f"{path} is damaged: it has no METADATA; remove it")
        text = archive.read(names[0]).decode("utf-8", "replace")
    return [Requirement(line) for line in HeaderParser().parsestr(text).get_all("Requires-Dist") or []]


def _applies(wanted: Requirement, target: WheelTarget) -> bool:
    return wanted.marker is None or wanted.marker.evaluate(target.environment)


def _cache(scratch: Path) -> Path:
    """Returns the cache on this machine; where there is none, wheels are fetched each time."""
    base = cache_directory()
    path = scratch / "cache" if base is None else Path(base) / "boot" / "wheels"
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LocalError(f"cannot make {path}: {reason_of(error)}") from None
    return path
