"""Files in directories where everybody can make files: links, files of others, and what others can write to."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cexec.system.storage.directories import NotOursError
from cexec.system.storage.own_files import check_output, check_own, open_output, open_own
from tests.needs import NOBODY, require_second_user

WRITE = os.O_RDWR | os.O_CREAT
Check = Callable[[str], object]


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A directory such as /tmp."""
    made = tmp_path / "shared"
    made.mkdir()
    made.chmod(0o1777)
    return made


def opened(path: str) -> None:
    os.close(open_own(path, WRITE))


def written(path: str) -> None:
    os.close(open_output(path, WRITE))


PRIVATE: list[Check] = [opened, check_own]
OUTPUT: list[Check] = [written, check_output]


@pytest.mark.parametrize("check", PRIVATE + OUTPUT)
def test_a_file_of_this_user_is_his(check: Check, shared: Path) -> None:
    for name in ("new", "old"):
        check(str(shared / name))
        _made(shared / "old")


@pytest.mark.parametrize("check", PRIVATE + OUTPUT)
def test_a_planted_link_is_not_followed(check: Check, shared: Path, tmp_path: Path) -> None:
    """`cmap --state` emptied the file that a link in the place of its lock led to."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (shared / "link").symlink_to(victim)
    with pytest.raises(NotOursError, match="it is a symbolic link"):
        check(str(shared / "link"))
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("check", PRIVATE + OUTPUT)
def test_a_planted_link_to_nothing_makes_nothing(check: Check, shared: Path, tmp_path: Path) -> None:
    (shared / "link").symlink_to(tmp_path / "new")
    with pytest.raises(NotOursError):
        check(str(shared / "link"))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("check", PRIVATE + OUTPUT)
def test_a_hard_link_where_others_can_make_files_is_refused(check: Check, shared: Path, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    os.link(tmp_path / "victim", shared / "link")
    with pytest.raises(NotOursError, match="hard link"):
        check(str(shared / "link"))


@pytest.mark.parametrize("check", PRIVATE + OUTPUT)
def test_a_file_of_another_user_is_refused(check: Check, shared: Path) -> None:
    require_second_user()
    (shared / "planted").write_text("x")
    os.chown(shared / "planted", NOBODY, NOBODY)
    with pytest.raises(NotOursError, match="another user"):
        check(str(shared / "planted"))


@pytest.mark.parametrize("check", OUTPUT)
def test_a_fifo_of_another_user_is_refused_and_not_waited_for(check: Check, shared: Path) -> None:
    require_second_user()
    os.mkfifo(shared / "fifo")
    os.chown(shared / "fifo", NOBODY, NOBODY)
    with pytest.raises(NotOursError, match="another user"):
        check(str(shared / "fifo"))


@pytest.mark.parametrize("check", PRIVATE)
@pytest.mark.parametrize(("mode", "here"), [(0o666, True), (0o602, True), (0o660, False)])
def test_what_others_can_write_to_is_nobodys_own(
    mode: int, here: bool, check: Check, shared: Path, tmp_path: Path
) -> None:
    """`here`: also where nobody else can make files."""
    for directory in (shared, tmp_path):
        (directory / "file").write_text("x")
        (directory / "file").chmod(mode)
        if directory is shared or here:
            with pytest.raises(NotOursError, match="other users can write to it"):
                check(str(directory / "file"))
        else:
            check(str(directory / "file"))


@pytest.mark.parametrize("check", PRIVATE)
def test_no_special_file_is_opened(check: Check, tmp_path: Path) -> None:
    with pytest.raises((NotOursError, IsADirectoryError)):
        check(str(tmp_path))


def test_outside_of_shared_directories_outputs_are_opened_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "file").chmod(0o666)
    (tmp_path / "link").symlink_to(tmp_path / "file")
    os.link(tmp_path / "file", tmp_path / "second")
    for name in ("link", "second", "file"):
        check_output(str(tmp_path / name))
        os.close(open_output(str(tmp_path / name), os.O_WRONLY))


def test_descriptors_are_not_leaked(shared: Path) -> None:
    os.link(_made(shared / "one"), shared / "two")
    before = len(os.listdir("/proc/self/fd"))
    for check in (opened, written):
        with pytest.raises(NotOursError):
            check(str(shared / "two"))
    assert len(os.listdir("/proc/self/fd")) == before


def _made(path: Path) -> Path:
    path.write_text("x")
    path.chmod(0o644)
    return path
