"""Paths that nobody else can change, and trees that are hard to remove."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from cexec.system.storage.directories import NotOursError, make_own, open_own, open_trusted, remove_tree
from tests.needs import NOBODY, require_second_user

DEPTH = 3000  # more than Python's stack and the usual number of descriptors


def reached(path: str) -> os.stat_result:
    fd = open_trusted(path)
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def removed(name: str, place: Path) -> bool:
    fd = os.open(place, os.O_RDONLY)
    try:
        remove_tree(name, fd)
    finally:
        os.close(fd)
    return not os.path.lexists(place / name)


def test_a_path_of_roots_and_ours_is_trusted_with_its_links(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "relative").symlink_to("a/../a")
    (tmp_path / "absolute").symlink_to(tmp_path / "relative")
    for path in ("a/b", "./a//b/", "relative/b", "absolute/b"):
        assert os.path.samestat(reached(f"{tmp_path}/{path}"), (tmp_path / "a" / "b").stat())
    assert os.path.samestat(reached("/"), os.stat("/"))


def test_only_a_sticky_directory_may_be_written_to_by_others(tmp_path: Path) -> None:
    (tmp_path / "shared" / "own").mkdir(parents=True)
    for mode in (0o777, 0o770, 0o702, 0o720):
        (tmp_path / "shared").chmod(mode)
        with pytest.raises(NotOursError):
            open_trusted(f"{tmp_path}/shared/own")
        (tmp_path / "shared").chmod(mode | stat.S_ISVTX)
        reached(f"{tmp_path}/shared/own")


@pytest.mark.parametrize("component", ["a", "a/b", "a/link"])
def test_no_component_belongs_to_another_user(component: str, tmp_path: Path) -> None:
    require_second_user()
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    (tmp_path / "a" / "link").symlink_to("b")
    reached(f"{tmp_path}/a/link/c")
    os.lchown(tmp_path / component, NOBODY, NOBODY)
    with pytest.raises(NotOursError):
        open_trusted(f"{tmp_path}/a/link/c")


@pytest.mark.parametrize(
    ("path", "number"),
    [("", errno.ENOTDIR), ("relative", errno.ENOTDIR), ("/tmp\0x", errno.ENOTDIR), ("/no/such", errno.ENOENT),
     ("TMP/file/x", errno.ENOTDIR), ("TMP/file", errno.ENOTDIR), ("TMP/loop", errno.ELOOP)],
)  # fmt: skip
def test_what_is_no_directory_is_an_error_and_leaves_no_descriptor(path: str, number: int, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError) as caught:
        open_trusted(path.replace("TMP", str(tmp_path)))
    assert caught.value.errno == number
    assert os.listdir("/proc/self/fd") == before


def test_our_own_directory_is_made_and_only_we_may_enter_it(tmp_path: Path) -> None:
    path = f"{tmp_path}/own"
    with pytest.raises(FileNotFoundError):
        open_own(path)
    os.close(make_own(path))
    os.close(open_own(path))
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o700
    os.symlink("own", f"{tmp_path}/link")
    Path(tmp_path / "file").touch()
    for name in ("link", "file"):
        with pytest.raises(NotOursError):
            make_own(f"{tmp_path}/{name}")
    os.chmod(path, 0o710)
    with pytest.raises(NotOursError):
        open_own(path)


def test_a_tree_deeper_than_any_stack_is_removed(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(DEPTH):
        os.mkdir("d", dir_fd=fd)
        above, fd = fd, os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(above)
    os.close(os.open("file", os.O_CREAT, dir_fd=fd))
    os.close(fd)
    assert removed("d", tmp_path)


def test_what_a_link_leads_to_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "precious" / "sub").mkdir(parents=True)
    (tmp_path / "precious").chmod(0o500)
    (tmp_path / "tree" / "a").mkdir(parents=True)
    for link in ("tree/link", "tree/a/link", "top"):
        (tmp_path / link).symlink_to(tmp_path / "precious")
    assert removed("tree", tmp_path)
    assert not removed("top", tmp_path)
    assert stat.S_IMODE((tmp_path / "precious").stat().st_mode) == 0o500 and (tmp_path / "precious" / "sub").exists()
    assert removed("absent", tmp_path)
