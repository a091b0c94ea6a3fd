"""docs/python.md: each example runs as it stands on a real service, prints what it says, and passes mypy --strict.

Contract: a block of Python is one program.  A comment `# prints: TEXT` tells what the line prints; where it prints
several lines, they are separated by a comma and a space.  Those with a thousand jobs run as they stand in the campaign,
and with a tenth of the jobs in a usual run, where a recipe of docs/recipes.md has a thousand in flight.
"""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import cexec
from tests.environment import ROOT, local_environment
from tests.python.pools import PoolService
from tests.service import Application, Service

PAGE = (ROOT / "docs" / "python.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
# What a usual run has in place of a thousand jobs, and what is printed then.
FEWER = {"range(1000)": "range(100)", "332833500": "328350", "499500": "4950"}
MANY = [number for number, block in enumerate(BLOCKS) if "range(1000)" in block]
DEADLINE = 100.0  # seconds for one example


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with the key of a service that is offered as the page says."""
    assert "cservice --allow-args -j 4 app sh -c" in PAGE
    place = tmp_path_factory.mktemp("page")
    service = Service(Application(place), ["sh", "-c"], ["--allow-args", "-j", "4"])
    assert "cservice -j 2 pool python3 -m cexec.pool" in PAGE
    with PoolService(place, slots=2):
        yield place
    service.close()


def told(block: str) -> list[str]:
    """Returns the lines that the example says it prints."""
    said = re.findall(r"# prints: (.*)$", block, re.MULTILINE)
    return [line for text in said for line in (text.split(", ") if text[:1] != "[" else [text])]


def test_there_are_examples_and_each_prints_something() -> None:
    assert len(BLOCKS) >= 8
    assert all(told(block) for block in BLOCKS)


def with_fewer(block: str) -> str:
    for many, few in FEWER.items():
        block = block.replace(many, few)
    return block


def test_most_examples_run_as_they_stand() -> None:
    assert MANY and len(MANY) <= 3
    assert all(with_fewer(BLOCKS[number]) == BLOCKS[number] for number in range(len(BLOCKS)) if number not in MANY)


@pytest.mark.parametrize(
    "block",
    [
        *(pytest.param(with_fewer(block), id=f"{number}") for number, block in enumerate(BLOCKS)),
        *(pytest.param(BLOCKS[number], id=f"{number} as it stands", marks=pytest.mark.campaign) for number in MANY),
    ],
)
def test_an_example_prints_what_it_says(place: Path, block: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", block],
        cwd=place,
        env=local_environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert (result.stdout.splitlines(), result.stderr) == (told(block), "")


WRONG = """\
import cexec
client = cexec.Client('app.pub')
text: str = client.run(b'').stdout
client.run(timeuot=3)
client.run(weight='heavy')
fine: str = client.run('x', text=True).stdout
also: bytes = client.run(b'x').stdout
[one.worker for one in client.map([b''], return_exceptions=True)]
"""


def test_the_examples_pass_mypy_and_it_sees_what_is_wrong(tmp_path: Path) -> None:
    """Checked by one run of mypy, which takes seconds to read the package."""
    for number, block in enumerate(BLOCKS):
        (tmp_path / f"example{number}.py").write_text(block)
    (tmp_path / "wrong.py").write_text(WRONG)
    (tmp_path / "mypy.ini").write_text("[mypy]\n[mypy-joblib.*]\nignore_missing_imports = True\n")
    argv = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", os.devnull]
    argv += sorted(path.name for path in tmp_path.glob("*.py"))
    environment = local_environment()
    result = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=DEADLINE)
    errors = re.findall(r"^(.+):(\d+): error", result.stdout, re.MULTILINE)
    assert {(name, int(line)) for name, line in errors} == {("wrong.py", line) for line in (3, 4, 5, 8)}, result.stdout
    assert f"checked {len(BLOCKS) + 1} source files" in result.stdout, result.stdout + result.stderr


def test_the_page_names_every_public_error() -> None:
    errors = {name for name, module in cexec.PUBLIC.items() if module == "cexec.errors"}
    assert errors <= set(re.findall(r"\w+", PAGE))


def test_the_page_has_every_keyword_of_run() -> None:
    from cexec.python.keywords import KNOWN

    table = PAGE.partition("## Keywords")[2].partition("```")[0]
    assert {*KNOWN, "input", "text", "encoding"} <= set(re.findall(r"`(\w+)`", table))


def test_the_page_has_every_argument_of_executor() -> None:
    table = PAGE.partition("## Executor")[2].partition("## ")[0]
    arguments = {*inspect.signature(cexec.Executor).parameters} - {"key"}
    assert len(arguments) > 10
    assert arguments <= set(re.findall(r"`(\w+)`", table))
