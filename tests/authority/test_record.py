"""The record of what was issued, where another user has put something in its place."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cexec.authority.record import HEAD, OpenRecord, read_record
from cexec.errors import KeyFileError, LocalError
from tests.needs import NOBODY, require_second_user


def opened(app: str) -> None:
    with OpenRecord(app):
        pass


Reader = Callable[[str], object]
BOTH: list[Reader] = [opened, read_record]


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A directory such as /tmp."""
    made = tmp_path / "shared"
    made.mkdir()
    made.chmod(0o1777)
    return made


@pytest.mark.parametrize("read", BOTH)
def test_a_record_of_this_user_is_read_wherever_it_is(read: Reader, shared: Path, tmp_path: Path) -> None:
    for directory in (shared, tmp_path):
        (directory / "app.issued").write_text(HEAD)
        (directory / "app.issued").chmod(0o600)
        read(str(directory / "app"))


@pytest.mark.parametrize("read", BOTH)
def test_a_record_of_another_user_is_refused(read: Reader, shared: Path) -> None:
    require_second_user()
    (shared / "app.issued").write_text(HEAD)
    os.chown(shared / "app.issued", NOBODY, NOBODY)
    with pytest.raises(LocalError, match="it belongs to another user"):
        read(str(shared / "app"))
    assert (shared / "app.issued").read_text() == HEAD


@pytest.mark.parametrize("read", BOTH)
@pytest.mark.parametrize("here", [True, False], ids=["where all can make files", "elsewhere"])
def test_a_pipe_is_refused_and_not_waited_for(read: Reader, here: bool, shared: Path, tmp_path: Path) -> None:
    """Regression: `ckeygen --list` waited for ever for a FIFO in the place of APP.issued."""
    app = (shared if here else tmp_path) / "app"
    os.mkfifo(f"{app}.issued", 0o600)
    with pytest.raises(KeyFileError, match="is no regular file"):
        read(str(app))


@pytest.mark.parametrize("read", BOTH)
def test_a_link_is_not_followed(read: Reader, shared: Path, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "victim").chmod(0o600)
    for directory in (shared, tmp_path):
        (directory / "app.issued").symlink_to(tmp_path / "victim")
        with pytest.raises(LocalError, match="symbolic link"):
            read(str(directory / "app"))
    assert (tmp_path / "victim").read_text() == "precious"
