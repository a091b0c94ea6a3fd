"""The load and the speed of this host, which a worker's bids depend on.  docs/placement.md.

Contract: `Sampler.sample` returns a `Load` of the time since the last call, to be made about once a second, and costs
some 100 microseconds; `measure_speed` returns the speed of one core, 1.0 for a fixed reference; `usable_cpus`
says how many CPUs this process may use, a float because a quota need not be whole.  Nothing here raises: what this
system does not tell counts as idle.
"""

from __future__ import annotations

import math
import os
import sys
import time
from pathlib import Path

from cexec.protocol.base.host_load import Load
from cexec.system.storage.directories import cache_directory

RUN_QUEUE_GAIN = 0.5  # (ours) share of the newest sample in the smoothed run queue, which is counted at an instant
SCARCE_MEMORY = 0.10  # (ours) share of the memory; when less is available, pressure grows from 0 to 1
REFERENCE_ROUND = 0.0016  # seconds (ours) for one round of `_exercise`: about one CPU of a 2.5 GHz Xeon of 2020
EXERCISE_TIME = 0.25  # seconds (ours) that the benchmark takes
SLOWEST, FASTEST = 0.01, 100.0  # (ours) speeds that a cache file may claim
SPEED_FILE = "speed-1"  # to be renamed when the benchmark or its reference changes
PROC = "/proc"
CGROUPS = "/sys/fs/cgroup"
_LONGEST_NUMBER = 20  # digits (ours) of a number of the kernel: 64 bits


def _read(path: str) -> str:
    """Returns the text of a small file of the kernel; empty if it cannot be read."""
    try:
        with open(path, "rb", buffering=0) as file:  # a third of the time that a text file takes
            return file.readall().decode(errors="replace")
    except (OSError, ValueError):  # no such name can be
        return ""


def number_in(text: str) -> int | None:
    """Returns the number that a file of the kernel says; None for anything else, such as `max`."""
    plain = text.strip()
    return int(plain) if plain.isascii() and plain.isdigit() and len(plain) <= _LONGEST_NUMBER else None


class CpuQuota:
    """CPU time that a control group allows: so many CPUs, and where its use is counted, in microseconds."""

    __slots__ = ("cpus", "usage_file")

    def __init__(self, cpus: float, usage_file: str) -> None:
        self.cpus = cpus
        self.usage_file = usage_file

    def usage(self) -> float | None:
        """Seconds of CPU time used so far; None when not counted."""
        for line in _read(self.usage_file).splitlines():
            name, _, value = line.partition(" ")
            used = number_in(value) if name == "usage_usec" else None
            if used is not None:
                return used / 1e6
        return None


def find_quota(proc: str = PROC, cgroups: str = CGROUPS) -> CpuQuota | None:
    """The tightest quota of this process's control group and of those above it."""
    found: CpuQuota | None = None
    for line in _read(f"{proc}/self/cgroup").splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        parts = [part for part in path.split("/") if part and part != ".."]
        root = f"{cgroups}/cpu" if controllers else cgroups
        for depth in range(len(parts), -1, -1):
            directory = "/".join([root, *parts[:depth]])
            if controllers:  # version 1
                limit, period = _read(f"{directory}/cpu.cfs_quota_us"), _read(f"{directory}/cpu.cfs_period_us")
            else:
                limit, _, period = _read(f"{directory}/cpu.max").partition(" ")
            allowed, each = number_in(limit), number_in(period)
            if allowed is not None and each:
                cpus = allowed / each
                if cpus and (found is None or cpus < found.cpus):
                    found = CpuQuota(cpus, f"{directory}/cpu.stat")
    return found


def usable_cpus(proc: str = PROC, cgroups: str = CGROUPS) -> float:
    """CPUs that this process may use: its affinity and its control groups' quota."""
    count = float(len(_affinity()))
    quota = find_quota(proc, cgroups)
    return count if quota is None else min(count, quota.cpus)


def _affinity() -> set[int]:
    """Numbers of the CPUs that this process may run on."""
    try:
        return os.sched_getaffinity(0)
    except (AttributeError, OSError):
        return set(range(os.cpu_count() or 1))


