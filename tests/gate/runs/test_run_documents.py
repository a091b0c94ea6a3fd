"""The figures of a run that the page shows: when it will be over."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cexec.gate.runs.run_documents import run_document

NOW = 1_800_000_100.0
USUAL = {
    "process": "here 1", "paused": False, "left": 40, "total": 100, "started": NOW - 100, "noted": NOW, "ended": NOW,
    "command": "cmap app.pub", "host": "here", "runs": 1, "counts": {}, "weight": 1, "real": 1.0, "cpu": None,
}  # fmt: skip


def document(rate: float, **changed: object) -> dict[str, Any]:
    """What is told of a run whose figures differ from the usual ones in these."""
    file = SimpleNamespace(id="1", name="run", directory="/", owner="", changed=NOW)
    account = SimpleNamespace(figures=SimpleNamespace(**(USUAL | changed)), rate=lambda now: rate)
    book: Any = SimpleNamespace(file=file, account=account, problem="", known=True, read=True)
    return run_document(book, NOW)


def test_the_time_that_is_left_is_that_of_the_tasks_that_are_left_at_the_present_rate() -> None:
    told = document(0.5)
    assert (told["state"], told["eta"], told["elapsed"]) == ("running", 80.0, 100.0)


@pytest.mark.parametrize(
    ("rate", "changed"),
    [(0.0, {}), (0.5, {"paused": True}), (0.5, {"process": ""}), (0.5, {"total": None})],
    ids=["nothing ends", "paused", "over", "lines still arrive"],
)
def test_no_time_is_told_where_none_is_known(rate: float, changed: dict[str, object]) -> None:
    assert document(rate, **changed)["eta"] is None
