"""`make demo` shows what its reader is promised; here without the installation, which needs a package index."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.environment import ROOT, clean_environment

TOUR = (
    "cservice --name anna", "cservice --name bert", "crat app.pub", "cps app.pub", "cexec app.pub < words",
    "cmap --params",
)  # fmt: skip


def test_the_tour_shows_two_workers_a_table_with_a_failing_row_its_report_cps_and_crat(tmp_path: Path) -> None:
    directory = os.path.dirname(sys.executable)
    assert (Path(directory) / "cexec").exists(), "make test installs the commands there"
    settings = {"DEMO_BIN": directory, "DEMO_REPORT": str(tmp_path / "report.html"), "PATH": os.environ["PATH"]}
    ended = subprocess.run(
        ["sh", str(ROOT / "examples" / "demo.sh")], env=clean_environment(settings), capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr + ended.stdout
    shown = [line.removeprefix("$ ") for line in ended.stdout.splitlines() if line.startswith("$ ")]
    for command in TOUR:
        assert any(line.startswith(command) for line in shown), command
    assert "3 lines" in ended.stdout.splitlines()
    assert "first,2\tfirst first" in ended.stdout
    assert "3 tasks succeeded, 1 failed" in ended.stderr
    assert ": exited with 3: lines.py: cannot repeat third -1 times" in ended.stderr
    assert ended.stdout.count(" completed by ") == 5
    assert "cannot repeat third -1 times" in (tmp_path / "report.html").read_text()
