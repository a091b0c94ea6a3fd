"""A test that cannot run says so at the end of the run, and fails where CI=true promises that everything is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.environment import ROOT
from tests.needs import require_tool, wanted

TEST = """
from tests.needs import require_tool

def test_one():
    require_tool("sh", "no-such-tool")

def test_two():
    require_tool("no-such-tool")

def test_three():
    require_tool("sh")
"""


def run_tests(directory: Path) -> subprocess.CompletedProcess[str]:
    """Runs the three tests with the project's conftest."""
    (directory / "test_some.py").write_text(TEST)
    without = ["-p", "no:cacheprovider", "-p", "no:schemathesis"]  # the second takes as long to load as all else
    options = ["-q", *without, "-p", "tests.conftest", "-c", str(ROOT / "pyproject.toml")]
    argv = [sys.executable, "-m", "pytest", *options, f"--rootdir={directory}", str(directory)]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_a_missing_tool_is_one_loud_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    result = run_tests(tmp_path)
    assert result.returncode == 0, result.stdout
    assert "1 passed, 2 skipped" in result.stdout
    assert result.stdout.count("SKIPPED for want of no-such-tool: 2 tests\n") == 1


def test_a_missing_tool_is_a_failure_where_ci_is_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    result = run_tests(tmp_path)
    assert result.returncode == 1
    assert "1 passed" in result.stdout and "2 failed" in result.stdout
    assert "CI=true and no-such-tool is missing" in result.stdout


def test_a_tool_that_is_there_is_no_reason_to_skip() -> None:
    require_tool("sh")


def test_other_skips_are_not_counted_as_missing_tools() -> None:
    assert wanted("Skipped: for want of oggenc") == "oggenc"
    assert wanted("Skipped: this kernel has no IPv6") is None
