"""What all roll calls among simulated workers share: keys that are the same in every run."""

from __future__ import annotations

import random

import pytest

from cexec.protocol.base import sodium


@pytest.fixture(autouse=True)
def same_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random keys would let a census's filter hide a worker by chance, now and then (protocol.md section 2.2)."""
    monkeypatch.setattr(sodium, "random_bytes", random.Random(1).randbytes)
