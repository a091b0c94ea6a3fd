"""The dummy command: which Python a host has, and for which wheels.

Contract: `script(mark)` is for `sh`; its answers are lines that begin with the mark.  `parse(answers)` returns the
`HostFacts` of the first Python that fits, or raises `HostError` that names the version that is there.
The code for the host's Python runs on every version since 3.4, because an old one has to be told apart from none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from cexec.boot.failures import PYTHON, REMOTE, HostError, HostFailure
from cexec.boot.shapes import PYTHON as PYTHON_SHAPE
from cexec.boot.shapes import read_line, shaped

OLDEST = (3, 11)  # as requires-python in pyproject.toml
# In this order; the last ones are for systems whose own Python is older.
NAMES = ("python3", "python3.14", "python3.13", "python3.12", "python3.11")
NEEDED = ("ctypes", "hashlib", "json", "zipfile", "zlib")  # modules that Debian or a build may leave out

# Each wheel's tag counts down from these numbers, so a host that names large ones would cost us time and memory.
_LARGEST = 99  # (ours)
_VERSION = re.compile(r"[0-9]{1,2}\.[0-9]{1,2}(\.[0-9]{1,4}){0,2}")

_FACTS = """\
import json, os, platform, struct, sys, sysconfig
found = {"path": sys.executable, "version": list(sys.version_info[:3]), "implementation": sys.implementation.name}
missing = []
for name in "MODULES".split():
    try:
        __import__(name)
    except ImportError:
        missing.append(name)
libc = list(platform.libc_ver())
if not libc[0]:
    import glob, subprocess
    for loader in glob.glob("/lib/ld-musl-*.so.1"):
        words = subprocess.Popen([loader], stderr=subprocess.PIPE, stdout=subprocess.PIPE).communicate()[1].split()
        libc = ["musl", words[words.index(b"Version") + 1].decode() if b"Version" in words else "1.0"]
found.update(missing=missing, libc=libc, system=sys.platform, machine=platform.machine(), bits=struct.calcsize("P") * 8,
             threads=bool(sysconfig.get_config_var("Py_GIL_DISABLED")), platform=sysconfig.get_platform(),
             mac=platform.mac_ver()[0], host=platform.node())
print("\\n" + sys.argv[1], json.dumps(found))
sys.exit(0 if sys.version_info >= OLDEST and not missing and found["implementation"] == "cpython" else 3)
"""
CODE = _FACTS.replace("MODULES", " ".join(NEEDED)).replace("OLDEST", repr(OLDEST))
assert "'" not in CODE  # it stands between these

_SCRIPT = f"""\
for name in {" ".join(NAMES)}; do
    path=$(command -v "$name") || continue
    "$path" -c '{CODE}' "$mark" </dev/null && exit 0
done
echo
echo "$mark {{}}"
exit 0
"""


def script(mark: str) -> str:
    """Returns the script, whose answers bear this mark, a word without quotes."""
    return f"mark={mark}\n{_SCRIPT}"


@dataclass(frozen=True, slots=True)
class HostFacts:
    """A Python that can run cexec.  `libc`: name and version; `bits`: of its pointers; `mac`: version of macOS."""

    path: str
    version: tuple[int, int, int]
    system: str
    machine: str
    bits: int
    libc: tuple[str, str]
    free_threaded: bool
    platform: str
    mac: str
    host: str

    @property
    def short(self) -> str:
        return ".".join(map(str, self.version))


def parse(lines: list[str]) -> HostFacts:
    """Reads the answers without their marks, one for each Python that was found, and `{}` at the end."""
    try:
        found = [read_line(line) for line in lines]
        pythons = [shaped(one, PYTHON_SHAPE) for one in found if one != {}]
        for one in pythons:
            if _what_is_wrong(one) == "":
                return _facts(one)
    except ValueError:
        raise HostError(HostFailure(REMOTE, f"its Python answers what cannot be read: {lines[-1][:80]!r}")) from None
    oldest = ".".join(map(str, OLDEST))
    if not pythons:
        raise HostError(HostFailure(PYTHON, f"it has no python3; cexec needs {oldest} or later"))
    wrong = "; ".join(dict.fromkeys(map(_what_is_wrong, pythons)))
    raise HostError(HostFailure(PYTHON, f"{wrong}; cexec needs {oldest} or later"))


def _what_is_wrong(found: dict[str, Any]) -> str:
    version = ".".join(map(str, found["version"]))
    if tuple(found["version"]) < OLDEST:
        return f"its python3 is {version}"
    if found["implementation"] != "cpython":
        return f"its python3 is {found['implementation']} {version}, and the wheels are for CPython"
    if found["missing"]:
        return f"its Python {version} lacks the module {', '.join(found['missing'])} (Debian: apt install python3)"
    return ""


def _facts(found: dict[str, Any]) -> HostFacts:
    major, minor, micro = found["version"]
    libc, libc_version = found["libc"]
    if not all(0 <= number <= _LARGEST for number in found["version"]):
        raise ValueError(found["version"])
    for text in (libc_version, found["mac"]):
        if text and not _VERSION.fullmatch(text):
            raise ValueError(text)
    if found["system"] == "darwin" and not found["mac"]:
        raise ValueError("the version of macOS is missing")
    return HostFacts(
        path=found["path"],
        version=(int(major), int(minor), int(micro)),
        system=found["system"],
        machine=found["machine"],
        bits=found["bits"],
        libc=(libc, libc_version),
        free_threaded=found["threads"],
        platform=found["platform"],
        mac=found["mac"],
        host=found["host"],
    )
