"""How much a client's files, and what a program writes beside them, may take of a worker's disk."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from cexec.protocol.connection.frames import HERE, LIMITED, Stream
from cexec.protocol.connection.options import FILE, READS
from cexec.worker.jobs import disk_quota
from cexec.worker.jobs.disk_quota import DiskLimits
from cexec.worker.jobs.reports import JobFinished, JobRefused, ProgramStarted, Stored, Word
from tests.jobs import STANDARD, RefusedError, RemoteJob, shell

MEBIBYTE = 1 << 20
SENT = [*STANDARD, Stream(256, READS, FILE, name="a"), Stream(257, READS, FILE, name="b")]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where private directories are made."""
    directory = tmp_path / "place"
    directory.mkdir()
    monkeypatch.setenv("TMPDIR", str(directory))
    return directory


def sends(script: str, size: int, **options: object) -> RemoteJob:
    """A job that sends two files, each of this size."""
    data = os.urandom(size)
    return shell(script, streams=SENT, inputs={256: data, 257: data}, **options)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (DiskLimits(job=3 * MEBIBYTE), r"its files are more than 3 MiB.*cservice --disk-limit"),
        (DiskLimits(client=3 * MEBIBYTE), r"files of this client would take more than 3 MiB here.*--per-client files"),
    ],
    ids=["--disk-limit", "--per-client files"],
)
def test_files_beyond_a_limit_are_refused_and_leave_nothing(place: Path, limits: DiskLimits, words: str) -> None:
    """Regression: a client could fill the disk of every worker."""
    with sends("true", 2 * MEBIBYTE, disk=limits) as job:
        with pytest.raises(RefusedError, match=words) as caught:
            job.run()
        assert caught.value.kind == HERE
        job.pump.connection.close()
        reports = job.reports()
        (refused,) = [report for report in reports if isinstance(report, JobRefused)]
        assert refused.unfit
        assert all(report.size <= 3 * MEBIBYTE for report in reports if isinstance(report, Stored))
        job.wait()
    assert list(place.iterdir()) == []


def test_files_within_the_limits_are_taken_and_told_of_in_steps() -> None:
    with sends("cat a b | wc -c", 2 * MEBIBYTE, disk=DiskLimits(job=5 * MEBIBYTE, client=64 * MEBIBYTE)) as job:
        job.run()
        assert job.output(1) == b"%d\n" % (4 * MEBIBYTE)
        sizes = [report.size for report in job.reports() if isinstance(report, Stored)]
        assert 2 <= len(sizes) <= 5 and sizes == [*sorted(sizes[:-1]), 0]  # the directory has been removed


def test_a_worker_that_says_full_ends_the_transfer(place: Path) -> None:
    """The client's other jobs have taken what is left."""
    with sends("true", 8 * MEBIBYTE, disk=DiskLimits(client=64 * MEBIBYTE)) as job:
        job.until(lambda: job.session.outgoing[256].count > MEBIBYTE)
        job.parent.send(Word.FULL.value)
        with pytest.raises(RefusedError, match="files of this client would take more than 64 MiB"):
            job.run()


def test_a_program_that_writes_more_than_its_directory_may_have_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_quota, "FIRST_LOOK", 0.05)
    script = "head -c 3000000 /dev/urandom > a; sleep 60"
    with shell(script, private=True, disk=DiskLimits(job=MEBIBYTE)) as job:
        result = job.run()
        assert (result.kind, result.status) == (LIMITED, signal.SIGTERM)
        assert result.message == "ended because its directory had more than its disk limit of 1 MiB"


def test_a_program_that_writes_less_is_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_quota, "FIRST_LOOK", 0.01)
    script = "head -c 100000 /dev/urandom > a; sleep 0.3; echo done"
    with shell(script, private=True, disk=DiskLimits(job=MEBIBYTE)) as job:
        assert job.run().exit_status == 0
        assert [type(report) for report in job.reports()] == [ProgramStarted, JobFinished]
