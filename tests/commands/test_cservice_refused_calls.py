"""cservice(1) where the kernel refuses it a system call that it can do without: containers filter them."""

from __future__ import annotations

import time

import psutil
import pytest

from tests.conftest import StartService
from tests.refusing import NUMBERS, refusing
from tests.service import Application

pytestmark = pytest.mark.skipif(not NUMBERS, reason="the numbers of system calls on this machine")


@pytest.mark.parametrize("error", ["EPERM", "ENOSYS"])
@pytest.mark.parametrize("call", list(NUMBERS))
def test_a_worker_does_without(service: StartService, application: Application, call: str, error: str) -> None:
    """Regression: without recvmmsg it heard nothing and never slept; without memfd_create it failed every job."""
    worker = service("cat", wrapper=refusing(call, error, []))
    result = application.run(input=b"hello")
    assert (result.returncode, result.stdout) == (0, b"hello"), result.stderr
    process = psutil.Process(worker.pid)
    before = sum(process.cpu_times()[:2])
    time.sleep(1.0)  # the second of which it must use little
    assert sum(process.cpu_times()[:2]) - before < 0.3
