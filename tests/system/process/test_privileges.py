"""What a process gives up: core files, looks into its memory, new rights.

The attacks are in tests/commands/test_containment.py.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from cexec.errors import LocalError
from cexec.system.process.privileges import Account, forbid_new_privileges, guard_memory
from cexec.system.storage.keyfile import forbid_core_files
from tests.needs import skip_for_want_of

PR_SET_DUMPABLE = 4


def wait_status(act: Callable[[], None], place: Path) -> int:
    """How a child ends that does this, with a directory of its own for a core file."""
    pid = os.fork()
    if pid == 0:
        try:
            os.chdir(place)
            hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
            resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
            # A command that another test has run in this process may have guarded its memory for good.
            ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
            act()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1]


def crash() -> None:
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGSEGV)


@pytest.mark.parametrize("guard", [guard_memory, forbid_core_files])
def test_a_crash_leaves_no_core_file(guard: Callable[[], None], tmp_path: Path) -> None:
    if not os.WCOREDUMP(wait_status(crash, tmp_path)):
        skip_for_want_of("core files")

    def guarded() -> None:
        guard()
        crash()

    status = wait_status(guarded, tmp_path)
    assert (os.WTERMSIG(status), os.WCOREDUMP(status)) == (signal.SIGSEGV, False)


def test_forked_processes_are_guarded_and_programs_are_not(tmp_path: Path) -> None:
    def act() -> None:
        guard_memory()
        forbid_new_privileges()
        before = os.stat("/proc/self/mem").st_uid if os.geteuid() else 0
        pid = os.fork()
        if pid == 0:
            status = Path("/proc/self/status").read_text()
            os._exit(0 if "NoNewPrivs:\t1" in status and before == 0 else 1)
        assert os.waitpid(pid, 0)[1] == 0
        os.execv(
            "/bin/sh", ["sh", "-c", "grep -q 'NoNewPrivs:.1' /proc/self/status && cat /proc/$$/environ >/dev/null"]
        )

    assert wait_status(act, tmp_path) == 0


def test_a_user_whom_the_system_refuses_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*numbers: int) -> None:
        raise PermissionError(1, os.strerror(1))

    monkeypatch.setattr(os, "setgroups", lambda groups: None)
    monkeypatch.setattr(os, "setresgid", refuse)
    with pytest.raises(LocalError, match="cannot become the user worker: operation not permitted"):
        Account("worker", 1, 1, [], "/", "/bin/sh").become({})


def test_a_user_who_cannot_read_python_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("setgroups", "setresgid", "setresuid"):
        monkeypatch.setattr(os, name, lambda *numbers: None)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(LocalError, match=r"the user worker cannot read .*, where Python is; install cexec where every"):
        Account("worker", 1, 1, [], "/", "/bin/sh").become({})
