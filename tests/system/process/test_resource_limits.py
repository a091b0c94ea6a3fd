"""Limits as numbers, and memory groups with real processes and, for version 2, with files that play the kernel."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cexec.errors import UsageError
from cexec.system.process import memory_group
from cexec.system.process.memory_group import MemoryGroup, claim_parent
from cexec.system.process.resource_limits import (
    Limits,
    find_hit,
    parse_cpu_limit,
    parse_memory_limit,
    parse_time_limit,
    remark,
)
from tests.needs import skip_for_want_of

MEBIBYTE = 1 << 20
EXIT, KILLED, XCPU = 1 << 8, int(signal.SIGKILL), int(signal.SIGXCPU)  # wait statuses


@pytest.fixture
def parent() -> Iterator[str]:
    """A place for groups on this machine."""
    claim_parent()
    if memory_group.parent is None:
        skip_for_want_of("a memory control group")
    yield str(memory_group.parent)
    memory_group.parent = None


def fields(limits: Limits) -> tuple[float, int, int, int]:
    return limits.time, limits.cpu, limits.memory, limits.nice


def test_options_and_back() -> None:
    limits = Limits(time=1.5, cpu=3, memory=MEBIBYTE, nice=4)
    options = {"time-limit": "1.500", "cpu-limit": "3", "memory-limit": "1048576", "nice": "4"}
    assert limits.to_options() == options
    assert fields(Limits.from_options(options)) == fields(limits)
    assert Limits().to_options() == {}
    assert fields(Limits.from_options({})) == (0, 0, 0, 0)


@pytest.mark.parametrize("name", ["time-limit", "cpu-limit", "memory-limit", "nice"])
@pytest.mark.parametrize("value", ["", "-1", "x", "1e3", "²", "1_0", "9" * 30, "nan", " 1", "1..2", "."])
def test_what_is_no_number_is_refused(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=name):
        Limits.from_options({name: value})


@pytest.mark.parametrize("option", [{"nice": "20"}, {"memory-limit": "1000"}, {"cpu-limit": "1.5"}])
def test_what_is_out_of_range_is_refused(option: dict[str, str]) -> None:
    with pytest.raises(ValueError):
        Limits.from_options(option)


def test_the_stricter_of_both_counts() -> None:
    ours, theirs = Limits(time=5, cpu=0, memory=3 * MEBIBYTE, nice=2), Limits(time=7, cpu=4, memory=0, nice=1)
    for result in (ours.stricter(theirs), theirs.stricter(ours)):
        assert fields(result) == (5, 4, 3 * MEBIBYTE, 2)


def test_only_a_time_limit_needs_no_preparation() -> None:
    assert not Limits(time=5).inherited
    assert all(limits.inherited for limits in (Limits(cpu=1), Limits(memory=MEBIBYTE), Limits(nice=1)))


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (parse_memory_limit, "1048576", MEBIBYTE),
        (parse_memory_limit, "500M", 500 * MEBIBYTE),
        (parse_memory_limit, "1.5GiB", 3 << 29),
        (parse_cpu_limit, "1m30s", 90),
        (parse_cpu_limit, "1.01", 2),
        (parse_time_limit, "0.001", 0.001),
        (parse_time_limit, "2h", 7200.0),
    ],
)
def test_limits_as_a_user_writes_them(parse: Callable[[str, str], float], text: str, value: float) -> None:
    assert parse(text, "--x-limit") == value


@pytest.mark.parametrize("parse", [parse_memory_limit, parse_cpu_limit, parse_time_limit])
@pytest.mark.parametrize("text", ["", "M", "-1", "0", "nan", "5X", "9" * 39, "٣"])
def test_what_is_no_limit_is_told(parse: Callable[[str, str], float], text: str) -> None:
    with pytest.raises(UsageError, match=r"^--x-limit is '"):
        parse(text, "--x-limit")


def test_limits_that_no_program_can_keep_are_refused() -> None:
    with pytest.raises(UsageError, match=r"must be at least 1M$"):
        parse_memory_limit("10", "--memory-limit")
    with pytest.raises(UsageError, match=r"must be at least 1\.00 s$"):
        parse_cpu_limit("500ms", "--cpu-limit")


def test_which_limit_was_hit() -> None:
    limits = Limits(cpu=2, memory=MEBIBYTE)
    assert find_hit(limits, 0, 9.0, 0) is None
    assert find_hit(limits, EXIT, 9.0, 0) is None
    assert find_hit(limits, KILLED, 1.0, 0) is None  # somebody else's doing
    for status, used, killed, number in (
        (XCPU, 2.0, 0, signal.SIGXCPU),
        ((128 + XCPU) << 8, 2.0, 0, signal.SIGXCPU),  # a shell tells of its child's end
        (KILLED, 3.0, 0, signal.SIGKILL),
        (KILLED, 0.1, 1, signal.SIGKILL),
        ((128 + KILLED) << 8, 0.1, 1, signal.SIGKILL),
    ):
        hit = find_hit(limits, status, used, killed)
        assert hit is not None and hit.signal == number
        assert ("memory" if killed else "processor") in hit.message
    assert find_hit(Limits(), XCPU, 2.0, 0) is None  # its own limit, not ours


def test_what_may_have_been_the_reason() -> None:
    assert remark(Limits(memory=MEBIBYTE), 0, 0, False) == ""
    assert "each process" in remark(Limits(memory=MEBIBYTE), EXIT, 0, False)
    assert remark(Limits(memory=MEBIBYTE), EXIT, 0, True) == ""
    assert remark(Limits(memory=MEBIBYTE), 0, 2, True).startswith("2 of its processes ended by the kernel")


def test_a_limit_is_never_raised_above_our_own() -> None:
    script = (
        "import resource; from cexec.system.process.resource_limits import Limits\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (50, 60)); Limits(cpu=100).apply(None)\n"
        "print(resource.getrlimit(resource.RLIMIT_CPU)); Limits(cpu=10).apply(None)\n"
        "print(resource.getrlimit(resource.RLIMIT_CPU))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20)
    assert result.stdout.splitlines() == ["(60, 60)", "(10, 11)"]


# memory groups


def test_the_kernel_ends_what_uses_too_much_together(parent: str) -> None:
    group = MemoryGroup.create(f"test-{os.getpid()}", 60 * MEBIBYTE)
    assert group is not None and os.path.dirname(group.path) == parent
    hog = [sys.executable, "-S", "-c", "import time; a = bytearray(b'x') * (40 << 20); time.sleep(20)"]
    both = [subprocess.Popen(hog, preexec_fn=group.join) for _ in range(2)]  # each alone would fit
    try:
        deadline = time.monotonic() + 20
        while all(process.poll() is None for process in both):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert -signal.SIGKILL in [process.returncode for process in both]
        assert group.killed() >= 1
    finally:
        for process in both:
            process.kill()
            process.wait()
        group.remove()
    assert not os.path.exists(group.path)


def test_without_a_place_there_is_no_group() -> None:
    claim_parent("/nowhere", "/nowhere")
    assert MemoryGroup.create("x", MEBIBYTE) is None


class Kernel:
    """Files as version 2 has them.  A group whose `subtree_control` may not be written holds a strange process."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.place = root / "user" / "service"
        self.place.mkdir(parents=True)
        (root / "own").write_text("0::/user/service\n")
        self.fill(self.place, controllers="cpu memory pids")

    def fill(self, place: Path, controllers: str) -> None:
        place.mkdir(exist_ok=True)
        (place / "cgroup.controllers").write_text(controllers)
        for name in ("cgroup.subtree_control", "cgroup.procs"):
            (place / name).write_text("")

    def claim(self) -> None:
        claim_parent(str(self.root), str(self.root / "own"))


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    yield Kernel(tmp_path)
    memory_group.parent = None


