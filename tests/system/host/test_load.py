from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from cexec.system.host import load
from cexec.system.host.load import Sampler, cpu_identity, find_quota, measure_speed, usable_cpus


class FakeProc:
    """A /proc and a /sys/fs/cgroup whose files the test writes."""

    def __init__(self, root: Path) -> None:
        self.proc = root / "proc"
        self.cgroups = root / "cgroup"
        self.cpu(0, 0)
        self.write("loadavg", "9.00 9.00 9.00 1/200 4711\n")
        self.memory(available=50)

    def write(self, name: str, text: str) -> None:
        path = self.proc / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def cgroup(self, name: str, text: str) -> None:
        path = self.cgroups / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def cpu(self, busy: int, idle: int, waiting: int = 0) -> None:
        lines = [f"cpu  {busy} 0 0 {idle} {waiting} 0 0 0 0 0"]
        lines += [f"cpu{number} {busy} 0 0 {idle} {waiting} 0 0 0 0 0" for number in range(os.cpu_count() or 1)]
        self.write("stat", "\n".join([*lines, "intr 12345", "btime 1"]) + "\n")

    def memory(self, available: int) -> None:
        self.write("meminfo", f"MemTotal: 100 kB\nMemFree: 1 kB\nMemAvailable: {available} kB\n")

    def sampler(self) -> Sampler:
        return Sampler(str(self.proc), str(self.cgroups))


@pytest.fixture
def fake(tmp_path: Path) -> FakeProc:
    return FakeProc(tmp_path)


def test_cpu_use_is_that_since_the_last_sample(fake: FakeProc) -> None:
    sampler = fake.sampler()
    fake.cpu(1000, 1000)
    assert sampler.sample(0.0).cpu == 0.0
    fake.cpu(1030, 1070)
    assert sampler.sample(1.0).cpu == pytest.approx(0.3)
    fake.cpu(1030, 1170)
    assert sampler.sample(2.0).cpu == 0.0


def test_waiting_for_a_disk_is_not_use_of_a_cpu(fake: FakeProc) -> None:
    sampler = fake.sampler()
    fake.cpu(100, 100, 100)
    sampler.sample(0.0)
    fake.cpu(150, 100, 150)
    assert sampler.sample(1.0).cpu == pytest.approx(0.5)


def test_run_queue_is_per_core_without_the_sampler_itself_and_the_load_average_has_no_part(fake: FakeProc) -> None:
    sampler = fake.sampler()
    assert sampler.sample(0.0).run_queue == 0.0
    cores = os.cpu_count() or 1
    fake.write("loadavg", f"0.00 0.00 0.00 {1 + 2 * cores}/200 4711\n")
    figures = [sampler.sample(float(second)).run_queue for second in range(1, 8)]
    assert figures == sorted(figures)
    assert figures[-1] == pytest.approx(2.0, abs=0.05)


def test_scarce_memory_is_pressure(fake: FakeProc) -> None:
    sampler = fake.sampler()
    assert sampler.sample(0.0).memory_pressure == 0.0
    fake.memory(available=5)
    assert sampler.sample(1.0).memory_pressure == pytest.approx(0.5)
    fake.memory(available=0)
    assert sampler.sample(2.0).memory_pressure == 1.0


def test_waiting_for_memory_is_pressure(fake: FakeProc) -> None:
    sampler = fake.sampler()
    fake.write("pressure/memory", "some avg10=0.00 avg60=0.00 avg300=0.00 total=5000000\nfull avg10=0 total=1\n")
    assert sampler.sample(0.0).memory_pressure == 0.0
    fake.write("pressure/memory", "some avg10=0.00 avg60=0.00 avg300=0.00 total=5250000\nfull avg10=0 total=1\n")
    assert sampler.sample(1.0).memory_pressure == pytest.approx(0.25)


