"""Wheels that are made here of what is installed here: of cexec itself, and of the packages that it needs.

Contract: `wheel_of_cexec(directory)` packs the package that runs now; equal sources make equal bytes.  `repacked(name,
directory)` packs an installed package with all its files, if it came from a wheel; None if it cannot be done, for
example of a package of the distribution.  So a host like this machine needs neither an index nor pip.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.utils import canonicalize_name

import cexec
from cexec.errors import LocalError

PROJECT = "cexec-cluster"
EPOCH = (1980, 1, 1, 0, 0, 0)  # the first date that a zip archive knows
_BUILT_HERE = "linux_"  # the tag of what a compiler of this machine has made: other machines may have an older libc


def wheel_of_cexec(directory: Path) -> Path:
    """Returns the wheel of the package that runs now, without commands: a release has its own."""
    package = Path(cexec.__file__).parent
    name = f"{canonicalize_name(PROJECT).replace('-', '_')}-{cexec.__version__}"
    files = [path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    members = [(f"cexec/{path.relative_to(package).as_posix()}", path.read_bytes()) for path in files]
    metadata = f"Metadata-Version: 2.1\nName: {PROJECT}\nVersion: {cexec.__version__}\n"
    members.append((f"{name}.dist-info/METADATA", metadata.encode()))
    members.append((f"{name}.dist-info/WHEEL", b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"))
    target = directory / f"{name}-py3-none-any.whl"
    _write(target, members)
    return target


def requirements_of_cexec() -> list[str]:
    """Returns the requirements of the installed package, as its metadata has them (PEP 508)."""
    try:
        return list(distribution(PROJECT).requires or [])
    except PackageNotFoundError:
        raise LocalError(f"{PROJECT} is not installed here as a package, so what it needs is not known") from None


def repacked(name: str, directory: Path) -> Path | None:
    """Returns the wheel of an installed package."""
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return None
    tags = _tags(found)
    files = [file for file in found.files or [] if ".." not in file.parts and "__pycache__" not in file.parts]
    if not tags or not files or any(file.suffix == ".pth" for file in files):
        return None
    try:
        members = [(file.as_posix(), Path(str(file.locate())).read_bytes()) for file in files]
    except OSError:
        return None  # a file of it is missing
    plain = canonicalize_name(found.metadata["Name"]).replace("-", "_")
    target = directory / f"{plain}-{found.version}-{tags}.whl"
    _write(target, members)
    return target


def _tags(found: Distribution) -> str:
    """Returns the compressed set of tags (PEP 425) of the wheel that it came from; empty if it came otherwise."""
    words = [
        line.partition(":")[2].strip() for line in (found.read_text("WHEEL") or "").splitlines() if line[:4] == "Tag:"
    ]
    parts = [word.split("-") for word in words]
    if any(len(part) != 3 or part[2].startswith(_BUILT_HERE) for part in parts):
        return ""
    return "-".join(".".join(dict.fromkeys(column)) for column in zip(*parts, strict=True))


def _write(target: Path, members: Iterable[tuple[str, bytes]]) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(members):
            archive.writestr(zipfile.ZipInfo(name, EPOCH), data, zipfile.ZIP_DEFLATED)
