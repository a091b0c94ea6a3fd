"""Files that are added to: all or nothing, and what can be taken back."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cexec.cmap.results.appending import AppendFile, Place, take_back
from cexec.errors import LocalError, UsageError

pytestmark = pytest.mark.usefixtures("process_end")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


def place_of(file: AppendFile) -> Place:
    place = file.place()
    assert place is not None
    return place


def test_a_new_file_gets_its_header_and_an_old_one_does_not(path: Path) -> None:
    for _ in range(2):
        file = AppendFile.open(str(path), b"head\n")
        file.append([b"a", b"b\n"])
        file.close()
    assert path.read_bytes() == b"head\nab\nab\n"


def test_a_file_is_begun_anew_when_that_is_wanted(path: Path) -> None:
    path.write_bytes(b"old\n")
    AppendFile.open(str(path), b"head\n", anew=True).close()
    assert path.read_bytes() == b"head\n"


def test_what_is_no_file_gets_the_header_each_time(tmp_path: Path) -> None:
    """Regression: a joblog that went to a pipe had no header, and a FIFO without a reader was waited for for ever."""
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    with pytest.raises(UsageError, match=r"cannot write .*/fifo: nobody reads this FIFO; start its reader first"):
        AppendFile.open(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    file = AppendFile.open(fifo, b"head\n")
    file.append([b"line\n"])
    assert os.read(reader, 100) == b"head\nline\n"
    file.close()
    os.close(reader)
    AppendFile.open("/dev/null", b"head\n").close()


def test_our_own_descriptor_is_not_opened_again(path: Path) -> None:
    """Opened again, as /dev/stdout, a file has another offset: each would write over what the other has written."""
    with open(path, "wb", buffering=0) as out:
        out.write(b"one\n")
        file = AppendFile.open(f"/dev/fd/{out.fileno()}", b"head\n")
        file.append([b"two\n"])
        file.close()
        out.write(b"three\n")
    assert path.read_bytes() == b"one\ntwo\nthree\n"
    with pytest.raises(LocalError, match="cannot write /dev/fd/999999: bad file descriptor"):
        AppendFile.open("/dev/fd/999999")


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot write /.*no/log: no such file or directory"):
        AppendFile.open(str(tmp_path / "no" / "log"))


def test_what_was_added_is_taken_back(path: Path) -> None:
    file = AppendFile.open(str(path))
    file.append([b"kept"])
    place = place_of(file)
    file.append([b"gone"])
    file.take_back(place)
    file.append([b"!"])
    assert path.read_bytes() == b"kept!"


def test_what_was_added_is_taken_back_by_another_process(path: Path) -> None:
    file = AppendFile.open(str(path))
    file.append([b"kept"])
    place = place_of(file)
    file.append([b"gone"])
    file.close()
    take_back(place)
    assert path.read_bytes() == b"kept"
    take_back(place)
    assert path.read_bytes() == b"kept"


def test_a_file_that_is_another_one_by_now_is_left_alone(path: Path) -> None:
    file = AppendFile.open(str(path))
    place = place_of(file)
    file.append([b"old"])
    path.rename(path.with_suffix(".1"))
    path.write_bytes(b"new")
    take_back(place)
    assert path.read_bytes() == b"new"
    path.unlink()
    take_back(place)
    assert not path.exists()


def test_a_descriptor_without_a_name_is_found_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    monkeypatch.setattr("cexec.cmap.results.appending.STANDARD", (10**6, fd))
    file = AppendFile(fd, "standard output")
    file.append([b"kept"])
    place = place_of(file)
    assert (place.path, place.offset) == ("", 4)
    file.append([b"gone"])
    take_back(place)
    assert path.read_bytes() == b"kept"
    file.append([b"!"])
    assert path.read_bytes() == b"kept!"
    file.close()
    os.close(fd)  # it was not ours to close


def test_a_descriptor_that_overwrites_is_cut_where_it_stands(path: Path) -> None:
    path.write_bytes(b"0123456789")
    fd = os.open(path, os.O_WRONLY)
    os.lseek(fd, 4, os.SEEK_SET)
    assert place_of(AppendFile(fd, "x")).offset == 4
    os.close(fd)


def test_nothing_can_be_taken_back_from_a_pipe() -> None:
    reading, writing = os.pipe()
    file = AppendFile(writing, "standard output")
    assert file.place() is None
    file.append([b"a", b"", b"b"])
    assert os.read(reading, 9) == b"ab"
    os.close(reading)
    with pytest.raises(LocalError, match="cannot write to standard output: broken pipe"):
        file.append([b"c"])
    os.close(writing)


def test_a_file_that_was_opened_for_reading_stays_as_it_is(path: Path) -> None:
    """Regression: with 2< file, cmap could not cut the file that it had not written, and told of no task."""
    path.write_bytes(b"kept")
    fd = os.open(path, os.O_RDONLY)
    file = AppendFile(fd, "standard error")
    assert file.place() is None
    with pytest.raises(LocalError, match="cannot write to standard error: bad file descriptor"):
        file.append([b"x"])
    assert path.read_bytes() == b"kept"
    os.close(fd)


def test_a_full_disk_leaves_nothing_of_an_addition(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = AppendFile.open(str(path))
    file.append([b"kept"])
    write = os.write
    room = [6]

    def nearly_full(fd: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, "")
        written = write(fd, data[: room[0]])
        room[0] -= written
        return written

    monkeypatch.setattr(os, "write", nearly_full)
    with pytest.raises(LocalError, match="no space left on device"):
        file.append([b"four", b"four"])
    assert path.read_bytes() == b"kept"


def test_a_really_full_disk() -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(LocalError, match="cannot write to it: no space left on device"):
        AppendFile(fd, "it").append([b"x"])
    os.close(fd)


def test_an_addition_whose_making_fails_leaves_nothing(path: Path) -> None:
    file = AppendFile.open(str(path))

    def failing() -> Iterator[bytes]:
        yield b"some"
        raise OSError(errno.EIO, "")

    with pytest.raises(LocalError, match="input/output error"):
        file.append(failing())
    assert path.read_bytes() == b""
