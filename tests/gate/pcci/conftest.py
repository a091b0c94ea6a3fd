"""One cluster for all tests of PCCI's paths."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.gate.pcci.clusters import Cluster
from tests.needs import require_namespaces


@pytest.fixture(scope="package")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    require_namespaces()
    with ExitStack() as stack:
        yield Cluster(tmp_path_factory.mktemp("pcci"), stack)
