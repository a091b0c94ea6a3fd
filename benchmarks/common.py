"""Shared parts of the benchmarks: a workplace with keys and workers, timed runs, medians, goals, loud skips.

Contract: a `Workplace` is a context in which processes are started; each is ended by its pid when the context is left.
`timed` runs one command to its end.  `interleaved` runs every case once a round, so that a machine that slows down
affects all cases, and returns medians.  `goal` prints one line that says "goal met" or "goal not met"; nothing here
fails because a machine is slow.  `skipped` prints a line that says which comparison was impossible, and why.

Everything stays on the loopback; `make bench` gives the benchmarks a network of their own.
Environment: BENCH_ROUNDS and the variables that each benchmark describes.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import random
import re
import select
import shutil
import signal
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import install_launchers

ROOT = Path(__file__).resolve().parent.parent
LOOPBACK_GROUP = "127.255.255.255"  # a broadcast that never leaves the machine
OURS = ("GROUP", "BOOST", "CONCURRENCY", "MAXFD")  # variables that cexec reads besides CEXEC_*
DEPENDENCIES = ("PyNaCl", "zeroconf", "psutil", "click", "rich", "Jinja2", "packaging")  # as in pyproject.toml
COMMANDS = sorted(path.name for path in (ROOT / "bin").iterdir())
AS_PIP_LEAVES_IT = "cexec-by-pip"  # a copy of the command `cexec` before `make install` would have rewritten it
PATIENCE = 300.0  # seconds that one run may take
START_PATIENCE = 20.0  # seconds until a server answers


class Unfit(Exception):
    """A case that cannot be run here; the text says why."""


class Run:
    """One run of a command: seconds from its start to its end, its own CPU seconds, and the bytes that it wrote."""

    def __init__(self, seconds: float, cpu: float, written: int) -> None:
        self.seconds = seconds
        self.cpu = cpu
        self.written = written


def environment(changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """Returns our environment without settings of cexec and Python, with a loopback group and `changes`."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CEXEC_", "PYTHON")) and name not in OURS
    }
    return {**kept, "CEXEC_GROUP": LOOPBACK_GROUP, **(changes or {})}


def rounds(default: int) -> int:
    return int(os.environ.get("BENCH_ROUNDS", default))


