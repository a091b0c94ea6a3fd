"""What the README names exists, and what exists is in the README."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.environment import ROOT

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
LONGEST_LINE = 120  # characters, as in the source
README = (ROOT / "README.md").read_text()


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^):]+)\)", README)
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]


def test_every_command_has_a_row() -> None:
    rows = re.findall(r"^\| `(c[\w-]+)` \|", README, re.MULTILINE)
    assert rows and sorted(rows) == sorted(path.name for path in (ROOT / "bin").iterdir())


def test_every_command_is_installed() -> None:
    listed = re.findall(r'^ +"bin/([\w-]+)",$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert listed and sorted(listed) == sorted(path.name for path in (ROOT / "bin").iterdir())


def test_the_debian_packages_are_those_that_ci_installs() -> None:
    lines = (ROOT / "debian-packages.txt").read_text().splitlines()
    packages = [line for line in lines if not line.startswith("#")]
    assert packages and packages == sorted(packages)
    shown = re.search(r"lists:\n\n((?:    .*\n)+)", README)
    assert shown and shown[1].split() == packages
    assert "debian-packages.txt" in (ROOT / ".ci" / "run").read_text()


def test_every_make_target_that_is_named_exists() -> None:
    named = set(re.findall(r"(?:^    |`)make ([a-z-]+)", README, re.MULTILINE))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"test", "demo", "install"} <= named
    assert named <= targets


def test_the_first_example_needs_nothing_that_is_not_on_every_machine() -> None:
    quick_start = README.partition("## Quick start\n")[2].partition("\n## ")[0]
    commands = re.findall(r"^    (.*)", quick_start, re.MULTILINE)[:3]
    assert commands == ["ckeygen app", "cservice app wc -l", "cexec app.pub < /etc/passwd"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_line_of_text_is_too_long_to_read(page: Path) -> None:
    """Rows of tables and pictures may be."""
    lines = page.read_text().splitlines()
    assert [line for line in lines if len(line) > LONGEST_LINE and not line.startswith(("| ", "    "))] == []
