"""Local modules as a zip file, from which Python imports at the workers.

Contract: `pack` finds each name as `import` would and returns the bytes of the file: packages with all their files but
compiled ones.  `UsageError` for a name that is not found, or that Python cannot import from a zip file because it is
compiled.  Equal files give equal bytes.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES
from importlib.util import find_spec
from pathlib import Path

from cexec.errors import UsageError

LEFT_OUT = {"__pycache__"}


def pack(names: Iterable[str]) -> bytes:
    """Returns nothing for no names."""
    found = dict(pair for name in names for pair in _files_of(name))
    if not found:
        return b""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in sorted(found.items()):
            archive.writestr(zipfile.ZipInfo(name), path.read_bytes(), zipfile.ZIP_DEFLATED)
    return file.getvalue()


def _files_of(name: str) -> Iterator[tuple[str, Path]]:
    """Yields the names in the zip file, and the files."""
    if "." in name:
        raise UsageError(f"modules={[name]!r}: give the package as a whole, {name.partition('.')[0]!r}")
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise UsageError(f"modules={[name]!r}: there is no such module here")
    if spec.submodule_search_locations is not None:
        for place in spec.submodule_search_locations:
            yield from _files_below(Path(place), name)
    elif spec.origin is not None and Path(spec.origin).suffix in SOURCE_SUFFIXES:
        yield f"{name}.py", Path(spec.origin)
    else:
        raise UsageError(f"modules={[name]!r}: it is compiled, so it has to be installed at the workers")


def _files_below(directory: Path, name: str) -> Iterator[tuple[str, Path]]:
    for path in sorted(directory.rglob("*")):
        if LEFT_OUT & set(path.parts) or not path.is_file():
            continue
        if any(path.name.endswith(suffix) for suffix in EXTENSION_SUFFIXES):
            raise UsageError(f"modules={[name]!r}: {path.name} is compiled, so it has to be installed at the workers")
        yield f"{name}/{path.relative_to(directory).as_posix()}", path
