"""One coordinator at a time."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cexec.errors import UsageError
from cexec.system.storage.lockfile import Lock, holder
from tests.environment import ROOT
from tests.waiting import PATIENCE


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "state")


def test_the_second_is_told_who_holds_it(path: str) -> None:
    lock = Lock(path)
    with pytest.raises(UsageError, match=f"{path} is in use by process {os.getpid()} on "):
        Lock(path)
    lock.close()
    assert not os.path.exists(f"{path}-lock")
    Lock(path).close()


def test_a_holder_that_was_killed_holds_it_no_longer(path: str) -> None:
    code = f"from cexec.system.storage.lockfile import Lock; l = Lock({path!r}); print('held', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(UsageError, match=f"in use by process {holder.pid} on "):
            Lock(path)
        holder.kill()
    Lock(path).close()


@pytest.mark.parametrize("number", ["99999999999", "9" * 100, "\u00b2", "-1", ""])
def test_a_lock_that_names_no_process_is_no_reason_to_fail(number: str, path: str) -> None:
    """Regression: a planted number that no process can have ended `cmap explain`, and cmap, with a traceback."""
    Path(f"{path}-lock").write_text(f"process {number} on {socket.gethostname()}\n")
    assert holder(path) == ""
    with open(f"{path}-lock") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match=f"{path} is in use by process "):
            Lock(path, patience=0.0)


def test_a_lock_is_waited_for_whose_holder_has_gone(path: str) -> None:
    """As long as a process of the holder has its descriptor: one that has been forked and not begun its program."""
    code = f"from cexec.system.storage.lockfile import Lock; l = Lock({path!r}); import os; os.fork() or input()"
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE) as parent:
        parent.wait()
        with pytest.raises(UsageError, match=f"in use by process {parent.pid} on "):
            Lock(path, patience=0.05)
        letting_go = threading.Timer(0.2, parent.communicate)
        letting_go.start()
        Lock(path, patience=PATIENCE).close()
        letting_go.join()


def test_a_file_that_was_removed_between_open_and_lock_does_not_count(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock = fcntl.flock
    removals = [1]

    def racing(fd: int, how: int) -> None:
        flock(fd, how)
        if removals:
            removals.pop()
            os.unlink(f"{path}-lock")

    monkeypatch.setattr(fcntl, "flock", racing)
    lock = Lock(path)
    with pytest.raises(UsageError):
        Lock(path)
    lock.close()


def test_a_directory_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Lock(str(tmp_path / "no" / "state"))
