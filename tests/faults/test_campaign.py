"""The fastest rows of the fault campaign, so that it cannot rot; `make faults` runs all of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.campaign import run_row
from tests.faults.payloads import LARGE
from tests.faults.rows import Row, all_rows
from tests.needs import require_namespaces, require_tool

QUICK = [one for one in all_rows() if one.quick]


@pytest.mark.parametrize("row", QUICK, ids=lambda one: one.name)
def test_a_row_of_the_campaign_does_no_harm(row: Row, tmp_path: Path) -> None:
    """Nothing here depends on the machine's speed, so recovery is not judged."""
    require_namespaces()
    require_tool("ss", "nft")
    light = replace(row.plan, piped=0, bulk=(LARGE,), tasks=0, everywhere=False)
    result = run_row(replace(row, plan=light), tmp_path / "records")
    assert result.injected
    assert result.counts == dict.fromkeys(result.counts, 0), result.harm
    assert result.recovery is not None
    assert not [line for line in result.harm if line.startswith("footprint")]
