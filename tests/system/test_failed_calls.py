"""What is said of a system call that nobody expected to fail, and of a directory that cannot be written."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace

import pytest

from cexec.system.reason import failed_call, why_not_writable


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
