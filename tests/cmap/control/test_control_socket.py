"""The socket beside a journal: its mode, long names, what a killed run has left, and what others have put there."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from cexec.cmap.control.control_place import ENDING, control_path, peer_of
from cexec.cmap.control.control_socket import MODE, ControlSocket
from cexec.errors import LocalError
from tests.needs import NOBODY, require_second_user

LONGEST_NAME = 255 - len(ENDING)  # of a journal: the name of a file has at most 255 bytes


@contextmanager
def under(umask: int) -> Iterator[None]:
    before = os.umask(umask)
    try:
        yield
    finally:
        os.umask(before)


def bound(path: Path) -> None:
    """A socket that nobody listens at, as a killed run leaves it."""
    with closing(socket.socket(socket.AF_UNIX)) as one:
        one.bind(os.fspath(path))


def link_to_socket(path: Path) -> None:
    bound(path.with_name("other"))
    path.symlink_to("other")


@pytest.mark.parametrize("umask", [0, 0o022, 0o777])
def test_nobody_but_its_user_may_connect(tmp_path: Path, umask: int) -> None:
    with under(umask), closing(ControlSocket(os.fspath(tmp_path / "journal"))):
        status = (tmp_path / "journal-control").stat()
        assert stat.S_ISSOCK(status.st_mode) and stat.S_IMODE(status.st_mode) == MODE == 0o600
        assert os.listdir(tmp_path) == ["journal-control"]
    assert os.listdir(tmp_path) == []


def test_the_kernel_says_who_is_at_the_other_end(tmp_path: Path) -> None:
    with closing(ControlSocket(os.fspath(tmp_path / "journal"))) as place, socket.socket(socket.AF_UNIX) as asker:
        asker.connect(os.fspath(tmp_path / "journal-control"))
        connection, _ = place.listener.accept()
        with connection:
            assert peer_of(connection) == peer_of(asker) == os.geteuid()


@pytest.mark.parametrize(
    "way", ["j", "d/" * 100 + "j", "n" * LONGEST_NAME, "\udcff" * 100 + "é" * 70], ids=["short", "deep", "long", "odd"]
)
def test_names_that_are_longer_than_an_address(tmp_path: Path, way: str) -> None:
    journal = tmp_path / way
    journal.parent.mkdir(parents=True, exist_ok=True)
    with closing(ControlSocket(os.fspath(journal))):
        assert os.listdir(journal.parent) == [journal.name + ENDING]
    assert os.listdir(journal.parent) == []


def test_a_link_to_a_journal_has_the_socket_of_the_journal(tmp_path: Path) -> None:
    (tmp_path / "place").mkdir()
    (tmp_path / "link").symlink_to("place/journal")
    assert control_path(os.fspath(tmp_path / "link")) == os.fspath(tmp_path / "place" / "journal-control")


def test_what_killed_runs_have_left_is_replaced(tmp_path: Path) -> None:
    bound(tmp_path / "journal-control")
    with closing(ControlSocket(os.fspath(tmp_path / "journal"))):
        (name,) = os.listdir(tmp_path)
        held = os.lstat(tmp_path / name).st_ino
        assert name == "journal-control"
    assert os.listdir(tmp_path) == [] and held


def test_a_run_that_was_killed_before_its_socket_had_its_name_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """Stands for SIGKILL: nothing is removed."""

    def killed(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", killed)
        patch.setattr(os, "unlink", killed)
        with pytest.raises(Killed):
            ControlSocket(os.fspath(tmp_path / "journal"))
    (left,) = os.listdir(tmp_path)
    assert left.startswith(".cmap-")
    with closing(ControlSocket(os.fspath(tmp_path / "journal"))):
        assert os.listdir(tmp_path) == ["journal-control"]


PLANTED: dict[str, Callable[[Path], object]] = {
    "a file": lambda path: path.write_text("precious"),
    "a directory": Path.mkdir,
    "a FIFO": os.mkfifo,
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "a link to a file": lambda path: path.symlink_to(__file__),
    "a link to a socket": lambda path: link_to_socket(path),
}


@pytest.mark.parametrize("what", PLANTED)
def test_what_is_no_socket_stays_and_is_told(tmp_path: Path, what: str) -> None:
    place = tmp_path / "journal-control"
    PLANTED[what](place)
    before = sorted(os.listdir(tmp_path)), place.lstat().st_ino
    with pytest.raises(LocalError, match=r"journal-control is there and is no socket of this user$"):
        ControlSocket(os.fspath(tmp_path / "journal"))
    assert (sorted(os.listdir(tmp_path)), place.lstat().st_ino) == before


def test_another_users_socket_stays(tmp_path: Path) -> None:
    require_second_user()
    tmp_path.chmod(0o1777)
    bound(tmp_path / "journal-control")
    os.chown(tmp_path / "journal-control", NOBODY, NOBODY)
    with pytest.raises(LocalError, match="no socket of this user"):
        ControlSocket(os.fspath(tmp_path / "journal"))
    assert (tmp_path / "journal-control").lstat().st_uid == NOBODY


@pytest.mark.parametrize("what", ["file", "socket", "nothing"])
def test_only_its_own_name_is_removed(tmp_path: Path, what: str) -> None:
    """The user has removed it, and perhaps something else has its name."""
    place = tmp_path / "journal-control"
    control = ControlSocket(os.fspath(tmp_path / "journal"))
    kept = tmp_path / "kept"
    place.rename(kept)  # so that its inode is not given to the next one
    if what == "file":
        place.touch()
    elif what == "socket":
        bound(place)
    control.close()
    assert sorted(os.listdir(tmp_path)) == (["journal-control"] if what != "nothing" else []) + ["kept"]


def test_a_place_where_no_socket_can_be_made_is_told(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match=r"cannot listen at .*/none/journal-control: no such file or directory"):
        ControlSocket(os.fspath(tmp_path / "none" / "journal"))
    with pytest.raises(LocalError, match="file name too long"):
        ControlSocket(os.fspath(tmp_path / ("n" * (LONGEST_NAME + 1))))
    assert os.listdir(tmp_path) == []
