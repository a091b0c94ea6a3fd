"""One service for all tests of a module, whose jobs are shell scripts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.python.clients import ALLOW, SHELL
from tests.service import Application, Service


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Application, Service]]:
    """An application, and the worker that serves it."""
    application = Application(tmp_path_factory.mktemp("worker"))
    service = Service(application, SHELL, ALLOW)
    yield application, service
    service.close()


@pytest.fixture
def key(worker: tuple[Application, Service]) -> Path:
    """The client key of that application."""
    return worker[0].public
