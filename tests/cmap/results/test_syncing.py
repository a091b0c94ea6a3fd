"""What is brought to disk, and what happens when that fails."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from cexec.cmap.results import syncing
from cexec.cmap.results.syncing import THREADS, Syncer, sync_directory, sync_file, way_to
from cexec.errors import LocalError


@pytest.fixture
def syncer() -> Iterator[Syncer]:
    syncer = Syncer()
    yield syncer
    syncer.close()


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The directories that are brought to disk."""
    found: list[str] = []
    real = os.fsync

    def noted(fd: int) -> None:
        found.append(os.readlink(f"/proc/self/fd/{fd}"))
        real(fd)

    monkeypatch.setattr(os, "fsync", noted)
    return found


def failing(number: int) -> Callable[[int], None]:
    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def test_calls_go_on_side_by_side(syncer: Syncer) -> None:
    together = threading.Barrier(THREADS, timeout=30)

    def meet() -> None:
        together.wait()

    assert syncer.run([meet] * THREADS) == [None] * THREADS


def test_every_call_has_its_error(syncer: Syncer) -> None:
    def call(number: int) -> None:
        if number % 7 == 3:
            raise LocalError(str(number))

    errors = syncer.run([partial(call, number) for number in range(50)])
    assert [str(error) for error in errors if error] == ["3", "10", "17", "24", "31", "38", "45"]
    assert [number for number, error in enumerate(errors) if error] == [3, 10, 17, 24, 31, 38, 45]


def test_a_failed_call_is_told_and_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def fail(fd: int) -> None:
        calls.append(fd)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(syncing, "sync_content", fail)
    with open(tmp_path / "x", "wb") as file, pytest.raises(LocalError, match="cannot bring x to disk: input/output"):
        sync_file(file.fileno(), "x")
    assert len(calls) == 1


def test_a_directory_that_cannot_be_synced_at_all_is_as_good_as_one_that_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", failing(errno.EINVAL))
    sync_directory(str(tmp_path))
    monkeypatch.setattr(os, "fsync", failing(errno.EIO))
    with pytest.raises(LocalError, match="to disk: input/output error"):
        sync_directory(str(tmp_path))
    with pytest.raises(LocalError, match="no such file"):
        sync_directory(str(tmp_path / "no"))


def test_new_parents_are_synced_once(tmp_path: Path, syncer: Syncer, synced: list[str]) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    path = str(tmp_path / "a" / "b")
    syncer.sync_directories([path, path])
    assert synced.count(path) == 1
    assert {str(tmp_path), str(tmp_path / "a")} <= set(synced)
    synced.clear()
    syncer.sync_directories([path])
    assert synced == [path]


def test_a_way_is_synced_as_far_as_it_is_new(tmp_path: Path, syncer: Syncer, synced: list[str]) -> None:
    for name in ("b", "c"):
        (tmp_path / "a" / name).mkdir(parents=True)
        synced.clear()
        syncer.sync_directories([str(tmp_path / "a" / name)])
    assert sorted(synced) == [str(tmp_path / "a"), str(tmp_path / "a" / "c")]


def test_a_way_ends_where_it_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, _: path != str(tmp_path))
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert list(way_to(str(tmp_path / "a" / "b"))) == [str(tmp_path / "a")]


def test_nothing_is_synced_without_sync(tmp_path: Path, synced: list[str]) -> None:
    syncer = Syncer(on=False)
    syncer.sync_directories([str(tmp_path)])
    assert syncer.run([lambda: None]) == [None]
    assert synced == []
    syncer.close()