class Sampler:
    """Use of this host since the last sample."""

    __slots__ = (
        "_busy", "_cpus", "_last", "_lines", "_pressure",
        "_proc", "_quotas", "_run_queue", "_stalled", "_total", "_usages",
    )  # fmt: skip

    def __init__(self, proc: str = PROC, cgroups: str = CGROUPS) -> None:
        self._proc = proc
        self._cpus = os.cpu_count() or 1
        own = _affinity()
        self._lines = {"cpu"} if len(own) == self._cpus else {f"cpu{number}" for number in own}  # of /proc/stat
        quota = find_quota(proc, cgroups)
        self._quotas = [] if quota is None else [quota]
        if not os.path.exists(f"{proc}/stat"):  # it has processes only: the control group above all counts the whole
            self._quotas.append(CpuQuota(self._cpus, f"{cgroups}/cpu.stat"))
        self._pressure = f"{cgroups}/memory.pressure"
        self._usages = [0.0 for _ in self._quotas]
        self._busy = self._total = 0.0
        self._stalled = 0.0
        self._run_queue = 0.0
        self._last = -math.inf

    def sample(self, now: float) -> Load:
        """`now`: seconds of a monotonic clock.  The first sample has no use of CPUs, for want of an interval."""
        elapsed = now - self._last
        self._last = now
        if sys.platform != "linux":
            return self._sample_elsewhere(elapsed)
        return Load(self._cpu(elapsed), self._runnable(), self._memory_pressure(elapsed))

    def _cpu(self, elapsed: float) -> float:
        """Use of the CPUs that this process may use, or of its quota if that is used more."""
        busy = total = 0.0
        for line in _read(f"{self._proc}/stat").splitlines():
            name, *fields = line.split()[:9] or [""]
            if not name.startswith("cpu"):
                break
            if name in self._lines:
                ticks = [number_in(field) or 0 for field in fields]
                total += sum(ticks)
                busy += sum(ticks) - sum(ticks[3:5])  # less idle and waiting for a disk
        use = (busy - self._busy) / (total - self._total) if self._total and total > self._total else 0.0
        self._busy, self._total = busy, total
        for number, quota in enumerate(self._quotas):
            usage = quota.usage()
            if usage is not None:
                if 0 < elapsed < math.inf:
                    use = max(use, (usage - self._usages[number]) / elapsed / quota.cpus)
                self._usages[number] = usage
        return max(0.0, min(use, 1.0))

    def _runnable(self) -> float:
        """Tasks that run or want to, per CPU, without the one that is counting."""
        running = (_read(f"{self._proc}/loadavg").split() + [""] * 4)[3].partition("/")[0]
        others = max(0, (number_in(running) or 0) - 1)
        self._run_queue += RUN_QUEUE_GAIN * (others / self._cpus - self._run_queue)
        return self._run_queue

    def _memory_pressure(self, elapsed: float) -> float:
        """The share of time in which some task waited for memory, or how scarce memory is."""
        sizes = {}
        for line in _read(f"{self._proc}/meminfo").splitlines()[:8]:
            name, _, value = line.partition(":")
            size = number_in(value.strip().partition(" ")[0])
            if size is not None:
                sizes[name] = size
        scarcity = 0.0
        if sizes.get("MemTotal") and "MemAvailable" in sizes:
            scarcity = 1.0 - sizes["MemAvailable"] / sizes["MemTotal"] / SCARCE_MEMORY
        waited = 0.0
        text = _read(f"{self._proc}/pressure/memory") or _read(self._pressure)
        text = _read(f"{self._proc}/pressure/memory") or _read(self._pressure)
        total = number_in(text.partition("\n")[0].rpartition("total=")[2])
        if total is not None:
            stalled = total / 1e6
            if 0 < elapsed < math.inf:
                waited = (stalled - self._stalled) / elapsed
            self._stalled = stalled
        return max(0.0, min(max(scarcity, waited), 1.0))

    def _sample_elsewhere(self, elapsed: float) -> Load:
        """Other systems."""
        import psutil

        use = psutil.cpu_percent(None) / 100.0
        memory = psutil.virtual_memory()
        scarcity = 1.0 - memory.available / memory.total / SCARCE_MEMORY
        return Load(use if elapsed < math.inf else 0.0, 0.0, max(0.0, min(scarcity, 1.0)))


def _exercise(text: bytes) -> None:
    """Some of what programs do: compressing, and interpreted code with a dictionary."""
    import zlib

    zlib.compress(text, 6)
    counts: dict[int, int] = {}
    for number in range(2500):
        counts[number & 1023] = counts.get(number * 7 & 1023, 0) + number


def benchmark() -> float:
    """Speed of one core now: its best round in EXERCISE_TIME, so that other programs disturb little."""
    import hashlib

    text = b" ".join(b"%d" % (byte * byte) for byte in hashlib.shake_128(b"cexec speed").digest(4000))
    best = math.inf
    end = time.perf_counter() + EXERCISE_TIME
    while (start := time.perf_counter()) < end:
        _exercise(text)
        best = min(best, time.perf_counter() - start)
    return REFERENCE_ROUND / best


def cpu_identity(proc: str = PROC) -> str:
    """Returns the CPU model, cores and boot that a measured speed is valid for."""
    model = ""
    for line in _read(f"{proc}/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "CPU part", "cpu model", "Hardware"):
            model = value.strip()
            break
    boot = _read(f"{proc}/sys/kernel/random/boot_id").strip()
    if not boot:
        boot = _boot_time()
    machine = os.uname().machine
    return f"{machine} {model or 'unknown'} {os.cpu_count() or 1} {boot}"


def _boot_time() -> str:
    """Names the time of the boot, to ten minutes: it is computed from two clocks, one of which may be set."""
    try:
        return str(round((time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)) / 600))
    except (AttributeError, OSError):
        import psutil

        return str(round(psutil.boot_time()))


def cache_directories() -> list[Path]:
    """Returns the directories where the measured speed may be kept, best first."""
    own = cache_directory()
    return [*([] if own is None else [Path(own)]), Path("/var/cache/cexec")]


def measure_speed(directories: list[Path] | None = None) -> float:
    """The speed of one core, from the cache or by a benchmark whose result is kept if a directory can be written."""
    identity = cpu_identity()
    directories = cache_directories() if directories is None else directories
    for directory in directories:
        speed = _cached_speed(_read(f"{directory}/{SPEED_FILE}"), identity)
        if speed is not None:
            return speed
    speed = round(benchmark(), 3)
    for directory in directories:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            # Made anew under a name that nobody knows: his group may write to a user's directories, and plant a link.
            temporary = directory / f"{SPEED_FILE}.{os.urandom(8).hex()}"
            with open(temporary, "x", encoding="utf-8") as file:
                file.write(f"{speed} {identity}\n")
            temporary.replace(directory / SPEED_FILE)
        except OSError:
            continue
        break
    return speed


def _cached_speed(text: str, identity: str) -> float | None:
    speed, _, measured_on = text.strip().partition(" ")
    try:
        value = float(speed)
    except ValueError:
        return None
    return value if measured_on == identity and SLOWEST <= value <= FASTEST else None
