"""What is said of a system call that nobody expected to fail, and of a directory that cannot be written."""

from __future__ import annotations

import errno
import os
import shlex
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from cexec.system.reason import failed_call, why_not_writable
from tests.environment import command, local_environment
from tests.service import Application


def test_what_can_be_done_is_said_where_it_is_known() -> None:
    assert failed_call(OSError(errno.EMFILE, "Too many open files")) == (
        "a system call failed: too many open files; raise ulimit -n"
    )
    assert failed_call(OSError(errno.ENOENT, "No such file or directory", b"/x")) == (
        "a system call failed for /x: no such file or directory"
    )


def test_a_read_only_file_system_is_called_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: `cexec --fetch` and `cmap --stdout` called it a denied permission."""
    assert why_not_writable("/") == "permission denied"
    assert why_not_writable("/no such directory") == "permission denied"
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_flag=os.ST_RDONLY | os.ST_NOSUID))
    assert why_not_writable("/") == "read-only file system"


@pytest.mark.parametrize(
    ("name", "words", "status"),
    [
        ("cexec", ["--fetch", "o", "PUBLIC"], 111),
        ("cexec-ssh", ["--links", "l"], 255),
        ("ckeygen", ["k"], 111),
        ("cmap", ["--state", "j", "PUBLIC", ":::", "a"], 255),
    ],
)
def test_a_working_directory_that_has_been_removed(tmp_path: Path, name: str, words: list[str], status: int) -> None:
    """Regression: it was a traceback, or said to be the fault of standard output."""
    application = Application(tmp_path)
    argv = command(name, *(str(application.public) if word == "PUBLIC" else word for word in words))
    (tmp_path / "gone").mkdir()
    script = f"rmdir ../gone && exec {shlex.join(argv)}"
    ended = subprocess.run(
        ["sh", "-c", script], cwd=tmp_path / "gone", env=local_environment(), capture_output=True, text=True, timeout=30
    )
    assert (ended.returncode, ended.stdout) == (status, "")
    assert ended.stderr == f"{name}: the working directory has been removed; go to another one by cd\n"
