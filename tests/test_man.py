"""Every command has a man page with the sections that a reader expects, and the linter has nothing to say about it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.environment import ROOT
from tests.needs import find_tool, require_tool

COMMANDS = sorted(path.name for path in (ROOT / "bin").iterdir())
PAGES = sorted((ROOT / "man").glob("*.[1-9]"))
SECTIONS = ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "ENVIRONMENT", "EXIT STATUS", "EXAMPLES", "SEE ALSO"]


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
