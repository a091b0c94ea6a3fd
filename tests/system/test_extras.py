"""What is missing can be installed as it is printed.

The package is not in any index by the name that stands in pyproject.toml, so `pip install 'NAME[EXTRA]'` fails.
"""

from __future__ import annotations

import re
import tomllib

import pytest

from cexec.system.extras import how_to_add
from tests.environment import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


@pytest.mark.parametrize(
    ("prefix", "command"),
    [
        ("/usr/local/lib/cexec-cluster", "make install PREFIX=/usr/local EXTRAS=gate"),
        ("/home/anna/.local/share/pipx/venvs/cexec-cluster", "pipx install --force '.[gate]'"),
        ("/home/anna/project/.venv", "pip install '.[gate]'"),
        ("/usr", "pip install '.[gate]'"),
    ],
)
def test_the_command_fits_how_cexec_was_installed(prefix: str, command: str) -> None:
    assert how_to_add("gate", prefix) == f"in a checkout of cexec type: {command}"


def test_make_and_the_message_mean_the_same_place() -> None:
    assert re.search(r"^HOME_DIRECTORY = \$\(PREFIX\)/lib/cexec-cluster$", (ROOT / "Makefile").read_text(), re.M)


def test_no_text_names_a_package_that_no_index_has() -> None:
    """Regression: `pip install 'cexec-cluster[gate]'` was printed, which pip cannot find."""
    texts = [ROOT / "README.md", *(ROOT / "cexec").rglob("*.py"), *(ROOT / "docs").glob("*.md")]
    texts += [*(ROOT / "man").iterdir(), ROOT / "CHANGELOG.md"]
    told = set()
    for path in texts:
        text = path.read_text()
        assert f"{PROJECT['name']}[" not in text, path
        told |= set(re.findall(r"install (?:--force )?'\.\[([\w-]+)\]'|how_to_add\('([\w-]+)'\)", text))
    assert told and {one or other for one, other in told} <= EXTRAS.keys()


def test_a_package_that_is_named_belongs_to_its_extra() -> None:
    texts = [path.read_text() for path in (ROOT / "cexec").rglob("*.py")]
    commands = [words for text in texts for words in re.findall(r"pip install ([a-z][a-z ]*)", text)]
    named = {name for words in commands for name in words.split()}
    packages = {re.split(r"[><=\[]", package)[0] for extra in ("pool", "joblib") for package in EXTRAS[extra]}
    assert named == packages
