"""Names that mean one file, and names that do not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cexec.system.storage.identity import descriptor_of, identify, identify_descriptor


@pytest.fixture(autouse=True)
def _directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkdir("d")
    os.symlink("d", "link")
    Path("d/file").write_text("x")
    os.link("d/file", "hard")
    os.symlink("d/file", "soft")
    os.symlink("d/none", "dangling")
    os.mkfifo("fifo")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("d/file", "link/file"), ("d/file", "hard"), ("d/file", "soft"), ("d/file", "./d/../d/file"),
        ("d/none", "link/none"), ("d/none", "dangling"), ("d", "link"), ("new", "./new"),
    ],
)  # fmt: skip
def test_names_of_one_file(one: str, other: str) -> None:
    assert identify(one).same_file(identify(other))
    assert identify(os.path.abspath(one)).same_file(identify(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("d/file", "d/none"), ("new", "d/new"), ("no/x", "no/x"), ("a\0b", "a\0b"), ("fifo", "fifo"),
        ("/dev/null", "/dev/null"), ("/dev/stdout", "d/file"),
    ],
)  # fmt: skip
def test_names_that_are_no_conflict(one: str, other: str) -> None:
    assert not identify(one).same_file(identify(other))


def test_a_descriptor_is_the_file_that_was_opened() -> None:
    with open("hard", "rb") as file:
        assert identify_descriptor(file.fileno()).same_file(identify("d/file"))
        assert identify(f"/dev/fd/{file.fileno()}").same_file(identify("d/file"))
    assert not identify_descriptor(10**6).same_file(identify_descriptor(10**6))


def test_what_is_no_regular_file_is_named() -> None:
    kinds = {path: identify(path).special for path in ("d", "fifo", "/dev/null", "hard", "soft", "none")}
    assert kinds == {"d": "a directory", "fifo": "a FIFO", "/dev/null": "a device", "hard": "", "soft": "", "none": ""}


def test_names_of_our_own_descriptors() -> None:
    names = ["/dev/stdin", "/dev/stdout", "/dev/../dev/stderr", "/dev/fd/17", "/proc/self/fd/3", "/dev/fd/x", "stdout"]
    assert [descriptor_of(name) for name in names] == [0, 1, 2, 17, 3, None, None]
