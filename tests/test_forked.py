"""A command that tests/forked.py has forked is, for itself and for others, as one that was started."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests import forked
from tests.conftest import MakeLab
from tests.environment import command, local_environment
from tests.lab import Host
from tests.service import Application, Service

Running = subprocess.Popen[str] | forked.Child
# What a job's process has open, each kind once: it may not have closed the program's ends of its pipes yet.  It looks
# into /proc when the program has started, which may be now.
LISTING = "readlink /proc/$PPID/fd/* | sed 's/[:#].*//; /^.proc/d' | sort -u; readlink /proc/$PPID/cwd /proc/$PPID/exe"


@contextmanager
def serving(tmp_path: Path, fork: bool, host: Host | None = None) -> Iterator[Service]:
    application = Application(tmp_path)
    launcher = None if fork else command("cservice")
    service = Service(application, ["sh", "-c", LISTING], host=host, environment={"MARK": "x=y z"}, launcher=launcher)
    try:
        assert isinstance(service.process, forked.Child) is fork
        yield service
    finally:
        service.close()


def seen(service: Service) -> dict[str, object]:
    """What /proc shows of it, without what differs between any two starts."""
    process = psutil.Process(service.pid)
    status = (Path("/proc") / str(service.pid) / "status").read_text().splitlines()
    kept = ("Cap", "Gid", "Groups", "Name", "NoNewPrivs", "Sig", "Threads", "Uid", "Umask", "Seccomp")
    environment = {name: value for name, value in process.environ().items() if name != "TEST_SERVICE_MARK"}
    return {
        "argv": process.cmdline(), "environment": environment, "parent": process.ppid(), "directory": process.cwd(),
        "program": process.exe(), "descriptors": process.num_fds(), "group": os.getpgid(service.pid),
        "session": os.getsid(service.pid), "nice": process.nice(), "children": len(process.children(recursive=True)),
        "limits": Path(f"/proc/{service.pid}/limits").read_text(),
        "owner": Path(f"/proc/{service.pid}/mem").stat().st_uid,
        "status": [line for line in status if line.startswith(kept) and not line.startswith("SigQ")],
    }  # fmt: skip


def test_nobody_sees_a_difference(tmp_path: Path) -> None:
    with serving(tmp_path, fork=True) as service:
        ours, output = seen(service), service.application.run()
    with serving(tmp_path, fork=False) as service:
        assert ours == seen(service)
        started = service.application.run()
    assert (output.returncode, output.stdout, output.stderr) == (started.returncode, started.stdout, started.stderr)
    assert started.returncode == 0


def test_it_is_in_the_network_that_it_is_given(tmp_path: Path, lab: MakeLab) -> None:
    host = lab(1).host(1)
    with serving(tmp_path, fork=True, host=host) as service:
        assert os.readlink(f"/proc/{service.pid}/ns/net") == os.readlink(host.path) != os.readlink("/proc/self/ns/net")
        assert service.application.run(host=host).returncode == 0


def ignored_signal(patch: pytest.MonkeyPatch) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the fixture of all tests takes it back


def other_locale(patch: pytest.MonkeyPatch) -> None:
    patch.setenv("LC_ALL", "C")


def other_nice(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(os, "getpriority", lambda *_: 7)


@pytest.mark.parametrize("change", [ignored_signal, other_locale, other_nice])
def test_what_would_be_another_start_is_refused(
    change: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    argv = command("cservice", Application(tmp_path).secret, "true")
    first = forked.start(argv, env=local_environment())
    assert first is not None
    first.kill()
    change(monkeypatch)
    assert forked.start(argv, env=local_environment()) is None
    assert first.wait() == -signal.SIGKILL


@pytest.mark.parametrize("argv", [["true"], ["sh", "-c", "true"], command("cmap", "--version")])
def test_other_commands_are_refused(argv: list[str]) -> None:
    assert forked.start(argv, env=local_environment()) is None


def test_the_process_that_forks_is_started_again_if_a_test_has_ended_it(tmp_path: Path) -> None:
    with serving(tmp_path, fork=True):
        pass
    forked.servers[-1].process.kill()
    forked.servers[-1].process.wait()
    with serving(tmp_path, fork=True):
        pass


def test_a_wait_has_an_end(tmp_path: Path) -> None:
    with serving(tmp_path, fork=True) as service:
        began = time.monotonic()
        with pytest.raises(subprocess.TimeoutExpired):
            service.process.wait(0.05)
        assert time.monotonic() - began >= 0.05
        service.process.terminate()
        assert service.process.wait() == 0 == service.process.returncode
        service.process.kill()  # it has ended, and its number may be another's
