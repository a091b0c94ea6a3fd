"""Where sent modules are kept: by content, and not more than there is room for."""

from __future__ import annotations

import os
import time
from hashlib import sha256
from pathlib import Path

import pytest

from cexec.pool import module_cache


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of the cache."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path / f"cexec-modules-{os.geteuid()}"


def add(data: bytes) -> bytes:
    digest = sha256(data).digest()
    module_cache.add(digest, data)
    return digest


def has(digest: bytes) -> bool:
    file = module_cache.find(digest)
    if file is not None:
        file.close()
    return file is not None


def test_what_was_added_is_found_by_its_content(place: Path) -> None:
    digest = add(b"some modules")
    file = module_cache.find(digest)
    assert file is not None
    (place / digest.hex()).unlink()
    assert Path(file.path).read_bytes() == b"some modules"
    file.close()
    assert not has(digest) and not has(bytes(32))
    assert place.stat().st_mode & 0o777 == 0o700


def test_those_that_were_used_longest_ago_make_room(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module_cache, "MOST_BYTES", 25)
    first, second = add(b"a" * 10), add(b"b" * 10)
    for age, digest in enumerate((second, first)):
        os.utime(place / digest.hex(), (age, age))
    assert has(second)  # which is used now
    third = add(b"c" * 10)
    assert [has(first), has(second), has(third)] == [False, True, True]
    assert not has(add(b"d" * 26))  # it is left out, and nothing makes room for it
    assert has(second) and has(third)


def test_what_was_abandoned_is_removed_some_time(place: Path) -> None:
    add(b"x")
    old, new = place / ".123", place / ".124"
    for path in (old, new):
        path.touch()
    long_ago = time.time() - 2 * module_cache.ABANDONED
    os.utime(old, (long_ago, long_ago))
    add(b"y")
    assert not old.exists() and new.exists()


def test_a_directory_that_others_may_enter_is_not_used(place: Path) -> None:
    place.mkdir(mode=0o750)
    with pytest.raises(PermissionError, match="is not private"):
        add(b"x")
