"""Control groups for tests, of version 1 or 2, where this process may make them; else the test is skipped, loudly.

Contract: `with control_group("pids", {"pids.max": "100"}) as path:` makes a group below our own and removes it, and
`with real_job_group() as group:` a `JobGroup` of the kernel.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from cexec.system.process import job_group
from cexec.system.process.job_group import JobGroup
from tests.needs import skip_for_want_of
from tests.waiting import wait_until

ROOT = Path("/sys/fs/cgroup")


@contextmanager
def control_group(controller: str, values: Mapping[str, str]) -> Iterator[Path]:
    """A group that has this controller, with these files written."""
    path = _own_group(controller) / f"cexec-test-{os.getpid()}-{os.urandom(3).hex()}"
    try:
        path.mkdir()
    except OSError:
        skip_for_want_of(f"a {controller} control group")
    try:
        if not all((path / name).exists() for name in values):
            skip_for_want_of(f"a {controller} control group")
        for name, value in values.items():
            (path / name).write_text(value)
        yield path
    finally:
        _remove(path)


@contextmanager
def real_job_group() -> Iterator[JobGroup]:
    """Its place stays claimed, as in a worker; a test that minds sets `job_group.place` itself."""
    job_group.claim_place()
    made = JobGroup.create(f"test-{os.getpid()}-{os.urandom(3).hex()}")
    if made is None:
        skip_for_want_of("a control group of version 2 with cgroup.kill (root or Delegate=, Linux 5.14)")
    try:
        yield made
    finally:
        made.kill()
        wait_until(made.remove)


def _own_group(controller: str) -> Path:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return ROOT / controller / path.lstrip("/")
    return ROOT / path.lstrip("/")  # the last line is that of version 2


def _remove(path: Path) -> None:
    """Ends whatever a test that failed has left in it, faster than it can fork."""
    for _ in range(100):
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in (path / "cgroup.procs").read_text().split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), number)
        try:
            path.rmdir()
        except OSError:
            time.sleep(0.05)  # its processes are still ending
        else:
            return
