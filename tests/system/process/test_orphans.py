"""Records of jobs, and the sweep after a job's process was killed."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cexec.system.process import orphans, process, process_tree
from cexec.system.process.orphans import Record, remove_directory, sweep
from cexec.system.storage.directories import runtime_directory
from tests.needs import NOBODY, require_second_user
from tests.waiting import PATIENCE, wait_until


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
    pid = process.spawn("/bin/sh", ["sh", "-c", script], environment, {})
    wait_until(lambda: pid in process_tree.marked(mark.encode()))  # the kernel shows it after spawn has returned
    return pid


def die_with(records: str, mark: str, **values: object) -> None:
    """A job's process that is killed and leaves its record."""
    pid = os.fork()
    if pid == 0:
        Record(records, mark).add(**values)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert len(os.listdir(records)) == 1


def has_ended(pid: int, timeout: float = PATIENCE) -> bool:
    deadline = time.monotonic() + timeout
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


# What others may have planted


class Bait:
    """A process of this user that carries the mark, and a directory of this user's with a private directory's name."""

    def __init__(self, mark: str, place: Path) -> None:
        self.directory = place / f"{orphans.PRIVATE_PREFIX}bait"
        (self.directory / "sub").mkdir(parents=True)
        self.pid = started(mark, "exec sleep 60")
        self.record = {
            "mark": mark, "boot": orphans.boot_id(), "directory": str(self.directory),
            "leader": self.pid, "start": process_tree.start_time(self.pid),
        }  # fmt: skip

    def untouched(self) -> bool:
        return os.waitpid(self.pid, os.WNOHANG)[0] == 0 and (self.directory / "sub").exists()

    def end(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


@pytest.fixture
def bait(mark: str, tmp_path: Path) -> Iterator[Bait]:
    made = Bait(mark, tmp_path)
    yield made
    made.end()


def planted(directory: str, record: object, name: str = "1-planted") -> Path:
    path = Path(directory) / name
    path.write_text(record if isinstance(record, str) else json.dumps(record) + "\n")
    path.chmod(0o600)
    return path


def test_the_bait_is_taken_from_our_own_records(records: str, mark: str, tmp_path: Path) -> None:
    bait = Bait(mark, tmp_path)
    planted(records, bait.record)
    assert sweep(records) == [mark]
    assert has_ended(bait.pid) and not bait.directory.exists()


@pytest.mark.parametrize("what", ["base", "directory", "record"])
def test_what_another_user_has_planted_is_not_acted_on(
    what: str, bait: Bait, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_second_user()
    (tmp_path / "run").mkdir(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    directory = runtime_directory()
    record = planted(directory, bait.record)
    places: dict[str, str | Path] = {"base": tmp_path / "run", "directory": directory, "record": record}
    os.chown(places[what], NOBODY, NOBODY)
    assert sweep(directory) == []
    assert bait.untouched() and record.exists()
    if what != "record":
        with pytest.raises(PermissionError):
            Record(directory, "CEXEC_RUN=0123456789abcdef")


@pytest.mark.parametrize("component", ["run", "run/cexec"])
def test_a_directory_that_is_exchanged_for_a_link_is_not_swept(
    component: str, bait: Bait, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    directory = runtime_directory()
    planted(directory, bait.record)
    (tmp_path / component).rename(tmp_path / "elsewhere")
    (tmp_path / component).symlink_to(tmp_path / "elsewhere")
    if component == "run":  # that link could be root's, who has many; this one is another user's
        require_second_user()
        os.lchown(tmp_path / component, NOBODY, NOBODY)
    assert sweep(directory) == []
    assert bait.untouched()


@pytest.mark.parametrize("kind", ["link", "second name", "group may write", "pipe", "directory"])
def test_a_file_that_may_not_be_ours_alone_is_no_record(kind: str, records: str, bait: Bait, tmp_path: Path) -> None:
    other = planted(str(tmp_path), bait.record, "other")
    path = Path(records) / "1-planted"
    if kind == "link":
        path.symlink_to(other)
    elif kind == "second name":
        path.hardlink_to(other)
    elif kind == "pipe":
        os.mkfifo(path, 0o600)
    elif kind == "directory":
        path.mkdir()
    else:
        planted(records, bait.record).chmod(0o620)
    assert sweep(records) == []
    assert bait.untouched() and os.path.lexists(path)


@pytest.mark.parametrize(
    "content",
    [
        b"10", b"[]", b'"x"', b"null", b"true", b"1e999", b"\xff\xfe\x00", b"\0" * 100, b"{", b"[" * 100_000,
        b'{"a":' * 20_000, b"9" * 10_000, b"\n" * 300_000, b'{"mark": 5, "directory": [], "group": {}, "boot": null}',
        b'{"mark": "CEXEC_RUN=\\ud800\\u0000", "directory": "/tmp/cexec-job-\\ud800", "group": "\\u0000"}',
    ],
    ids=lambda content: repr(content[:12]),
)  # fmt: skip
def test_a_record_that_cannot_be_understood_is_removed_and_nothing_else(
    content: bytes, records: str, mark: str, bait: Bait
) -> None:
    path = planted(records, "")
    path.write_bytes(content)
    following = planted(records, {"mark": mark.replace("=", "=0")}, "2-following")
    assert sorted(sweep(records)) == ["", mark.replace("=", "=0")]
    assert bait.untouched() and not path.exists() and not following.exists()


@pytest.mark.parametrize("leader", [0, 1, -1, True, "PID", 2.0, 1 << 40, None, [5]])
def test_a_leader_that_can_be_nobodys_gets_no_signal(
    leader: object, records: str, bait: Bait, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_tree, "start_time", lambda pid: 7)
    monkeypatch.setattr(process_tree, "signal_all", lambda pids, number: pytest.fail(f"{pids} got {number}"))
    leader = str(bait.pid) if leader == "PID" else leader
    planted(records, {**bait.record, "mark": "", "directory": "", "leader": leader, "start": 7})
    assert sweep(records) == [""]


@pytest.mark.parametrize("start", [0, -1, True, "7", None])
def test_a_leader_without_a_start_time_gets_no_signal(start: object, records: str, bait: Bait) -> None:
    planted(records, {**bait.record, "mark": "", "directory": "", "start": start})
    assert sweep(records) == [""] and bait.untouched()


@pytest.mark.parametrize("other", ["CEXEC_RUN=", "CEXEC_RUN", "PATH={PATH}", "CEXEC_RUN=1", ""])
def test_a_mark_that_is_not_a_jobs_ends_nothing(
    other: str, records: str, bait: Bait, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_tree, "signal_all", lambda pids, number: pytest.fail(f"{pids} got {number}"))
    planted(records, {**bait.record, "mark": other.format(**os.environ), "leader": 0, "directory": ""})
    assert sweep(records) == [""]


def test_directories_are_removed_only_by_a_plain_path_that_nobody_else_can_change(
    records: str, bait: Bait, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = bait.directory.name
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "open" / name).mkdir()
    wrong = [
        f"{tmp_path}/open/../{name}",
        f"{tmp_path}/./{name}",
        name,
        f"{bait.directory}/",
        f"{tmp_path}/open/{name}",
    ]
    for number, path in enumerate(wrong):
        planted(records, {"directory": path}, f"1-{number}")
    planted(records, {"group": f"{tmp_path}/open/{name}"}, "2-group")  # not below /sys/fs/cgroup
    assert sweep(records) == [""] * (len(wrong) + 1)
    assert bait.untouched() and (tmp_path / "open" / name).exists()


def test_a_directory_of_another_user_or_behind_its_link_stays(records: str, bait: Bait, tmp_path: Path) -> None:
    require_second_user()
    theirs = tmp_path / f"{orphans.PRIVATE_PREFIX}theirs"
    theirs.mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    os.chown(theirs, NOBODY, NOBODY)
    os.lchown(tmp_path / "link", NOBODY, NOBODY)
    planted(records, {"directory": str(theirs)})
    planted(records, {"directory": f"{tmp_path}/link/{bait.directory.name}"}, "1-link")
    assert sweep(records) == ["", ""]
    assert theirs.exists() and bait.untouched()


def test_a_huge_record_tells_of_the_first_and_the_last_job(records: str, mark: str, tmp_path: Path) -> None:
    bait = Bait(mark, tmp_path)
    lines = [json.dumps({"boot": bait.record["boot"]})]
    lines += [json.dumps({"mark": f"CEXEC_RUN={number:016x}", "leader": 0}) for number in range(50_000)]
    del bait.record["boot"]
    planted(records, "\n".join([*lines, json.dumps(bait.record)]))
    assert sweep(records) == [mark]
    assert has_ended(bait.pid) and not bait.directory.exists()


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


@pytest.mark.parametrize("boot", [orphans.boot_id(), ""])  # it has none on other systems than Linux
def test_what_was_killed_before_its_first_job_is_not_told(
    boot: str, records: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: where boots have no name, `cservice` told of a job that had never been."""
    monkeypatch.setattr(orphans, "boot_id", lambda: boot)
    pid = os.fork()
    if pid == 0:
        Record(records)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert len(os.listdir(records)) == 1
    assert sweep(records) == [] and os.listdir(records) == []


def test_what_a_dead_job_leaves_is_swept(records: str, mark: str, tmp_path: Path) -> None:
    directory = tmp_path / f"{orphans.PRIVATE_PREFIX}1"
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
    directory = tmp_path / f"{orphans.PRIVATE_PREFIX}1"
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
    link = tmp_path / f"{orphans.PRIVATE_PREFIX}link"
    link.symlink_to(precious)
    for path in (precious, link, f"{tmp_path}/{orphans.PRIVATE_PREFIX}gone"):
        die_with(records, mark, directory=str(path))
        assert sweep(records) == [mark]
    assert precious.exists()


def test_a_record_that_is_being_made_is_left_alone(records: str) -> None:
    path = Path(records) / "1-new"
    path.touch()
    assert sweep(records) == [] and path.exists()
    os.utime(path, (0, 0))
    assert sweep(records) == [""] and not path.exists()


def test_a_process_that_is_killed_while_it_makes_its_record_leaves_nothing(
    records: str, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`make faults ROWS='killed without a pause'` has found an empty record that nobody swept for a minute."""
    pid = os.fork()
    if pid == 0:
        monkeypatch.setattr("fcntl.flock", lambda fd, operation: os.kill(os.getpid(), signal.SIGKILL))
        Record(records, mark)
    os.waitpid(pid, 0)
    assert os.listdir(records) == []


@pytest.mark.parametrize("missing", ["nameless files", "/proc"])
def test_a_record_is_made_where_files_without_a_name_are_not_to_be_had(
    missing: str, records: str, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        if missing == "/proc":
            patch.setattr(os, "link", lambda *_, **__: os.stat("/no/such/file"))
        else:
            patch.delattr(os, "O_TMPFILE")
        record = Record(records, mark)
    (name,) = os.listdir(records)
    assert json.loads(Path(records, name).read_text())["mark"] == mark
    assert sweep(records) == []
    record.close()
    assert os.listdir(records) == []


def test_half_a_line_is_no_obstacle(records: str, mark: str) -> None:
    (Path(records) / "1-half").write_text(f'{{"mark": "{mark}"}}\n{{"directo')
    assert sweep(records) == [mark]


@pytest.mark.parametrize("written", [0, 1, 30])
def test_a_disk_that_was_full_before_the_job_hides_nothing_of_it(
    written: int, records: str, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: the record had no boot if there was room again when the job came, and no process was ended."""
    job = started(mark, "sleep 60; true")
    write = os.write

    def full(fd: int, data: bytes) -> int:
        if written:
            return write(fd, data[:written])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    pid = os.fork()
    if pid == 0:
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            record = Record(records)
        record.begin_job(mark)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert sweep(records) == [mark] and has_ended(job)


def test_a_directory_is_removed_whatever_its_modes_are(tmp_path: Path) -> None:
    require_second_user()
    base = Path(tempfile.mkdtemp(dir="/tmp"))
    base.chmod(0o777)
    script = (
        "import os, shutil, sys; from cexec.system.process.orphans import remove_directory\n"
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
