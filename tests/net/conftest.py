"""What tests of pumps share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.net.pumps import Pair


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()
