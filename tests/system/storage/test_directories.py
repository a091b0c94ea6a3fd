"""The user's directories, paths that nobody else can change, and trees that are hard to remove."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cexec.errors import LocalError
from cexec.system.storage.directories import (
    NotOursError,
    cache_directory,
    make_own,
    open_own,
    open_trusted,
    remove_tree,
    runtime_directory,
    state_directory,
)
from cexec.system.storage.user_files import config_directory
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


# The user's directories

HOMES = [
    (config_directory, "XDG_CONFIG_HOME", ".config"),
    (state_directory, "XDG_STATE_HOME", ".local/state"),
    (cache_directory, "XDG_CACHE_HOME", ".cache"),
]
WRITTEN = HOMES[1:]


@pytest.mark.parametrize(("directory", "variable", "usual"), HOMES)
def test_a_users_directory_is_named_by_its_variable_or_below_home(
    directory: Callable[..., str | None], variable: str, usual: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert directory({variable: "/x"}) == directory({variable: "/x", "HOME": "/h"}) == "/x/cexec"
    assert directory({"HOME": "/h"}) == f"/h/{usual}/cexec"
    monkeypatch.setenv(variable, "/y")
    assert directory() == "/y/cexec"


@pytest.mark.parametrize(("directory", "variable", "usual"), HOMES)
@pytest.mark.parametrize("value", ["", "relative", "./x", "~"])
def test_a_variable_that_is_no_absolute_path_is_ignored(
    directory: Callable[..., str | None], variable: str, usual: str, value: str
) -> None:
    assert directory({variable: value, "HOME": "/h"}) == f"/h/{usual}/cexec"
    for home in ({}, {"HOME": ""}, {"HOME": "h"}):
        assert directory({variable: value, **home}) is None


@pytest.mark.parametrize(("directory", "variable", "usual"), WRITTEN)
@pytest.mark.parametrize("below", ["", "/made/later"])
def test_nothing_is_written_in_another_users_directory(
    directory: Callable[..., str | None], variable: str, usual: str, below: str, tmp_path: Path
) -> None:
    """`su` keeps the variables."""
    require_second_user()
    (tmp_path / "theirs").mkdir(0o755)
    environ = {variable: f"{tmp_path}/theirs{below}", "HOME": f"{tmp_path}/home"}
    assert directory(environ) == f"{tmp_path}/theirs{below}/cexec"
    os.chown(tmp_path / "theirs", NOBODY, NOBODY)
    assert directory(environ) == f"{tmp_path}/home/{usual}/cexec"
    (tmp_path / "home").mkdir()
    os.chown(tmp_path / "home", NOBODY, NOBODY)
    assert directory(environ) is None


def test_configuration_is_read_in_another_users_directory(tmp_path: Path) -> None:
    require_second_user()
    os.chown(tmp_path, NOBODY, NOBODY)
    assert config_directory({"XDG_CONFIG_HOME": str(tmp_path)}) == f"{tmp_path}/cexec"


@pytest.mark.parametrize(("directory", "variable", "usual"), WRITTEN)
def test_nothing_is_written_where_everybody_can_exchange_it(
    directory: Callable[..., str | None], variable: str, usual: str, tmp_path: Path
) -> None:
    """A group may write there: with a umask of 002 it can in all of a home, and is often the user's own."""
    (tmp_path / "base").mkdir()
    environ = {variable: f"{tmp_path}/base/x"}
    for mode, usable in ((0o775, True), (0o777, False), (0o1777, True)):
        (tmp_path / "base").chmod(mode)
        assert directory(environ) == (f"{tmp_path}/base/x/cexec" if usable else None)


def test_a_file_in_the_way_is_no_directory_to_write_in(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert state_directory({"XDG_STATE_HOME": f"{tmp_path}/file/x"}) is None


def test_the_runtime_directory_is_ours_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    path = runtime_directory()
    assert path == f"{tmp_path}/cexec" == runtime_directory()
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o700
    os.chmod(path, 0o750)
    with pytest.raises(LocalError, match="only this user may enter; remove it"):
        runtime_directory()


def test_a_link_is_not_taken_for_the_runtime_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "elsewhere").mkdir(0o700)
    (tmp_path / "cexec").symlink_to("elsewhere")
    with pytest.raises(LocalError):
        runtime_directory()


def test_another_users_runtime_directory_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_second_user()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "cexec").mkdir(0o700)
    os.chown(tmp_path / "cexec", NOBODY, NOBODY)
    with pytest.raises(LocalError):
        runtime_directory()


@pytest.mark.parametrize("base", ["", "relative", "/no/such"])
def test_without_a_runtime_directory_there_is_one_in_tmp(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", base)
    assert runtime_directory() == f"/tmp/cexec-{os.getuid()}"


def test_a_base_of_another_user_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`su` keeps XDG_RUNTIME_DIR."""
    require_second_user()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    (tmp_path / "run").mkdir(0o700)
    os.chown(tmp_path / "run", NOBODY, NOBODY)
    assert runtime_directory() == f"/tmp/cexec-{os.getuid()}"
    assert os.listdir(tmp_path / "run") == []


def test_a_base_of_root_is_not_used_by_others() -> None:
    """`su` keeps XDG_RUNTIME_DIR in the other direction, too."""
    require_second_user()
    base = Path(tempfile.mkdtemp(dir="/tmp"))
    script = (
        "import os, sys; from cexec.system.storage.directories import runtime_directory\n"
        "os.setgroups([]), os.setgid(int(sys.argv[1])), os.setuid(int(sys.argv[1]))\n"
        "path = runtime_directory(); print(path); os.rmdir(path)"
    )
    for mode, expected in ((0o700, f"/tmp/cexec-{NOBODY}"), (0o755, f"/tmp/cexec-{NOBODY}"), (0o1777, f"{base}/cexec")):
        base.chmod(mode)
        environment = {**os.environ, "XDG_RUNTIME_DIR": str(base)}
        argv = [sys.executable, "-c", script, str(NOBODY)]
        result = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=20)
        assert (result.stdout, result.stderr) == (f"{expected}\n", "")
    (base / "cexec").mkdir(0o700)
    result = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=20)
    assert f"{base}/cexec is not a directory that only this user may enter; remove it" in result.stderr
    (base / "cexec").rmdir()
    base.rmdir()


@pytest.mark.parametrize("mode", [0o777, 0o775])
def test_a_base_that_others_may_write_to_is_used_only_if_it_is_sticky(
    mode: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "run"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(base))
    base.mkdir()
    base.chmod(mode)
    assert runtime_directory() == f"/tmp/cexec-{os.getuid()}"
    base.chmod(mode | stat.S_ISVTX)
    assert runtime_directory() == f"{base}/cexec"
