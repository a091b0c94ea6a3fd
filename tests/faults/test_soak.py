"""The soak in short, for `make campaign`; `make soak` runs it for 20 minutes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import soak
from tests.faults.load import Plan
from tests.needs import require_namespaces, require_tool


@pytest.mark.campaign
@pytest.mark.timeout(600)
def test_a_farm_in_which_everything_fails_in_turn_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All faults but a killed cservice, of which loggers would tell a minute later."""
    require_namespaces()
    require_tool("ss", "nft")
    monkeypatch.setattr(soak, "CUT_FOR", 0.3)
    faults = [fault for fault in soak.FAULTS if fault is not soak.kill_worker]
    plan = Plan(small=2, piped=0, bulk=(5_000_000,), tasks=20, at_once=4, everywhere=False)
    report = soak.soak(tmp_path / "soak", 1, 0.1, plan=plan, faults=faults)
    assert report.faults.keys() == {soak.FAULTS[fault] for fault in faults}
    assert report.counts == dict.fromkeys(report.counts, 0), report.harm
    assert not report.harm
