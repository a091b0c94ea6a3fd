"""Files in memory."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cexec.system.io.memory_file import open_memory
from tests.environment import ROOT

NOEXEC = Path("/proc/sys/vm/memfd_noexec")  # of one pid namespace; since Linux 6.3
MADE = """
import os
from cexec.system.io.memory_file import open_memory
print(os.readlink(f"/proc/self/fd/{open_memory('x')}"))
"""


def test_its_size_can_be_fixed() -> None:
    fd = open_memory("x", sealable=True)
    os.ftruncate(fd, 10)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 5)
    assert not os.get_inheritable(fd)
    os.close(fd)


def test_a_system_without_such_files_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    with pytest.raises(OSError, match="not implemented"):
        open_memory("x")


@pytest.mark.skipif(not NOEXEC.exists() or os.getuid() != 0, reason="root, and Linux 6.3 or later")
def test_a_kernel_that_allows_no_executable_ones_gives_others() -> None:
    script = f'echo 2 > {NOEXEC} && exec "$@"'
    inside = ["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", script, "sh", sys.executable, "-c", MADE]
    done = subprocess.run(inside, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "/memfd:x (deleted)\n"), done.stderr
