"""cexec under a program that has left it few descriptors: one line, never a traceback."""

from __future__ import annotations

import resource
import subprocess
from functools import partial

import pytest

from tests.conftest import StartService
from tests.environment import command, local_environment
from tests.service import Application
from tests.waiting import PATIENCE

MOST = 12  # free descriptors that are enough for each call


@pytest.mark.parametrize("options", [[], ["--hold"], ["--explain"]], ids=["plain", "held", "explained"])
def test_too_few_descriptors_are_told(service: StartService, application: Application, options: list[str]) -> None:
    """Regression: where the last ones were used up by a connection, the message needed a module that needed one."""
    service("true")
    statuses = []
    for free in range(3, MOST + 1):
        ended = subprocess.run(
            command("cexec", *options, application.public),
            stdin=subprocess.DEVNULL,
            env=local_environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            preexec_fn=partial(resource.setrlimit, resource.RLIMIT_NOFILE, (3 + free, 3 + free)),
        )
        statuses.append(ended.returncode)
        assert "Traceback" not in ended.stderr, f"with {free} free descriptors"
        if ended.returncode:
            assert ended.returncode == 111 and "too many open files" in ended.stderr, f"with {free} free descriptors"
    assert (statuses[0], statuses[-1]) == (111, 0)
