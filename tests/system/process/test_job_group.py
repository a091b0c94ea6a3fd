"""Control groups of version 2 for job processes: with the kernel where there are any, and in directories like them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cexec.system.process import job_group
from cexec.system.process.job_group import JobGroup, claim_place
from tests.cgroups import real_job_group
from tests.needs import NOBODY, require_second_user
from tests.system.process.test_strays import COMET
from tests.waiting import comes_true, wait_until


@pytest.fixture(autouse=True)
def _place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_group, "place", None)


@pytest.fixture
def group() -> Iterator[JobGroup]:
    """A real one."""
    with real_job_group() as made:
        yield made


def joined(group: JobGroup, *argv: str) -> subprocess.Popen[bytes]:
    """A program in the group."""
    return subprocess.Popen(argv, preexec_fn=group.join, start_new_session=True)


def test_the_kernel_kills_all_of_a_group(group: JobGroup, tmp_path: Path) -> None:
    (tmp_path / "comet").write_text(COMET)
    first = joined(group, sys.executable, "-S", str(tmp_path / "comet"), str(tmp_path / "notes"))
    wait_until(lambda: (tmp_path / "notes").exists())
    assert not group.remove()
    group.kill()
    first.wait()
    assert comes_true(group.remove)
    assert not Path(group.path).exists()
    assert group.remove()  # once more does no harm


def test_who_kills_the_others_in_its_group_stays(group: JobGroup, tmp_path: Path) -> None:
    script = (
        "import os, subprocess, sys; from cexec.system.process.job_group import JobGroup\n"
        "group = JobGroup(sys.argv[1]); assert group.join()\n"
        "child = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        "group.kill_others(); assert child.wait() == -9\n"
        "print(os.path.basename(group.path) in open('/proc/self/cgroup').read())"
    )
    result = subprocess.run([sys.executable, "-c", script, group.path], capture_output=True, text=True, timeout=30)
    assert (result.stdout, result.stderr) == ("True\n", "")


def test_a_group_of_another_user_can_be_used_by_that_user(group: JobGroup) -> None:
    require_second_user()
    script = (
        "import os, sys\nfrom cexec.system.process import job_group\n"
        "job_group.claim_place(int(sys.argv[1])); os.setgroups([]); os.setgid(int(sys.argv[1]))\n"
        "os.setuid(int(sys.argv[1])); group = job_group.JobGroup.create('x')\n"
        "if os.fork() == 0: group.join(); os.setsid(); os.fork(); os.execv('/bin/sleep', ['sleep', '600'])\n"
        "while len(open(group.path + '/cgroup.procs').read().split()) != 2: pass\n"
        "group.kill(); os.wait()\nwhile not group.remove(): pass\nprint(job_group.place)"
    )
    argv = [sys.executable, "-c", script, str(NOBODY)]
    result = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    assert result.stderr == ""
    own = result.stdout.strip()
    assert os.path.basename(own).startswith("cexec-service-") and os.stat(own).st_uid == NOBODY
    claim_place(NOBODY)  # removes what services have left that have ended
    assert not os.path.exists(own)
    Path(own).parent.joinpath("cgroup.procs").write_text("0")
    os.rmdir(str(job_group.place))


# the choice of the place, in a tree of plain files


class Kernel:
    """What /proc and /sys/fs/cgroup would say."""

    def __init__(self, root: Path, own: str = "0::/unit\n", mount: str = "/") -> None:
        self.unit = root / "sys" / "unit"
        self.unit.mkdir(parents=True)
        (self.unit / "cgroup.procs").touch()
        self._own, self._mounts = root / "own", root / "mounts"
        self._own.write_text(f"3:memory:/x\n{own}")
        other = "1 0 0:1 / / rw shared:1 - ext4 /dev/x rw"
        self._mounts.write_text(f"{other}\n2 1 0:2 {mount} {root}/sys rw,nosuid shared:2 - cgroup2 none rw\n")

    def claim(self) -> str | None:
        claim_place(mounts=str(self._mounts), own_groups=str(self._own))
        return job_group.place


@pytest.fixture
def has_kill(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new group has the file, as with Linux 5.14."""
    mkdir = os.mkdir

    def make(path: str, mode: int = 0o777) -> None:
        mkdir(path, mode)
        Path(path, "cgroup.kill").touch()

    def remove(path: str) -> None:
        Path(path, "cgroup.kill").unlink()
        rmdir(path)

    rmdir = os.rmdir
    monkeypatch.setattr(os, "mkdir", make)
    monkeypatch.setattr(os, "rmdir", remove)


@pytest.mark.usefixtures("has_kill")
def test_groups_are_made_in_our_own(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path)
    (kernel.unit / "stays").touch()
    assert kernel.claim() == str(kernel.unit)
    made = JobGroup.create("1-2")
    assert made is not None and made.path == f"{kernel.unit}/cexec-job-1-2"
    made.kill()
    assert Path(made.path, "cgroup.kill").read_text() == "1"
    assert JobGroup.create("1-2") is None  # it is somebody else's


@pytest.mark.usefixtures("has_kill")
def test_who_cannot_step_aside_kills_nobody(tmp_path: Path) -> None:
    """It would be among those that are killed."""
    kernel = Kernel(tmp_path)
    kernel.claim()
    made = JobGroup.create("1-2")
    assert made is not None
    (kernel.unit / "cgroup.procs").unlink()
    (kernel.unit / "cgroup.procs").mkdir()  # nothing can be written there
    made.kill_others()
    assert Path(made.path, "cgroup.kill").read_text() == ""


@pytest.mark.usefixtures("has_kill")
def test_a_container_sees_a_part_of_the_tree(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, own="0::/above/unit\n", mount="/above")
    (kernel.unit / "stays").touch()
    assert kernel.claim() == str(kernel.unit)


def test_a_kernel_without_cgroup_kill_has_no_such_groups(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path)
    assert kernel.claim() is None
    assert JobGroup.create("x") is None
    assert sorted(os.listdir(kernel.unit)) == ["cgroup.procs"]


@pytest.mark.parametrize("own", ["", "0::/elsewhere\n"], ids=["version 1", "outside"])
def test_without_a_group_of_version_2_there_is_no_place(own: str, tmp_path: Path) -> None:
    assert Kernel(tmp_path, own=own, mount="/unit").claim() is None


def test_a_group_that_is_not_delegated_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: not path.endswith("cgroup.procs"))
    assert kernel.claim() is None


def test_where_there_is_no_proc_there_is_no_place() -> None:
    claim_place(mounts="/nowhere", own_groups="/nowhere")
    assert job_group.place is None
