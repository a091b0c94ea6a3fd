"""Records of jobs, and the sweep after a job's process was killed."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from cexec.errors import LocalError
from cexec.system import leftovers, process, process_tree
from cexec.system.leftovers import Record, end_strays, remove_directory, runtime_directory, sweep
from tests.needs import NOBODY, require_second_user


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return runtime_directory()


@pytest.fixture
def mark() -> str:
    return f"CEXEC_RUN={os.urandom(8).hex()}"


def started(mark: str, script: str) -> int:
    name, _, value = mark.partition("=")
    environment = {**os.environb, name.encode(): value.encode()}
    return process.spawn("/bin/sh", ["sh", "-c", script], environment, {})


def die_with(records: str, mark: str, **values: object) -> None:
    """A job's process that is killed and leaves its record."""
    pid = os.fork()
    if pid == 0:
        Record(records, mark).add(**values)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert len(os.listdir(records)) == 1


def has_ended(pid: int, timeout: float = 5.0) -> bool:
    deadline = time.monotonic() + timeout
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_the_directory_is_ours_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    path = runtime_directory()
    assert path == f"{tmp_path}/cexec" == runtime_directory()
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o700
    os.chmod(path, 0o750)
    with pytest.raises(LocalError, match="only this user may enter; remove it"):
        runtime_directory()


def test_a_link_is_not_taken_for_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "elsewhere").mkdir(0o700)
    (tmp_path / "cexec").symlink_to("elsewhere")
    with pytest.raises(LocalError):
        runtime_directory()


def test_another_users_directory_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_second_user()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "cexec").mkdir(0o700)
    os.chown(tmp_path / "cexec", NOBODY, NOBODY)
    with pytest.raises(LocalError):
        runtime_directory()


@pytest.mark.parametrize("base", ["", "relative", "/no/such"])
def test_without_a_runtime_directory_there_is_one_in_tmp(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", base)
    assert runtime_directory() == f"/tmp/cexec-{os.getuid()}"


def test_a_running_job_is_left_alone(records: str, mark: str) -> None:
    record = Record(records, mark)
    pid = started(mark, "sleep 60")
    record.add(leader=pid, start=process_tree.start_time(pid))
    assert sweep(records) == []
    assert os.waitpid(pid, os.WNOHANG)[0] == 0
    record.close()
    assert os.listdir(records) == []
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_what_a_dead_job_leaves_is_swept(records: str, mark: str, tmp_path: Path) -> None:
    directory = tmp_path / f"{leftovers.PRIVATE_PREFIX}1"
    (directory / "sub").mkdir(parents=True)
    unmarked = started("X=1", "env -i sleep 60; true")  # known by its number only
    marked = started(mark, "sleep 60; true")
    die_with(records, mark, leader=unmarked, start=process_tree.start_time(unmarked), directory=str(directory))
    assert sweep(records) == [mark]
    assert has_ended(unmarked) and has_ended(marked)
    assert not directory.exists() and os.listdir(records) == []
    assert sweep(records) == []


def test_a_sweep_with_a_grace_time_lets_them_clean_up(records: str, mark: str, tmp_path: Path) -> None:
    note, ready = tmp_path / "note", tmp_path / "ready"
    pid = started(
        mark, f"trap 'sleep 0.1; echo cleaned > {note}; exit' TERM; echo > {ready}; while :; do sleep 0.05; done"
    )
    while not ready.exists():
        time.sleep(0.01)
    die_with(records, mark)
    process.adopt_orphans()
    reaper = os.fork()
    if reaper == 0:
        os._exit(0 if sweep(records, grace=5.0) == [mark] else 1)
    assert has_ended(pid)
    assert os.waitpid(reaper, 0)[1] == 0
    assert note.read_text() == "cleaned\n"


def test_another_process_with_the_same_number_is_left_alone(records: str, mark: str) -> None:
    stranger = subprocess.Popen(["sleep", "60"])
    die_with(records, mark, leader=stranger.pid, start=process_tree.start_time(stranger.pid) - 1)
    sweep(records)
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


def test_numbers_of_another_boot_mean_nothing(records: str, mark: str, tmp_path: Path) -> None:
    stranger = subprocess.Popen(["sleep", "60"])
    directory = tmp_path / f"{leftovers.PRIVATE_PREFIX}1"
    directory.mkdir()
    start = process_tree.start_time(stranger.pid)
    die_with(records, mark, leader=stranger.pid, start=start, boot="another", directory=str(directory))
    assert sweep(records) == [mark]
    assert stranger.poll() is None
    assert not directory.exists()
    stranger.kill()
    stranger.wait()


def test_only_private_directories_are_removed(records: str, mark: str, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    link = tmp_path / f"{leftovers.PRIVATE_PREFIX}link"
    link.symlink_to(precious)
    for path in (precious, link, f"{tmp_path}/{leftovers.PRIVATE_PREFIX}gone"):
        die_with(records, mark, directory=str(path))
        assert sweep(records) == [mark]
    assert precious.exists()


def test_a_record_that_is_being_made_is_left_alone(records: str) -> None:
    path = Path(records) / "1-new"
    path.touch()
    assert sweep(records) == [] and path.exists()
    os.utime(path, (0, 0))
    assert sweep(records) == [""] and not path.exists()


def test_half_a_line_is_no_obstacle(records: str, mark: str) -> None:
    (Path(records) / "1-half").write_text(f'{{"mark": "{mark}"}}\n{{"directo')
    assert sweep(records) == [mark]


@pytest.mark.parametrize("end", ["wait", "exit 0"])
def test_orphans_of_a_killed_job_are_ended_and_reaped(end: str, mark: str, tmp_path: Path) -> None:
    process.adopt_orphans()
    others = process_tree.children(os.getpid())  # of other tests
    reading, writing = os.pipe()
    job = os.fork()
    if job == 0:
        process.adopt_orphans()
        leader = started(mark, f"setsid sleep 60 & sleep 60 & echo > {tmp_path}/x; {end}")
        os.write(writing, str(leader).encode())
        signal.pause()
    leader = int(os.read(reading, 100))
    os.close(reading)
    os.close(writing)
    while not (tmp_path / "x").exists():
        time.sleep(0.01)
    os.kill(job, signal.SIGKILL)
    os.waitpid(job, 0)
    assert process_tree.marked(mark.encode())
    end_strays(leader)
    assert process_tree.marked(mark.encode()) == []
    assert set(process_tree.children(os.getpid())) <= set(others)  # those may have ended meanwhile


def test_a_directory_is_removed_whatever_its_modes_are(tmp_path: Path) -> None:
    require_second_user()
    base = Path(tempfile.mkdtemp(dir="/tmp"))
    base.chmod(0o777)
    script = (
        "import os, shutil, sys; from cexec.system.leftovers import remove_directory\n"
        "os.setgroups([]), os.setgid(int(sys.argv[2])), os.setuid(int(sys.argv[2])), os.chdir(sys.argv[1])\n"
        "os.makedirs('d/a/b/c'); open('d/a/b/c/f', 'w'); os.symlink('/', 'd/a/b/l')\n"
        "for path in ('d/a/b/c', 'd/a/b', 'd/a'): os.chmod(path, 0)\n"
        "remove_directory('d'); print(os.listdir('.'))"
    )
    argv = [sys.executable, "-c", script, str(base), str(NOBODY)]
    result = subprocess.run(argv, capture_output=True, text=True, timeout=20)
    assert (result.stdout, result.stderr) == ("[]\n", "")
    base.rmdir()


def test_a_directory_that_is_gone_is_no_failure(tmp_path: Path) -> None:
    remove_directory(str(tmp_path / "gone"))