def test_use_of_a_control_groups_quota_counts_even_if_the_host_is_idle(fake: FakeProc) -> None:
    fake.write("self/cgroup", "0::/box\n")
    fake.cgroup("box/cpu.max", "50000 100000\n")
    fake.cgroup("box/cpu.stat", "usage_usec 1000000\nuser_usec 1\n")
    sampler = fake.sampler()
    sampler.sample(0.0)
    fake.cpu(0, 1000)
    fake.cgroup("box/cpu.stat", "usage_usec 1400000\nuser_usec 1\n")
    assert sampler.sample(1.0).cpu == pytest.approx(0.8)


def test_broken_and_missing_files_count_as_idle(fake: FakeProc) -> None:
    sampler = fake.sampler()
    for text in ("", "\n", "nonsense\n", "cpu \n", "MemTotal:\n"):
        for name in ("stat", "loadavg", "meminfo", "pressure/memory", "self/cgroup"):
            fake.write(name, text)
        assert sampler.sample(1.0).level == 0.0


@pytest.mark.parametrize("number", ["9" * 5000, "\u00b2", "-1", "0x10", ""])
def test_what_is_no_number_of_a_kernel_counts_as_idle(fake: FakeProc, number: str) -> None:
    """Regression: the load promises to raise nothing, and raised a ValueError or OverflowError."""
    texts = {
        "stat": f"cpu {number} 1 1 {number} 1\n", "loadavg": f"0 0 0 {number}/5 1\n",
        "pressure/memory": f"total={number}\n",
        "meminfo": f"MemTotal: {number} kB\nMemAvailable: {number} kB\n", "self/cgroup": "0::/a\n",
    }  # fmt: skip
    for name, text in texts.items():
        fake.write(name, text)
    fake.cgroup("a/cpu.max", f"{number} {number}\n")
    sampler = fake.sampler()
    assert [sampler.sample(now).level for now in (1.0, 2.0)] == [0.0, 0.0]


def test_a_group_that_cannot_be_called_so_has_no_quota(fake: FakeProc) -> None:
    """Regression: a ValueError."""
    fake.write("self/cgroup", "0::/a\0b\n3:cpu:/\0\n")
    assert fake.sampler().sample(1.0).level == 0.0


def test_where_proc_has_processes_only_the_group_above_all_tells_the_use(fake: FakeProc) -> None:
    """systemd's ProcSubset=pid."""
    for name in ("stat", "loadavg", "meminfo"):
        (fake.proc / name).unlink()
    fake.write("self/cgroup", "")
    fake.cgroup("cpu.stat", "usage_usec 7000000\n")
    fake.cgroup("memory.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n")
    sampler = fake.sampler()
    assert sampler.sample(0.0).level == 0.0
    used = (os.cpu_count() or 1) * 250_000
    fake.cgroup("cpu.stat", f"usage_usec {7_000_000 + used}\n")
    fake.cgroup("memory.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=500000\n")
    load = sampler.sample(1.0)
    assert load.cpu == pytest.approx(0.25) and load.memory_pressure == pytest.approx(0.5)


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_system_without_proc_is_sampled_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, platform: str) -> None:
    monkeypatch.setattr("sys.platform", platform)
    sampler = Sampler(str(tmp_path / "none"), str(tmp_path / "none"))
    sampler.sample(0.0)
    assert 0.0 <= sampler.sample(1.0).level <= 2.0


def test_this_machine_can_be_sampled_at_little_cost() -> None:
    sampler = Sampler()
    sampler.sample(time.monotonic())
    start = time.process_time()
    for _ in range(50):
        sampler.sample(time.monotonic())
    assert (time.process_time() - start) / 50 < 0.002  # P9 allows 1 ms of each second; a busy test machine gets twice


# CPUs


def test_tightest_quota_above_the_process_counts(fake: FakeProc) -> None:
    fake.write("self/cgroup", "0::/outer/inner\n")
    fake.cgroup("outer/cpu.max", "150000 100000\n")
    fake.cgroup("outer/inner/cpu.max", "max 100000\n")
    quota = find_quota(str(fake.proc), str(fake.cgroups))
    assert quota is not None and quota.cpus == 1.5
    assert usable_cpus(str(fake.proc), str(fake.cgroups)) == min(1.5, len(os.sched_getaffinity(0)))


