"""One service and one `cgate` for all tests of a module; the jobs are shell scripts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.gate.gates import Gate
from tests.python.clients import ALLOW, SHELL
from tests.service import Application, Service


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A worker with four slots; at the end nothing of a job may be left there."""
    service = Service(Application(tmp_path_factory.mktemp("worker")), SHELL, ALLOW)
    yield service
    service.close()


@pytest.fixture(scope="module")
def key(worker: Service) -> Application:
    """The application that it serves."""
    return worker.application


@pytest.fixture(scope="module")
def gate(key: Application, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    running = Gate(key, tmp_path_factory.mktemp("gate") / "state")
    try:
        yield running
    finally:
        running.close()


@pytest.fixture(scope="module")
def http(gate: Gate) -> Iterator[httpx.Client]:
    """An admin's client."""
    with gate.http() as client:
        yield client


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state file of a test that starts its own cgate."""
    return tmp_path / "state"
