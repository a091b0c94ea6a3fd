"""The logger's output: escaping, a file that moves away, a disk that is full."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from cexec.errors import LocalError
from cexec.logger.log_output import MAXIMUM_WAITING, RETRY_INTERVAL, LogOutput
from cexec.logger.reporter import Line

pytestmark = pytest.mark.usefixtures("process_end")


def test_what_a_peer_supplied_cannot_act_on_a_terminal(tmp_path: Path) -> None:
    output = LogOutput(str(tmp_path / "log"), as_json=False)
    output.write(Line("10.0.0.6 completed by \x1b[31m for foo\n.pub", worker="a b\x07", client="x=y"))
    output.flush(0.0)
    text = (tmp_path / "log").read_text()
    assert text.count("\n") == 1 and text.isascii() and "\x1b" not in text and "\x07" not in text
    assert 'worker="a b' in text and 'client="x=y"' in text


def test_json_lines(tmp_path: Path) -> None:
    output = LogOutput(str(tmp_path / "log"), as_json=True)
    output.write(Line("text", worker="w\x1b", status=3))
    output.write_table([["worker", "jobs"], ["w1", "3"]])
    output.flush(0.0)
    first, second = map(json.loads, (tmp_path / "log").read_text().splitlines())
    assert (first["event"], first["worker"], first["status"]) == ("text", "w\x1b", 3)
    assert second == {"event": "statistics", "worker": "w1", "jobs": "3"}


def test_a_file_that_was_moved_away_is_begun_again(tmp_path: Path) -> None:
    path = tmp_path / "log"
    output = LogOutput(str(path), as_json=True)
    output.write(Line("first"))
    output.flush(0.0)
    path.rename(tmp_path / "old")
    output.reopen()
    output.write(Line("second"))
    output.flush(0.0)
    assert "first" in (tmp_path / "old").read_text() and "second" in path.read_text()


def test_a_full_disk_loses_nothing_that_fits_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    output = LogOutput(str(path), as_json=True)
    room = 30
    real = os.write

    def write(fd: int, data: bytes) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, "full")
        size = real(fd, data[:room])
        room -= size
        return size

    monkeypatch.setattr(os, "write", write)
    for number in range(5):
        output.write(Line(f"line {number}"))
    output.flush(10.0)
    assert output.next_timeout() == 10.0 + RETRY_INTERVAL
    room = 1 << 20
    output.flush(10.5)
    assert len(path.read_bytes()) == 30
    output.flush(11.0)
    assert [json.loads(line)["event"] for line in path.read_text().splitlines()] == [f"line {n}" for n in range(5)]


def test_what_had_to_be_dropped_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    output = LogOutput(str(path), as_json=False)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        for number in range(MAXIMUM_WAITING + 7):
            output.write(Line(f"line {number}"))
        output.flush(0.0)
    output.flush(RETRY_INTERVAL)
    lines = path.read_text().splitlines()
    assert len(lines) == MAXIMUM_WAITING + 1
    assert lines[-1].startswith("gap: 7 lines were dropped")


def test_at_the_end_what_waits_for_its_next_attempt_is_written_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    output = LogOutput(str(path), as_json=False)
    output.write(Line("last words"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        output.flush(0.0)
    output.close()
    assert path.read_text().startswith("last words ")


def test_lines_that_are_lost_at_the_end_are_told() -> None:
    output = LogOutput("/dev/full", as_json=False)
    output.write(Line("one"))
    output.write(Line("two"))
    with pytest.raises(LocalError, match="cannot write to /dev/full: no space left on device; lines lost: 2"):
        output.close()


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="cannot open"):
        LogOutput(str(tmp_path / "none" / "log"), as_json=False)


def test_no_lines_are_written_through_a_planted_link(tmp_path: Path) -> None:
    """In a directory such as /tmp another user chooses where a link leads."""
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o1777)
    (tmp_path / "shared" / "log").symlink_to(tmp_path / "victim")
    with pytest.raises(LocalError, match="it is a symbolic link"):
        LogOutput(str(tmp_path / "shared" / "log"), as_json=False)
    assert (tmp_path / "victim").read_text() == "precious"
