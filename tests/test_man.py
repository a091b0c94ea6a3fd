"""Every command has a man page with the sections that a reader expects, and the linter has nothing to say about it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.environment import ROOT
from tests.needs import find_tool, require_tool

COMMANDS = sorted(path.name for path in (ROOT / "bin").iterdir())
PAGES = sorted((ROOT / "man").glob("*.[1-9]"))
SECTIONS = [
    "NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "ENVIRONMENT", "EXIT STATUS", "EXAMPLES", "SECURITY", "SEE ALSO",
]  # fmt: skip


def test_there_are_commands_to_look_at() -> None:
    assert {"cexec", "ckeygen", "cservice"} <= set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_a_man_page_with_all_sections(name: str) -> None:
    text = (ROOT / "man" / f"{name}.1").read_text()
    found = re.findall(r"^\.S[Hh] +\"?([A-Z ]+?)\"?$", text, re.MULTILINE)
    assert [section for section in found if section in SECTIONS] == SECTIONS
    assert re.search(rf"^\.(Nm|TH) +\"?{name}\b", text, re.MULTILINE | re.IGNORECASE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_linter_has_nothing_to_say(page: Path) -> None:
    if find_tool("mandoc"):
        linter = ["mandoc", "-T", "lint", "-W", "warning"]
    else:
        require_tool("groff")
        linter = ["groff", "-ww", "-mandoc", "-T", "utf8", "-z"]
    result = subprocess.run([*linter, str(page)], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_page_describes_exactly_the_options_that_the_command_has(name: str) -> None:
    command = [sys.executable, str(ROOT / "bin" / name), "--help"]
    usage = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT, env={"PYTHONPATH": str(ROOT)})
    assert usage.returncode == 0, usage.stderr
    lines = re.findall(r"^  (-\S.*?)(?:  |$)", usage.stdout, re.MULTILINE)
    offered = {option for line in lines for option in re.findall(r"(?<!\S)--[a-z][a-z-]*", line)}
    text = (ROOT / "man" / f"{name}.1").read_text()
    items = re.findall(r"^\.It (.*\bFl .*)$", text, re.MULTILINE)
    described = {f"--{word}" for item in items for word in re.findall(r"\bFl (?:Fl |-)([a-z][a-z-]*)", item)}
    assert {"--help", "--version"} < offered
    assert sorted(offered ^ described) == []


@pytest.mark.parametrize("name", COMMANDS)
def test_the_pages_refer_to_each_other(name: str) -> None:
    section = (ROOT / "man" / f"{name}.1").read_text().partition(".Sh SEE ALSO\n")[2]
    named = re.findall(r"^\.Xr ([\w-]+) 1\b", section, re.MULTILINE)
    assert set(named) - {"parallel"} == set(COMMANDS) - {name}
    assert named == sorted(named)


@pytest.mark.parametrize("name", ["cexec", "cmap"])
def test_the_programs_own_arguments_come_after_two_hyphens(name: str) -> None:
    synopsis = (ROOT / "man" / f"{name}.1").read_text().partition(".Sh SYNOPSIS\n")[2].partition(".Sh ")[0]
    assert ".Op Cm -- Ar ARG ...\n" in synopsis  # which is shown as [-- ARG ...]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_short_options_for_help_and_version_are_there(name: str) -> None:
    text = (ROOT / "man" / f"{name}.1").read_text()
    assert re.search(r"^\.It Fl h , Fl (?:Fl |-)help$", text, re.MULTILINE)
    assert re.search(r"^\.It Fl V , Fl (?:Fl |-)version$", text, re.MULTILINE)
