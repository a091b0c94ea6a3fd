from __future__ import annotations

import os
from pathlib import Path

import pytest

from cexec.system.storage import directory_use
from cexec.system.storage.directory_use import ENDLESS, LEAST, DirectoryUse

MEBIBYTE = 1 << 20


def size_of(path: Path) -> int:
    use = DirectoryUse(str(path))
    while not use.advance():
        pass
    return use.size


def test_files_in_directories_of_any_depth_count(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "one").write_bytes(os.urandom(MEBIBYTE))
    (tmp_path / "a" / "b" / "two").write_bytes(os.urandom(2 * MEBIBYTE))
    assert 3 * MEBIBYTE <= size_of(tmp_path) < 4 * MEBIBYTE


def test_holes_do_not_count_and_names_do(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    for number in range(1000):
        (tmp_path / str(number)).touch()
    assert 1000 * LEAST <= size_of(tmp_path) < 8 * MEBIBYTE


def test_a_file_with_two_names_counts_once(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(os.urandom(MEBIBYTE))
    os.link(tmp_path / "one", tmp_path / "two")
    assert MEBIBYTE <= size_of(tmp_path) < 1.5 * MEBIBYTE


def test_links_are_not_followed(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "large").write_bytes(os.urandom(MEBIBYTE))
    (inside / "link").symlink_to(outside)
    (inside / "loop").symlink_to(inside)
    assert size_of(inside) < MEBIBYTE


def test_what_goes_while_it_is_looked_at_is_no_failure(tmp_path: Path) -> None:
    assert size_of(tmp_path / "nothing") == 0


def test_a_look_takes_little_time_and_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(500):
        (tmp_path / str(number)).touch()
    whole = size_of(tmp_path)
    clock = iter(range(1_000_000))
    monkeypatch.setattr(directory_use, "monotonic", lambda: float(next(clock)) * directory_use.SLICE / 50)
    use = DirectoryUse(str(tmp_path))
    looks = 1
    while not use.advance():
        looks += 1
    assert (use.size, looks > 5) == (whole, True)
    assert use.seconds > 0.0
    assert not use.advance()  # another round


def test_a_path_that_is_too_long_counts_as_endless(tmp_path: Path) -> None:
    """Else a program could hide what it writes."""
    above = os.open(tmp_path, os.O_RDONLY)
    for _ in range(30):
        os.mkdir("d" * 200, dir_fd=above)
        below = os.open("d" * 200, os.O_RDONLY, dir_fd=above)
        os.close(above)
        above = below
    os.close(above)
    assert size_of(tmp_path) >= ENDLESS