class Workplace:
    """A temporary directory with an application's keys, and the processes that are started in it."""

    def __init__(self, *, installed: bool = False) -> None:
        """Uses the commands of this source tree, or, if `installed`, those that `make install` would install."""
        self.directory = Path(tempfile.mkdtemp(prefix="cexec-bench-"))
        self.environment = environment(None if installed else {"PYTHONPATH": os.fspath(ROOT)})
        self.python = Path(sys.executable)
        self.secret, self.public = self.directory / "app", self.directory / "app.pub"
        self._installed = installed
        self._commands = [sys.executable, os.fspath(ROOT / "bin")]
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Workplace:
        try:
            if self._installed:
                self.python = install(self.directory) / "bin" / "python"
                self._commands = [os.fspath(self.python.parent)]
                shutil.copy(self.python.parent / "cexec", self.python.parent / AS_PIP_LEAVES_IT)
                install_launchers.rewrite(os.fspath(self.python.parent.parent), COMMANDS)
            argv = self.command("ckeygen", self.secret, self.public)
            subprocess.run(argv, env=self.environment, check=True, capture_output=True)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            if process.poll() is None:
                process.terminate()
        for process in self._processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def command(self, name: str, *arguments: str | Path) -> list[str]:
        """Returns the argv of one of our commands, to be run without a shell."""
        return [*self._commands[:-1], f"{self._commands[-1]}/{name}", *map(str, arguments)]

    def start(self, argv: Sequence[str], changes: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Starts a process that is ended when the workplace is left; its output goes to a file."""
        log = self.directory / f"log-{len(self._processes)}"
        with log.open("wb") as file:
            process = subprocess.Popen(
                argv,
                env={**self.environment, **(changes or {})},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def said(self, process: subprocess.Popen[bytes]) -> str:
        """Returns the output of a process so far."""
        return (self.directory / f"log-{self._processes.index(process)}").read_text(errors="replace")

    def service(self, *program: str, port: int = 3010, options: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """Starts a `cservice` for this program on a UDP port of its own, and waits until it is ready for jobs."""
        argv = self.command("cservice", "-j", "64", "--speed", "1", *options, self.secret, *program)
        process = self.start(argv, {"CEXEC_UDP_PORT": str(port)})
        self.wait_for(process, "cservice: serving")
        return process

    def wait_for(self, process: subprocess.Popen[bytes], text: str) -> None:
        """Waits until a process has written something."""
        deadline = time.monotonic() + START_PATIENCE
        while text not in self.said(process):
            if process.poll() is not None or time.monotonic() > deadline:
                raise Unfit(f"{process.args!r} did not start: {self.said(process).strip()[-300:]}")
            time.sleep(0.02)

    def client(self, port: int = 3010) -> tuple[list[str], dict[str, str]]:
        """Returns argv and environment of a client of the service on this port."""
        return self.command("cexec", self.public), {**self.environment, "CEXEC_UDP_PORT": str(port)}


def install(directory: Path, root: Path = ROOT) -> Path:
    """Builds a wheel of the tree in `root` and installs it as pip does, compiled.  Returns the virtual environment.

    Dependencies are copied from our own Python, because there is no network here.
    """
    source, wheels, venv = directory / "source", directory / "wheels", directory / "venv"
    source.mkdir()
    for name in ("cexec", "bin", "man"):
        shutil.copytree(root / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "bundle_start.py", "README.md", "LICENSE"):
        if (root / name).exists():  # 0.1.0 has no bundle
            shutil.copy(root / name, source)
    pip, offline = [sys.executable, "-m", "pip", "--quiet"], ["--no-deps", "--no-index"]
    steps = [
        [*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", os.fspath(wheels), os.fspath(source)],
        [sys.executable, "-m", "venv", "--without-pip", os.fspath(venv)],
    ]
    # not in this directory, where pip would find the package installed already
    options: dict[str, Any] = {"env": environment(), "cwd": directory, "check": True}
    for step in steps:
        subprocess.run(step, **options)
    (wheel,) = map(os.fspath, wheels.iterdir())
    subprocess.run([*pip, "--python", f"{venv}/bin/python", "install", *offline, wheel], **options)
    (packages,) = venv.glob("lib/python*/site-packages")
    for file in _dependencies():
        target = packages / file.resolve().relative_to(Path(sysconfig.get_path("platlib")).resolve())
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    subprocess.run([f"{venv}/bin/python", "-m", "compileall", "-q", os.fspath(packages)], check=True)
    return venv


def _dependencies() -> list[Path]:
    """Returns the files of the package's dependencies, and of their dependencies."""
    wanted, seen, files = list(DEPENDENCIES), set(), []
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # for another Python than ours
        paths = [Path(str(file.locate())) for file in distribution.files or []]
        files += [path for path in paths if path.is_file() and "site-packages/" in os.fspath(path.resolve())]
        required = [text for text in distribution.requires or [] if "extra ==" not in text]
        wanted += [re.split(r"[^A-Za-z0-9._-]", text, maxsplit=1)[0] for text in required]
    return files


def timed(
    argv: Sequence[str], variables: Mapping[str, str], *, stdin: str = os.devnull, count_output: bool = False
) -> Run:
    """Runs a command to its end.  With `count_output` its output is a pipe whose reader only counts."""
    reading, writing = os.pipe()
    actions: list[tuple[object, ...]] = [(os.POSIX_SPAWN_OPEN, 0, stdin, os.O_RDONLY, 0)]
    if count_output:
        actions.append((os.POSIX_SPAWN_DUP2, writing, 1))
    else:
        actions.append((os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0))
    errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed below
    actions.append((os.POSIX_SPAWN_DUP2, errors.fileno(), 2))
    start = time.perf_counter()
    pid = os.posix_spawnp(argv[0], list(argv), dict(variables), file_actions=actions)
    os.close(writing)
    try:
        written = _count(reading) if count_output else 0
        usage, status = _wait(pid)
    finally:
        os.close(reading)
    seconds = time.perf_counter() - start
    with errors:
        errors.seek(0)
        told = errors.read().decode(errors="replace").strip()
    if status != 0:
        raise Unfit(f"{' '.join(argv[:2])}... ended with status {status}: {told[-300:]}")
    return Run(seconds, usage, written)


def _wait(pid: int) -> tuple[float, int]:
    """Returns CPU seconds and exit status.  It does not poll, which would add up to 50 ms to a run that takes 20."""
    handle = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    if not poll.poll(PATIENCE * 1000):
        os.kill(pid, signal.SIGKILL)
    os.close(handle)
    _, status, usage = os.wait4(pid, 0)
    return usage.ru_utime + usage.ru_stime, os.waitstatus_to_exitcode(status)


def _count(reading: int) -> int:
    """Reads a pipe to its end without copying its content."""
    null = os.open(os.devnull, os.O_WRONLY)
    total = 0
    while size := os.splice(reading, null, 1 << 20):
        total += size
    os.close(null)
    return total


Case = Callable[[], float]


def interleaved(cases: Mapping[str, Case], times: int) -> dict[str, float]:
    """Runs every case once a round and returns the medians.  A case that cannot be run is reported and left out.

    Each round has an order of its own, because a case finds in the caches what the one before has left there.
    """
    measured: dict[str, list[float]] = {name: [] for name in cases}
    unfit: set[str] = set()
    order, shuffle = list(cases), random.Random(1).shuffle
    for _ in range(times):
        shuffle(order)
        for name in order:
            if name in unfit:
                continue
            try:
                measured[name].append(cases[name]())
            except Unfit as reason:
                skipped(name, str(reason))
                unfit.add(name)
    return {name: statistics.median(values) for name, values in measured.items() if name not in unfit}


def machine() -> str:
    """Describes the processor, for which alone a figure is worth something."""
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return f"{found[1] if found else platform.machine()}, {os.cpu_count()} CPUs"


def table(title: str, rows: Mapping[str, str]) -> None:
    """Prints the figures of a benchmark, and on which machine they were measured."""
    print(f"\n{title} ({machine()})", flush=True)
    for name, text in rows.items():
        print(f"  {name:<44} {text}", flush=True)


def goal(name: str, what: str, value: float, limit: float, *, unit: str = "", at_least: bool = False) -> bool:
    """Prints one line: the goal's name in performance.md, the measured value, and if that is enough."""
    met = value >= limit if at_least else value <= limit
    bound = "at least" if at_least else "at most"
    verdict = "goal met" if met else "goal not met"
    print(f"{name}: {what}: {value:.3g}{unit} ({bound} {limit:g}{unit}): {verdict}", flush=True)
    return met


def skipped(what: str, why: str) -> None:
    print(f"!!! SKIPPED: {what}: {why}", flush=True)


def needed(program: str) -> str:
    """Returns the path of a program to compare with."""
    found = shutil.which(program, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
    if found is None:
        raise Unfit(f"{program} is not installed (debian-packages.txt)")
    return found


def smaps(pid: int) -> tuple[int, int]:
    """Returns the resident and private bytes of a process (RSS and USS)."""
    values = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        values[name] = int(rest.split()[0]) * 1024
    return values["Rss"], values["Private_Clean"] + values["Private_Dirty"]


def job_processes(service: int) -> list[int]:
    """Returns the processes of a `cservice` that carry jobs, or wait for one: its supervisor has forked them."""
    return [job for supervisor in children(service) for job in children(supervisor)]


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def cpu_seconds(pid: int) -> float:
    """Returns the CPU time of a process of one thread so far, to the nanosecond."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