def test_quota_of_version_one_counts(fake: FakeProc) -> None:
    fake.write("self/cgroup", "4:memory:/x\n3:cpu,cpuacct:/box\n0::/\n")
    fake.cgroup("cpu/box/cpu.cfs_quota_us", "25000\n")
    fake.cgroup("cpu/box/cpu.cfs_period_us", "100000\n")
    assert usable_cpus(str(fake.proc), str(fake.cgroups)) == 0.25


@pytest.mark.parametrize("limit", ["", "max 100000", "0 100000", "100000 0", "x y", "-1 100000"])
def test_no_quota_is_no_limit(fake: FakeProc, limit: str) -> None:
    fake.write("self/cgroup", "0::/box\n")
    fake.cgroup("box/cpu.max", limit)
    assert find_quota(str(fake.proc), str(fake.cgroups)) is None
    assert usable_cpus(str(fake.proc), str(fake.cgroups)) == len(os.sched_getaffinity(0))


# Speed


@pytest.fixture
def benchmarks_made(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    made: list[float] = []

    def benchmark() -> float:
        made.append(1.25)
        return 1.25

    monkeypatch.setattr(load, "benchmark", benchmark)
    return made


def test_speed_is_measured_once(tmp_path: Path, benchmarks_made: list[float]) -> None:
    directories = [tmp_path / "cache"]
    assert measure_speed(directories) == measure_speed(directories) == 1.25
    assert len(benchmarks_made) == 1


def test_speed_of_another_machine_or_boot_is_measured_again(
    tmp_path: Path, benchmarks_made: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    measure_speed([tmp_path])
    monkeypatch.setattr(load, "cpu_identity", lambda: "another boot")
    measure_speed([tmp_path])
    assert len(benchmarks_made) == 2


@pytest.mark.parametrize("text", ["", "x", "nan {}", "inf {}", "0 {}", "-1 {}", "1e9 {}", "1.0", "\0" * 50])
def test_damaged_cache_is_measured_again(tmp_path: Path, benchmarks_made: list[float], text: str) -> None:
    (tmp_path / load.SPEED_FILE).write_text(text.format(cpu_identity()))
    assert measure_speed([tmp_path]) == 1.25
    assert len(benchmarks_made) == 1


def test_cache_that_cannot_be_written_is_no_error(tmp_path: Path, benchmarks_made: list[float]) -> None:
    (tmp_path / "file").write_text("")
    second = tmp_path / "second"
    assert measure_speed([tmp_path / "file" / "below", second]) == 1.25
    assert (second / load.SPEED_FILE).exists()
    assert measure_speed([tmp_path / "file" / "below"]) == 1.25


def test_a_link_that_is_planted_in_the_cache_is_not_followed(tmp_path: Path, benchmarks_made: list[float]) -> None:
    """Regression: a link by the name of a draft, which has this process's number, led to any file of the user."""
    (tmp_path / "victim").write_text("precious")
    cache = tmp_path / "cache"
    cache.mkdir()
    for name in (load.SPEED_FILE, f"{load.SPEED_FILE}.{os.getpid()}"):
        (cache / name).symlink_to("../victim")
    assert measure_speed([cache]) == measure_speed([cache]) == 1.25
    assert len(benchmarks_made) == 1
    assert (tmp_path / "victim").read_text() == "precious"


def test_cache_is_in_the_users_cache_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert load.cache_directories()[0] == Path("/home/someone/.cache/cexec")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert load.cache_directories()[0] == Path("/elsewhere/cexec")
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    assert load.cache_directories()[0] == Path("/home/someone/.cache/cexec")
    monkeypatch.delenv("HOME")
    assert load.cache_directories() == [Path("/var/cache/cexec")]


def test_benchmark_is_short_and_gives_a_speed_that_is_believed() -> None:
    start = time.process_time()
    speed = load.benchmark()
    assert time.process_time() - start <= 0.3
    assert load.SLOWEST <= speed <= load.FASTEST
