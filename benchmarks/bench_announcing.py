"""Measures what `cexec` does until its first announcement: modules that are loaded, and CPU time (a part of goal P3).

    make bench BENCH=benchmarks/bench_announcing.py BENCH_OTHER=/path/of/another/checkout

CPU time says more than seconds on a machine that does other work, too.  The client is stopped as soon as its
announcement is heard, and the kernel is asked what it has used.  Clients of another checkout, whose virtual environment
`make .venv/made` has made there, are started in turns with ours; without BENCH_OTHER there are only ours.
Environment: BENCH_ROUNDS (60); BENCH_OTHER.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.common import LOOPBACK_GROUP, ROOT, cpu_seconds, environment, rounds, table

ROUNDS = 60
PORT = 3012
PATIENCE = 20.0  # seconds until a client must have announced its job


@dataclass(frozen=True, slots=True)
class Start:
    """One client until its announcement: seconds of CPU time, and the modules that it had loaded."""

    cpu: float
    modules: int
    own_modules: int


class Version:
    """The client of one checkout, with a key that its own `ckeygen` has made."""

    def __init__(self, checkout: Path, directory: Path) -> None:
        self._commands = checkout / ".venv" / "bin"
        self._directory = directory
        self._key = directory / "app"
        self._variables = {**environment(), "CEXEC_UDP_PORT": str(PORT)}
        directory.mkdir()
        argv = [self._commands / "ckeygen", self._key]
        subprocess.run(argv, env=self._variables, check=True, capture_output=True)

    def start(self, group: socket.socket, *, count_modules: bool = False) -> Start:
        """Starts a client, and ends it when its announcement has come."""
        log = self._directory / "stderr"
        changes = {"PYTHONPROFILEIMPORTTIME": "1"} if count_modules else {}
        with log.open("wb") as file:
            process = subprocess.Popen(
                [self._commands / "cexec", f"{self._key}.pub"],
                env={**self._variables, **changes},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=file,
            )
        try:
            group.recv(2048)
            os.kill(process.pid, signal.SIGSTOP)
            used = cpu_seconds(process.pid)
        finally:
            process.kill()
            process.wait()
        while select.select([group], [], [], 0)[0]:  # it may have announced its job twice
            group.recv(2048)
        names = [line.rpartition("|")[2].strip() for line in log.read_text().splitlines() if line.startswith("import ")]
        return Start(used, len(names), sum(name.split(".")[0] == "cexec" for name in names))


def main() -> None:
    checkouts = {"this checkout": ROOT}
    if os.environ.get("BENCH_OTHER"):
        checkouts["the other one"] = Path(os.environ["BENCH_OTHER"])
    with tempfile.TemporaryDirectory(prefix="cexec-bench-") as name, hear() as group:
        versions = {label: Version(one, Path(name) / label.split()[1]) for label, one in checkouts.items()}
        loaded = {label: version.start(group, count_modules=True) for label, version in versions.items()}
        used: dict[str, list[float]] = {label: [] for label in versions}
        for _ in range(rounds(ROUNDS)):
            for label, version in versions.items():
                used[label].append(version.start(group).cpu)
    rows = {
        label: f"{statistics.median(used[label]) * 1000:6.2f} ms of CPU time (least {min(used[label]) * 1000:.2f}), "
        f"{loaded[label].modules} modules, {loaded[label].own_modules} of this project"
        for label in versions
    }
    table(f"cexec from its start to its announcement, medians of {rounds(ROUNDS)} rounds", rows)


def hear() -> socket.socket:
    """Returns a socket that hears the group."""
    group = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    group.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    group.bind((LOOPBACK_GROUP, PORT))
    group.settimeout(PATIENCE)
    return group


if __name__ == "__main__":
    main()