def test_version_2_needs_a_leaf_of_our_own(kernel: Kernel) -> None:
    kernel.claim()
    assert memory_group.parent == str(kernel.place)
    assert (kernel.place / "cexec-service" / "cgroup.procs").read_text() == "0"
    assert (kernel.place / "cgroup.subtree_control").read_text() == "+memory"


def test_version_2_where_memory_is_handed_down_already(kernel: Kernel) -> None:
    (kernel.place / "cgroup.subtree_control").write_text("memory")
    kernel.claim()
    assert memory_group.parent == str(kernel.place)
    assert not (kernel.place / "cexec-service").exists()


def test_version_2_without_the_controller(kernel: Kernel) -> None:
    kernel.fill(kernel.place, controllers="cpu pids")
    kernel.claim()
    assert memory_group.parent is None


def test_version_2_with_strangers_in_the_group(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(path: str, text: str) -> None:
        if path.endswith("subtree_control"):
            raise OSError(16, "busy")
        Path(path).write_text(text)

    monkeypatch.setattr(memory_group, "write_value", write)
    kernel.claim()
    assert memory_group.parent is None
    assert (kernel.place / "cgroup.procs").read_text() == "0"  # back to where we were


def test_a_group_of_version_2(kernel: Kernel) -> None:
    path = kernel.place / "job"
    path.mkdir()
    for name in ("memory.max", "memory.swap.max", "memory.oom.group", "cgroup.procs"):
        (path / name).write_text("")
    (path / "memory.events").write_text("low 0\nhigh 0\nmax 7\noom 2\noom_kill 3\noom_group_kill 1\n")
    group = MemoryGroup(str(path))
    group.set_limit(5 * MEBIBYTE)
    group.join()
    found = {
        name: (path / name).read_text()
        for name in ("memory.max", "memory.swap.max", "memory.oom.group", "cgroup.procs")
    }
    assert found == {"memory.max": "5242880", "memory.swap.max": "0", "memory.oom.group": "1", "cgroup.procs": "0"}
    assert group.killed() == 3


def test_a_job_ends_with_its_memory_group_where_the_kernel_can_kill_one(tmp_path: Path) -> None:
    for version in ("1", "2"):
        path = tmp_path / version
        path.mkdir()
        (path / "cgroup.kill").touch()
        if version == "2":
            (path / "memory.max").touch()  # by which it is known
        MemoryGroup(str(path)).kill_others()
        assert (path / "cgroup.kill").read_text() == ("1" if version == "2" else "")
