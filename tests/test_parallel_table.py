"""docs/cmap-for-parallel-users.md says of every option of GNU parallel what cmap does."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("line", [line for line in TEXT.splitlines() if "| the same |" in line])
def test_what_is_said_to_be_the_same_is_an_option_of_cmap(line: str) -> None:
    page = (ROOT / "man" / "cmap.1").read_text()
    described = {f"--{name}" for name in re.findall(r"^\.It .*?\bFl Fl ([a-z][a-z-]*)", page, re.MULTILINE)}
    first = line.split(" | ")[0]
    options = set(re.findall(r"`(--[a-z][a-z-]+)[^`/]*`(?!/)", re.sub(r"/`--[a-z-]+`", "", first)))
    assert options - {"--group", "--no-keep-order", "--colsep", "--link", "--xapply"} <= described | {"--total-jobs"}, (
        line
    )
