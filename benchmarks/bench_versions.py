"""Compares two versions of cexec in one interleaved run: start-up (P3), throughput (P1) and the rate of `cmap` (P4).

    make bench BENCH=benchmarks/bench_versions.py BENCH_OTHER=/path/of/another/checkout

Each round runs every case with both versions, so that a machine that changes its speed affects both.  The other
checkout needs a virtual environment of its own: `make .venv/made` there.  With BENCH_WHEELS a wheel of each checkout is
installed as a user does; only there are the modules of a start in one file.
Environment: BENCH_OTHER (the older checkout); BENCH_WHEELS; BENCH_ROUNDS (15); BENCH_MEGABYTES (512); BENCH_TASKS
(600).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.common import ROOT, Case, environment, install, interleaved, rounds, table, timed

ROUNDS, MEGABYTES, TASKS = 15, 512, 600
NAMES = ("start to exit of true", "one way into cat", "cmap, /bin/true", "cmap, its own CPU", "start to exit, own CPU")


class Version:
    """One checkout with its workers: one that ends at once, one that reads, one with two slots."""

    def __init__(self, checkout: Path, directory: Path, port: int) -> None:
        self._bin = checkout / ".venv" / "bin"
        if os.environ.get("BENCH_WHEELS"):
            (directory / str(port)).mkdir()
            self._bin = install(directory / str(port), checkout) / "bin"
        state = directory / f"state{port}"  # of its own, because versions differ in what they leave there
        state.mkdir(mode=0o700)
        self._variables = {
            **environment(),
            "XDG_RUNTIME_DIR": os.fspath(state),
            "PATH": f"{self._bin}:{os.environ['PATH']}",
        }
        self._key = directory / f"app{port}"
        subprocess.run([self._bin / "ckeygen", self._key], env=self._variables, check=True, capture_output=True)
        self._processes = []
        programs = {port: ("2", "true"), port + 1: ("2", "sh", "-c", "cat > /dev/null")}
        for number, (slots, *program) in programs.items():
            log = directory / f"log{number}"  # a pipe that nobody reads would fill, and stop the worker
            with log.open("wb") as file:
                process = subprocess.Popen(
                    [self._bin / "cservice", "-j", slots, "--speed", "1", self._key, *program],
                    env={**self._variables, "CEXEC_UDP_PORT": str(number)},
                    stdin=subprocess.DEVNULL,
                    stderr=file,
                )
            self._processes.append(process)
            while "serving" not in log.read_text():
                if process.poll() is not None:
                    sys.exit(f"cservice of {checkout} has ended: {log.read_text().strip()}")
                time.sleep(0.02)
        self._port = port

    def _run(self, port: int, *words: str, stdin: Path | None = None) -> tuple[list[str], dict[str, str]]:
        command = [str(self._bin / words[0]), f"{self._key}.pub", *words[1:]]
        if stdin is not None:
            command = ["sh", "-c", 'exec "$@" < "$0"', str(stdin), *command]
        return command, {**self._variables, "CEXEC_UDP_PORT": str(port)}

    def cases(self, label: str, data: Path) -> dict[str, Case]:
        numbers = [str(number) for number in range(int(os.environ.get("BENCH_TASKS", TASKS)))]
        start = self._run(self._port, "cexec", "-n")
        sink = self._run(self._port + 1, "cexec", stdin=data)
        batch = self._run(self._port, "cmap", ":::", *numbers)
        seconds = {NAMES[0]: start, NAMES[1]: sink, NAMES[2]: batch}
        found: dict[str, Case] = {
            f"{label}: {name}": lambda run=run: timed(*run).seconds  # type: ignore[misc]
            for name, run in seconds.items()
        }
        found[f"{label}: {NAMES[3]}"] = lambda: timed(*batch).cpu
        plain = self._run(self._port, "cexec")
        found[f"{label}: {NAMES[4]}"] = lambda: timed(*plain).cpu
        return found

    def close(self) -> None:
        for process in self._processes:
            process.terminate()
            process.wait()


def main() -> None:
    other = os.environ.get("BENCH_OTHER", "")
    if not other:
        sys.exit("BENCH_OTHER is not set: it names the checkout of another version")
    with tempfile.TemporaryDirectory(prefix="cexec-bench-") as name:
        directory = Path(name)
        data = directory / "data"
        with data.open("wb") as file:
            file.truncate(int(os.environ.get("BENCH_MEGABYTES", MEGABYTES)) << 20)
        versions = {"other": Version(Path(other), directory, 3100), "this": Version(ROOT, directory, 3200)}
        try:
            cases = {k: v for label, version in versions.items() for k, v in version.cases(label, data).items()}
            ordered = {f"{label}: {name}": cases[f"{label}: {name}"] for name in NAMES for label in versions}
            medians = interleaved(ordered, rounds(ROUNDS))
        finally:
            for version in versions.values():
                version.close()
    rows = {
        name: f"{medians[f'other: {name}'] * 1000:8.1f} ms -> {medians[f'this: {name}'] * 1000:8.1f} ms, "
        f"{medians[f'this: {name}'] / medians[f'other: {name}']:.2f} times"
        for name in NAMES
    }
    table(f"the other version and this one, medians of {rounds(ROUNDS)} rounds", rows)


if __name__ == "__main__":
    main()
