"""What waits on disk: spools and records."""

from __future__ import annotations

import errno
import io
import os
import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cexec.cmap.inputs import store
from cexec.cmap.inputs.store import RecordStore, Spool, spool_stream
from cexec.errors import LocalError


class Trickle(io.BytesIO):
    """A stream that gives a few bytes at a time, as a pipe may."""

    def __init__(self, data: bytes, size: int) -> None:
        super().__init__(data)
        self._size = size

    def read(self, size: int | None = -1) -> bytes:
        return super().read(self._size)


def lines_of(data: bytes, separator: bytes = b"\n", piece: int = 1 << 20) -> RecordStore:
    records = RecordStore()
    records.take_lines(Trickle(data, piece), separator)
    return records


def everything(records: RecordStore) -> list[bytes]:
    return [records[number] for number in range(len(records))]


def split(data: bytes, separator: bytes) -> list[bytes]:
    *whole, rest = data.split(separator)
    return [line + separator for line in whole] + ([rest] if rest else [])


@given(st.lists(st.binary(max_size=5)).map(b"\n".join), st.integers(1, 20), st.sampled_from([b"\n", b"\0", b"x"]))
def test_lines_are_found_whatever_pieces_they_come_in(data: bytes, piece: int, separator: bytes) -> None:
    records = lines_of(data, separator, piece)
    assert everything(records) == split(data, separator)
    assert records.longest == max(map(len, split(data, separator)), default=0)
    assert records.has_nul == (separator != b"\0" and b"\0" in data)


def test_empty_lines_are_records() -> None:
    assert everything(lines_of(b"\n\na\n\n")) == [b"\n", b"\n", b"a\n", b"\n"]
    assert everything(lines_of(b"")) == []


@given(st.lists(st.binary(max_size=40)), st.data())
def test_records_are_found_in_any_order(written: list[bytes], data: st.DataObject) -> None:
    records = RecordStore()
    for record in written:
        records.append(record)
    order = data.draw(st.permutations(range(len(written))))
    assert [records[number] for number in order] == [written[number] for number in order]
    assert everything(records) == written
    assert records.longest == max(map(len, written), default=0)
    assert records.has_nul == any(b"\0" in record for record in written)


def test_a_record_longer_than_what_is_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "WINDOW", 16)
    records = lines_of(b"a\n" + b"b" * 100 + b"\nc\nd\n" + b"e" * 40)
    assert everything(records) == [b"a\n", b"b" * 100 + b"\n", b"c\n", b"d\n", b"e" * 40]
    assert records[3] == b"d\n"
    assert everything(records)[4] == b"e" * 40


def test_records_can_be_added_after_others_were_read() -> None:
    records = RecordStore()
    records.append(b"one")
    assert records[0] == b"one"
    records.append(b"two")
    assert everything(records) == [b"one", b"two"]


def test_many_records_are_on_disk_and_not_in_memory() -> None:
    records = RecordStore()
    for number in range(3):
        records.append(bytes([number]) * store.CHUNK)
    assert everything(records) == [bytes([number]) * store.CHUNK for number in range(3)]


def test_a_record_that_is_not_there() -> None:
    with pytest.raises(IndexError):
        lines_of(b"a\n")[1]


def test_a_spool_is_read_at_any_place_while_it_grows() -> None:
    spool = Spool()
    assert spool.append(b"abc") == 0
    assert spool.append(bytearray(b"defg")) == 3
    assert spool.read(2, 3) == b"cde"
    assert spool.read(6, 100) == b"g"
    assert spool.append(b"") == 7
    spool.clear()
    assert (spool.size, spool.read(0, 9)) == (0, b"")
    assert spool.append(b"new") == 0
    assert spool.read(0, 9) == b"new"
    spool.close()


def test_pieces_of_a_spool_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "CHUNK", 4)
    spool, _ = spool_stream(io.BytesIO(b"0123456789"))
    assert list(spool.pieces(1, 9)) == [b"1234", b"5678", b"9"]
    assert list(spool.pieces(3, 0)) == []


def test_the_hash_of_a_stream_is_that_of_its_content(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "CHUNK", 4)
    hashes = {spool_stream(Trickle(b"0123456789", size))[1] for size in (1, 3, 100)}
    assert len(hashes) == 1
    assert spool_stream(io.BytesIO(b"012345678"))[1] not in hashes


def test_a_full_disk_is_told_with_its_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool()

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(LocalError, match=r"cannot keep data in /.*: no space left on device; TMPDIR"):
        spool.append(b"x")
    assert spool.size == 0


def test_a_temporary_directory_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: os.open("/nonexistent/file", os.O_RDWR))
    with pytest.raises(LocalError, match="no such file"):
        Spool()
