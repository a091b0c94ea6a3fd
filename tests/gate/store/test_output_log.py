"""Outputs: in memory, over files, with many readers, and what is left of them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cexec.errors import LocalError
from cexec.gate.problem import Problem
from cexec.gate.store import output_files, output_log
from cexec.gate.store.output_files import OutputFiles
from cexec.gate.store.output_log import MEMORY, OutputLog

SMALL = 64 * 1024  # bytes of a segment here


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OutputFiles:
    monkeypatch.setattr(output_files, "SEGMENT", SMALL)
    monkeypatch.setattr(output_log, "SEGMENT", SMALL)
    return OutputFiles(str(tmp_path / "outputs"))


@pytest.fixture
def log(files: OutputFiles) -> Iterator[OutputLog]:
    made = OutputLog(files, "job", 1)
    yield made
    made.release()


def all_of(output: OutputLog | output_log.KeptOutput, start: int = 0, size: int = 5000) -> bytes:
    found = b""
    while part := output.read(start + len(found), size):
        found += part
    return found


def data(size: int) -> bytes:
    """Bytes of which no two places look alike."""
    return b"".join(number.to_bytes(4, "big") for number in range(size // 4 + 1))[:size]


def test_a_short_output_makes_no_file(log: OutputLog, files: OutputFiles) -> None:
    log.append(memoryview(b"one "))
    log.append(memoryview(b"two"))
    assert (all_of(log), log.read(4, 2), log.read(7, 10), log.end) == (b"one two", b"tw", b"", 7)
    log.close()
    kept = log.finish()
    assert (kept.data, kept.size, all_of(kept, 4)) == (b"one two", 7, b"two")
    assert os.listdir(files.directory) == []


@given(pieces=st.lists(st.integers(1, 3 * MEMORY), min_size=1, max_size=12), start=st.integers(0, 10**6))
def test_what_was_written_is_read_whatever_the_pieces(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[int], start: int
) -> None:
    files = OutputFiles(str(tmp_path_factory.mktemp("outputs") / "files"))
    log = OutputLog(files, "job", 1)
    whole = data(sum(pieces))
    written = 0
    for size in pieces:
        log.append(memoryview(whole)[written : written + size])
        written += size
    start = min(start, len(whole))
    assert all_of(log, start, 30_000) == whole[start:]
    log.close()
    kept = log.finish()
    log.release()
    assert all_of(kept, start, 30_000) == whole[start:]


def test_no_more_than_a_little_is_in_memory(log: OutputLog, files: OutputFiles) -> None:
    whole = data(3 * SMALL + 100)
    log.append(memoryview(whole))
    log.append(memoryview(b"tail"))
    assert files.found() == {"job": [f"job.1.00000{number}" for number in range(4)]}
    assert all_of(log) == whole + b"tail"
    log.close()
    kept = log.finish()
    assert kept.data is None and all_of(kept) == whole + b"tail"
    assert files.segments(files.found()["job"]) == {1: (0, len(whole) + 4)}


def test_the_beginning_can_be_dropped(log: OutputLog, files: OutputFiles) -> None:
    whole = data(3 * SMALL + 100)
    log.append(memoryview(whole))
    assert log.read(10, 10) == whole[10:20]  # which holds the first segment open
    log.drop_before(SMALL - 1)
    assert log.began == 0
    log.drop_before(2 * SMALL + 5)
    assert (log.began, files.found()["job"]) == (2 * SMALL, ["job.1.000002", "job.1.000003"])
    with pytest.raises(Problem) as gone:
        log.read(2 * SMALL - 1, 10)
    assert (gone.value.status, gone.value.more) == (410, {"offset": 2 * SMALL})
    log.drop_before(1 << 62)  # the segment that grows stays
    assert all_of(log, 3 * SMALL) == whole[3 * SMALL :]
    log.close()
    kept = log.finish()
    assert (kept.began, kept.size) == (3 * SMALL, len(whole))
    assert files.segments(files.found()["job"]) == {1: (3 * SMALL, len(whole))}


def test_readers_wait_for_more_or_the_end(files: OutputFiles) -> None:
    log = OutputLog(files, "job", 1)

    async def read() -> bytes:
        found = b""
        while await log.wait(len(found)):
            part = log.read(len(found), 3)
            if not part:
                return found
            found += part
        raise AssertionError

    async def scene() -> None:
        readers = [asyncio.create_task(read()) for _ in range(50)]
        readers[0].cancel()  # takes nobody else along
        await asyncio.sleep(0)
        assert not await log.wait(0, 0.01)
        for number in range(5):
            log.append(memoryview(b"%d" % number))
            await asyncio.sleep(0)
        log.close()
        assert await asyncio.gather(*readers[1:]) == [b"01234"] * 49

    asyncio.run(scene())


def test_an_attempt_that_nobody_has_seen_is_forgotten(log: OutputLog, files: OutputFiles) -> None:
    log.append(memoryview(data(2 * SMALL)))
    assert not log.seen
    log.close()
    log.clear()
    assert (log.end, log.ended, files.found()) == (0, False, {})
    log.append(memoryview(b"again"))
    assert all_of(log) == b"again" and log.seen


def test_a_full_disk(log: OutputLog, files: OutputFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = data(SMALL)
    log.append(memoryview(whole))

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    log.append(memoryview(b"more"))
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError):
        log.append(memoryview(data(MEMORY)))
    assert all_of(log) == whole + b"more"
    log.close()
    with pytest.raises(OSError):
        log.finish()
    kept = log.give_up()
    assert (kept.began, kept.size, files.found()) == (SMALL + 4, SMALL + 4, {})
    with pytest.raises(Problem):
        kept.read(0, 10)


def test_a_removed_file_is_gone_and_no_failure(files: OutputFiles) -> None:
    log = OutputLog(files, "job", 2)
    log.append(memoryview(data(MEMORY + 1)))
    log.close()
    kept = log.finish()
    log.release()
    files.remove_job("job")
    with pytest.raises(Problem) as gone:
        kept.read(0, 10)
    assert gone.value.status == 410


def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "outputs"
    place.mkdir(mode=0o755)
    place.chmod(0o755)
    with pytest.raises(LocalError, match="only this user may enter"):
        OutputFiles(str(place))
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(LocalError, match="only this user may enter"):
        OutputFiles(str(tmp_path / "link"))
