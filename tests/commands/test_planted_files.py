"""What another user has put where a command opens a file: it is refused with a reason, at once, and nothing is harmed.

Each row is a place in a directory such as /tmp, and a command that opens it.  What is planted there is a FIFO, which
would be waited for, a link to a file of the victim, which would be written to, or a file of the other user.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests import preloaded
from tests.environment import clean_environment, command
from tests.needs import NOBODY, require_second_user
from tests.service import Application

PRECIOUS = "precious\n"
# The last one is of a kernel that follows no links of others in such a directory (fs.protected_symlinks).
REASONS = ("belongs to another user", "is a symbolic link", "is a FIFO", "permission denied")
# The place, and the command; those of cmap stop before they look for a worker.
PLACES = {
    "the key of cservice": ("other", ["cservice", "shared/other", "cat"]),
    "the key of crat": ("other.pub", ["crat", "shared/other.pub"]),
    "the key of cexec": ("other.pub", ["cexec", "-n", "shared/other.pub"]),
    "the key of cmap": ("other.pub", ["cmap", "shared/other.pub", ":::", "a"]),
    "the private key of ckeygen": ("other", ["ckeygen", "--list", "shared/other"]),
    "the record of ckeygen": ("app.issued", ["ckeygen", "--list", "shared/app"]),
    "the record that ckeygen adds to": ("app.issued", ["ckeygen", "--client", "x", "shared/app", "x.pub"]),
    "the output of crat": ("log", ["crat", "--output", "shared/log", "app.pub"]),
    "the journal of cmap": ("state", ["cmap", "--state", "shared/state", "app.pub", ":::", "a"]),
    "the lock of that": ("state-lock", ["cmap", "--state", "shared/state", "app.pub", ":::", "a"]),
    "the joblog of cmap": ("log", ["cmap", "--joblog", "shared/log", "--overwrite", "app.pub", ":::", "a"]),
    "the report of cmap": ("page", ["cmap", "--report", "shared/page", "--overwrite", "app.pub", ":::", "a"]),
    "the results of cmap": ("out", ["cmap", "--results", "shared/out", "app.pub", ":::", "a"]),
    "the table of cmap": ("t.csv", ["cmap", "--results", "shared/t.csv", "--overwrite", "app.pub", ":::", "a"]),
}


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory has an application and a file of the victim, and `shared` is such as /tmp."""
    require_second_user()
    monkeypatch.chdir(tmp_path)
    made = tmp_path / "shared"
    made.mkdir()
    made.chmod(0o1777)
    for directory in (tmp_path, made):
        Application(directory)
    (tmp_path / "victim").write_text(PRECIOUS)
    (tmp_path / "victim").chmod(0o600)
    return made


def plant(kind: str, path: Path) -> None:
    if kind == "fifo":
        os.mkfifo(path, 0o600)
    elif kind == "directory":
        path.mkdir(0o777)
        path.chmod(0o777)
    elif kind == "link":
        path.symlink_to("../victim")
    else:
        path.write_text("")
        path.chmod(0o600)
    os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


@pytest.mark.parametrize(
    ("place", "kind"),
    [*((place, kind) for place in PLACES for kind in ("fifo", "link", "file")), ("the results of cmap", "directory")],
)
def test_what_another_user_has_planted_is_refused_at_once(place: str, kind: str, shared: Path, tmp_path: Path) -> None:
    """A FIFO held cservice, crat, cexec, cmap and ckeygen up for ever in the place of a key or of APP.issued."""
    name, (program, *words) = PLACES[place]
    plant(kind, shared / name)
    argv = command(program, *words)
    ended = preloaded.run_text(argv, env=clean_environment(), timeout=60)
    assert ended.returncode in (100, 101, 111), ended.stderr
    assert any(words in ended.stderr for words in REASONS), ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert (tmp_path / "victim").read_text() == PRECIOUS
    assert not (tmp_path / "x.pub").exists()
