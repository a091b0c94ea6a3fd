"""Private directories and files that are sent and fetched, seen from the worker."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from cexec.protocol.connection import frames
from cexec.protocol.connection.frames import ENDED, HERE, STREAM_BROKEN, Stream
from cexec.protocol.connection.options import FILE, READS, WRITES
from cexec.worker.jobs.private_directory import FileProblem, PrivateDirectory
from cexec.worker.jobs.reports import Broken
from tests.jobs import STANDARD, RefusedError, RemoteJob, lost, shell

MEBIBYTE = 1024 * 1024


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where private directories are made."""
    directory = tmp_path / "place"
    directory.mkdir()
    monkeypatch.setenv("TMPDIR", str(directory))
    return directory


@pytest.fixture
def directory(place: Path) -> Iterator[PrivateDirectory]:
    before = os.getcwd()
    yield (made := PrivateDirectory())
    made.remove()
    os.chdir(before)
    assert list(place.iterdir()) == []


def sent(number: int, name: str) -> Stream:
    return Stream(number, READS, FILE, name=name)


def fetched(number: int, name: str) -> Stream:
    return Stream(number, WRITES, FILE, name=name)


def ending_of(job: RemoteJob, number: int) -> int:
    assert job.exit is not None
    return next(ending.ending for ending in job.exit.endings if ending.number == number)


def test_what_is_sent_is_complete_before_the_program_starts(place: Path) -> None:
    data = os.urandom(5 * MEBIBYTE)
    streams = [*STANDARD, sent(256, "a"), sent(257, "sub/dir/b"), sent(258, "empty")]
    with shell("cat a sub/dir/b; wc -c < empty; ls", streams=streams, inputs={256: data, 257: b"b\n"}) as job:
        job.run()
        assert job.output(1) == data + b"b\n0\na\nempty\nsub\n"
        job.wait()
    assert list(place.iterdir()) == []


def test_the_directory_is_empty_and_private(place: Path) -> None:
    with shell("ls -A; pwd; stat -c %a .", private=True) as job:
        job.run()
        where, mode = job.output(1).decode().split()
        assert Path(where).parent == place and mode == "700"
        assert job.remains() == []
        job.wait()
    assert list(place.iterdir()) == []


def test_a_job_without_files_stays_where_the_worker_is() -> None:
    with shell("pwd") as job:
        job.run()
        assert job.output(1).decode().rstrip("\n") == os.getcwd()


def test_what_the_program_leaves_is_fetched(place: Path) -> None:
    streams = [*STANDARD, fetched(256, "report"), fetched(257, "sub/large"), fetched(258, "empty")]
    script = "mkdir sub; head -c 5000000 /dev/zero > sub/large; echo hi > report; : > empty"
    with shell(script, streams=streams) as job:
        assert job.run().status == 0
        assert (job.output(256), job.output(257), job.output(258)) == (b"hi\n", bytes(5_000_000), b"")
        assert {ending_of(job, number) for number in (256, 257, 258)} == {ENDED}
        job.wait()
    assert list(place.iterdir()) == []


def test_a_file_may_be_sent_and_fetched() -> None:
    with shell("tr a-z A-Z < f > g; mv g f", streams=[sent(256, "f"), fetched(257, "f")], inputs={256: b"abc"}) as job:
        job.run()
        assert job.output(257) == b"ABC"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("true", "no such file"),
        ("ln -s /etc/passwd f", "it is a link"),
        ("mkfifo f", "it is not a regular file"),
        ("mkdir f", "it is not a regular file"),
    ],
)
def test_only_a_regular_file_is_fetched(script: str, reason: str) -> None:
    with shell(script, streams=[*STANDARD, fetched(256, "f"), fetched(257, "g")]) as job:
        job.run()
        told = [event.text for event in job.events if event.kind == frames.BROKEN and event.stream == 256]
        assert told == [reason]
        assert ending_of(job, 256) == STREAM_BROKEN


def test_no_link_on_the_way_is_followed() -> None:
    with shell("ln -s /etc d", streams=[*STANDARD, fetched(256, "d/passwd")]) as job:
        job.run()
        assert job.output(256) == b""
        assert ending_of(job, 256) == STREAM_BROKEN


def test_after_a_failure_files_are_fetched_if_they_are_there() -> None:
    with shell("echo log > f; exit 3", streams=[*STANDARD, fetched(256, "f"), fetched(257, "g")]) as job:
        assert job.run().status == 3
        assert job.output(256) == b"log\n"
        assert (ending_of(job, 256), ending_of(job, 257)) == (ENDED, STREAM_BROKEN)


