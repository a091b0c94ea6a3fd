"""docs/cmap-for-parallel-users.md says of every option of GNU parallel what cmap does."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

from cexec.commands.parallel_names import PARALLEL_NAMES
from tests.environment import ROOT
from tests.needs import skip_for_want_of

PAGES = [Path("/usr/share/man/man1") / name for name in ("parallel.1.gz", "parallel.1")]
TEXT = (ROOT / "docs" / "cmap-for-parallel-users.md").read_text()
# About the way in which parallel is cited.
PASSED_OVER = {"--citation", "--will-cite", "--bibtex"}


def options_of_parallel() -> set[str]:
    """The options that the man page has an entry for."""
    page = next((path for path in PAGES if path.exists()), None)
    if page is None:
        skip_for_want_of("parallel")

    data = gzip.decompress(page.read_bytes()) if page.suffix == ".gz" else page.read_bytes()
    items = re.findall(r'^\.IP "(.*?)"(?: \d+)?$', data.decode(errors="replace").replace("\\-", "-"), re.MULTILINE)
    plain = [re.sub(r"\\f[A-Z]|\\f\([A-Z]+", "", item) for item in items]
    return {match[0] for item in plain if (match := re.match(r"--[a-z][a-z-]+", item))}


def test_every_option_of_parallel_has_its_place_in_the_table() -> None:
    options = options_of_parallel()
    assert len(options) > 100, sorted(options)
    named = set(re.findall(r"--[a-z][a-z-]+", TEXT))
    assert sorted(options - PASSED_OVER - named) == []


ROWS = [line for line in TEXT.splitlines() if line.startswith("| ") and not line.startswith("| GNU")]
NAME = re.compile(r"`(--?[a-zA-Z][a-zA-Z-]*)[^`]*`")


def names(cell: str) -> list[list[str]]:
    """The options of a cell, each with its other names behind it."""
    return [NAME.findall(option) for option in re.findall(r"(?:`[^`]*`/)*`[^`]*`", cell) if NAME.search(option)]


@pytest.mark.parametrize("line", [line for line in ROWS if "| the same" in line])
def test_what_is_said_to_be_the_same_is_an_option_of_cmap(line: str) -> None:
    """Each option under its first name; cmap has another name as well, or tells what it is called."""
    page = (ROOT / "man" / "cmap.1").read_text()
    items = "\n".join(line for line in page.splitlines() if line.startswith(".It "))
    described = {f"--{name}" for name in re.findall(r"\bFl Fl ([a-z][a-z-]*)", items)}
    described |= {f"-{name}" for name in re.findall(r"\bFl ([a-zA-Z0-9])\b", items)}
    without_names = {"--plus", "--total-jobs", "--total"}  # what they ask for is there by itself
    for found in names(line.split(" | ")[0]):
        if without_names.isdisjoint(found):
            assert found[0] in described | PARALLEL_NAMES.keys(), line
            assert set(found[1:]) <= described | PARALLEL_NAMES.keys(), line


@pytest.mark.parametrize("name", PARALLEL_NAMES)
def test_what_an_error_line_says_is_in_the_row_of_the_option(name: str) -> None:
    (line,) = [line for line in ROWS if name in [one for found in names(line.split(" | ")[0]) for one in found]]
    ours = PARALLEL_NAMES[name]
    assert all(f"`{one.partition(' ')[0]}" in line or one in line for one in re.split(r", | and ", ours)), line
