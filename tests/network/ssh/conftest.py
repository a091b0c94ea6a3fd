"""Two hosts for programs that were made for ssh: they run on host 1, and host 2 has shell services, `w` and `v`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.lab import Lab
from tests.needs import require_namespaces
from tests.shell_host import ShellHost


@pytest.fixture(scope="session")
def _lab() -> Iterator[Lab]:
    require_namespaces()
    with Lab(2) as lab:
        yield lab


@pytest.fixture(scope="session")
def far(_lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShellHost]:
    """The service `w` on the other host, with programs that run here."""
    with ExitStack() as stack:
        directory = tmp_path_factory.mktemp("shell")
        worker = ShellHost(directory, host=_lab.host(2), client=_lab.host(1))
        stack.callback(worker.close)
        yield worker


@pytest.fixture(scope="session")
def further(_lab: Lab, far: ShellHost) -> Iterator[ShellHost]:
    """The service `v` there, with the same key."""
    worker = ShellHost(far.directory, host=_lab.host(2), client=_lab.host(1), name="v", application=far.application)
    yield worker
    worker.close()