def test_unless_the_client_does_not_want_them() -> None:
    for status, ending in ((3, STREAM_BROKEN), (0, ENDED)):
        options = {"fetch-on-failure": "no"}
        with shell(f"echo log > f; exit {status}", streams=[*STANDARD, fetched(256, "f")], options=options) as job:
            assert job.run().status == status
            assert ending_of(job, 256) == ending


def test_nobody_writes_any_more_to_what_is_fetched() -> None:
    script = "(while :; do echo more >> f; done) >&- 2>&- <&- & until test -s f; do sleep 0.05; done; sleep 0.1"
    with shell(script, streams=[*STANDARD, fetched(256, "f")]) as job:
        job.run()
        assert job.output(256).endswith(b"more\n")
        assert job.processes() == []


def test_the_directory_goes_with_the_client(place: Path) -> None:
    with shell("echo x > f; sleep 60", streams=[*STANDARD, fetched(256, "f")]) as job:
        job.until(lambda: list(place.glob("*/f")))
        job.pump.connection.close()
        job.wait()
        assert list(place.iterdir()) == []


def test_the_directory_goes_when_the_client_leaves_while_it_sends(place: Path) -> None:
    with shell("true", streams=[*STANDARD, sent(256, "f")], inputs={256: bytes(MEBIBYTE)}) as job:
        job.pump.sources.pop(256).close()  # and says no more
        job.until(lambda: list(place.glob("*/f")))
        job.pump.connection.close()
        job.wait()
        assert list(place.iterdir()) == []
        assert [type(report) for report in job.reports()] == [Broken]


def test_a_signal_that_comes_before_the_program_is_kept_for_it() -> None:
    with shell("sleep 60", streams=[*STANDARD, sent(256, "f")], inputs={256: bytes(3 * MEBIBYTE)}) as job:
        job.session.signal(15)
        assert job.run().exit_status == 128 + 15


def test_input_that_comes_before_the_program_is_not_lost() -> None:
    """Data of a stream that has no pipe yet would be thrown away, and the job would succeed on half of its input."""
    streams = [*STANDARD, sent(256, "f")]
    with shell("cat", streams=streams, inputs={0: b"early", 256: bytes(3 * MEBIBYTE)}) as job:
        job.feed(0)
        job.step()
        assert job.run().status == 0
        assert job.output(1) == b"early"


def test_a_client_that_cannot_read_its_file_has_no_job() -> None:
    with shell("echo ran", streams=[*STANDARD, sent(256, "f")], inputs={256: bytes(3 * MEBIBYTE)}) as job:
        job.pump.close_source(256)
        job.session.broken(256, "input/output error")
        assert "disconnected" in lost(job)
        assert job.output(1) == b""


def test_a_full_disk_is_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    with shell("true", private=True) as job:
        with pytest.raises(RefusedError, match=r"of its own in .*/nowhere: no such file or directory") as caught:
            job.run()
        assert caught.value.kind == HERE


def test_a_file_that_cannot_be_written_is_a_refusal(place: Path) -> None:
    streams = [*STANDARD, sent(256, "f"), sent(257, "f/g")]
    with shell("true", streams=streams, inputs={256: b"1", 257: b"2"}) as job:
        with pytest.raises(RefusedError, match=r"of its own in .*/place: not a directory"):
            job.run()
        job.pump.connection.close()
        job.wait()
    assert list(place.iterdir()) == []


def test_a_name_can_be_made_only_once(directory: PrivateDirectory) -> None:
    os.close(directory.create("f"))
    with pytest.raises(FileExistsError):
        directory.create("f")


def test_nothing_is_made_through_a_link(directory: PrivateDirectory, tmp_path: Path) -> None:
    (Path(directory.path) / "d").symlink_to(tmp_path)
    with pytest.raises(OSError):
        directory.create("d/f")
    assert not (tmp_path / "f").exists()
    with pytest.raises(FileProblem):
        directory.open("d/place")


def test_what_the_program_has_made_hard_to_remove_is_removed(directory: PrivateDirectory) -> None:
    deep = Path(directory.path) / "a" / "b" / "c"
    deep.mkdir(parents=True)
    (deep / "f").write_text("x")
    (deep / "l").symlink_to("/")
    for path in (deep, deep.parent, deep.parent.parent):
        path.chmod(0)


def test_files_have_the_usual_mode(directory: PrivateDirectory) -> None:
    before = os.umask(0o027)
    try:
        fd = directory.create("d/f")
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o640
    os.close(fd)
