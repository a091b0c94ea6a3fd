"""A blocking `map` between its two threads: what belongs to the loop is read in the loop."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cexec import Client
from cexec.python.in_flight import InFlight


@pytest.fixture
def readers(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[threading.Thread]]:
    """The threads that have read how many jobs may be in hand."""
    found: set[threading.Thread] = set()
    window = InFlight.window.fget  # type: ignore[attr-defined]

    def noted(flight: InFlight) -> int:
        found.add(threading.current_thread())
        return int(window(flight))

    monkeypatch.setattr(InFlight, "window", property(noted))
    yield found


def test_only_the_loop_counts_its_leases(key: Path, readers: set[threading.Thread]) -> None:
    """Regression: the caller's thread counted them while the loop changed the table of targets."""
    with Client(key) as client:
        assert len(list(client.map([b""] * 100, args=["true"]))) == 100
    assert len(readers) == 1 and threading.current_thread() not in readers
