"""For which wheels a host is the right one: Python version, libc and machine as tags (PEP 425, 600, 656).

Contract: `WheelTarget.of(facts)` has `tags`, best first, the environment for markers of requirements (PEP 508), and the
words of pip that stand for the same.  Two hosts with equal targets need the same wheels.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from packaging import tags as tagging
from packaging.tags import Tag

from cexec.boot.dummy_command import HostFacts

_OLDEST_MANYLINUX = {"x86_64": 5, "i686": 5}  # glibc 2.N (PEP 600) of the oldest tag; of other machines 17
_LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}  # names of before PEP 600
_NEWER_MACHINES = 17
# A Python of 32 bits under a kernel of 64: the kernel's name, and that of the wheels.
_HALVES = {"x86_64": "i686", "aarch64": "armv7l"}


@dataclass(frozen=True, slots=True)
class WheelTarget:
    """`platforms`: the names of platforms in wheels, best first; `libc` and `machine` are for people."""

    python: tuple[int, int]
    abi: str
    platforms: tuple[str, ...]
    system: str
    machine: str
    libc: str

    @classmethod
    def of(cls, facts: HostFacts) -> WheelTarget:
        major, minor, _ = facts.version
        machine = _HALVES.get(facts.machine, facts.machine) if facts.bits == 32 else facts.machine
        abi = f"cp{major}{minor}{'t' if facts.free_threaded else ''}"
        platforms = tuple(_platforms(facts, machine))
        return cls((major, minor), abi, platforms, facts.system, machine, " ".join(facts.libc).strip())

    @property
    def words(self) -> str:
        """Returns it for people: `Python 3.11 on armv7l (glibc 2.36)`."""
        libc = f" ({self.libc})" if self.libc else ""
        return f"Python {self.python[0]}.{self.python[1]} on {self.machine}{libc}"

    @property
    def tags(self) -> list[Tag]:
        return [
            *tagging.cpython_tags(self.python, [self.abi], self.platforms),
            *tagging.compatible_tags(self.python, f"cp{self.python[0]}{self.python[1]}", self.platforms),
        ]

    @property
    def environment(self) -> dict[str, str]:
        """Returns what markers can ask for."""
        version = f"{self.python[0]}.{self.python[1]}"
        linux = self.system.startswith("linux")
        return {
            "implementation_name": "cpython",
            "implementation_version": f"{version}.0",
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux" if linux else "Darwin" if self.system == "darwin" else self.system,
            "platform_version": "",
            "python_full_version": f"{version}.0",
            "python_version": version,
            "sys_platform": "linux" if linux else self.system,
            "extra": "",
        }

    @property
    def pip_words(self) -> list[str]:
        """Returns the options of `pip download` for this target."""
        words = ["--implementation", "cp", "--python-version", f"{self.python[0]}.{self.python[1]}", "--abi", self.abi]
        return [*words, *(word for platform in self.platforms for word in ("--platform", platform))]


def _platforms(facts: HostFacts, machine: str) -> list[str]:
    if facts.system == "darwin":
        major, minor = (int(part) for part in (*facts.mac.split("."), "0")[:2])
        return list(tagging.mac_platforms((major, minor), machine))
    if not facts.system.startswith("linux"):
        return [re.sub(r"[^A-Za-z0-9]", "_", facts.platform)]
    name, version = facts.libc
    numbers = [int(part) for part in re.findall(r"\d+", version)[:2]]
    if len(numbers) < 2:
        return [f"linux_{machine}"]
    found = []
    if name == "musl":
        found = [f"musllinux_{numbers[0]}_{minor}_{machine}" for minor in range(numbers[1], -1, -1)]
    elif name == "glibc":
        for minor in range(numbers[1], _OLDEST_MANYLINUX.get(machine, _NEWER_MACHINES) - 1, -1):
            found.append(f"manylinux_{numbers[0]}_{minor}_{machine}")
            if minor in _LEGACY:
                found.append(f"{_LEGACY[minor]}_{machine}")
    return [*found, f"linux_{machine}"]
