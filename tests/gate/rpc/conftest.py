"""A service that runs shell commands, a gRPC server on it, and a caller, for all tests of a module."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.environment import local_environment
from tests.gate.rpc.servers import RpcServer
from tests.service import Application, Service


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Application:
    return Application(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def worker(application: Application) -> Iterator[Service]:
    started = Service(application, ["sh", "-c"], ["--allow-args", "--name", "one", "-j", "8"])
    yield started
    started.close()


@pytest.fixture(scope="module")
def server(worker: Service, application: Application, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RpcServer]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in local_environment().items():
            patch.setenv(name, value)
        with RpcServer(tmp_path_factory.mktemp("gate"), [application.public]) as started:
            yield started


@pytest.fixture(scope="module")
def token(server: RpcServer) -> str:
    return server.token("tests")


@pytest.fixture(scope="module")
def cluster(server: RpcServer, token: str) -> Iterator[Any]:
    with server.stub(token) as stub:
        yield stub
