"""The recipes of docs/recipes.md, run as they stand there.

Contract: of each recipe the commands `cservice` are started, and the keys that they name are made before.  A shell runs
the others in a directory with what they work on, and Python its program, whose output the comments `# prints:` tell.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.environment import ROOT, local_environment
from tests.needs import require_module
from tests.service import Application, Service

RECIPES = dict(re.findall(r"^## (.+)\n((?:(?!## ).*\n)+)", (ROOT / "docs" / "recipes.md").read_text(), re.MULTILINE))
PROGRAM = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
WITHOUT = "-p no:schemathesis"  # which takes as long to load as pytest
PATIENCE = 120.0  # seconds: a recipe starts several programs

Follow = Callable[[str], tuple[subprocess.CompletedProcess[str], list[Service]]]


@pytest.fixture
def follow(tmp_path: Path) -> Iterator[Follow]:
    """Follows the recipe of this name; returns what its last command did, and the services."""
    path = f"{Path(sys.executable).parent}:{ROOT / 'bin'}:{os.environ['PATH']}"
    with ExitStack() as stack:

        def run(name: str) -> tuple[subprocess.CompletedProcess[str], list[Service]]:
            programs = PROGRAM.findall(RECIPES[name])
            commands = re.findall(r"^    (.+)$", PROGRAM.sub("", RECIPES[name]), re.MULTILINE)
            services = [shlex.split(command) for command in commands if command.startswith("cservice ")]
            others = [command for command in commands if not command.startswith("cservice ")]
            assert services and len(programs) + bool(others) == 1
            started = []
            for words in services:
                at = next(number for number, word in enumerate(words[1:], 1) if not word.startswith("-"))
                service = Service(
                    Application(tmp_path, words[at]),
                    words[at + 1 :],
                    words[1:at],
                    environment={"PATH": path, "PYTEST_ADDOPTS": WITHOUT},
                )
                stack.callback(service.close)
                started.append(service)
            script = "set -e\n" + "\n".join(others)
            environment = local_environment({"PATH": path, "PYTEST_ADDOPTS": WITHOUT, "PYTEST_XDIST_WORKER": ""})
            argv = ["python3", "-c", programs[0]] if programs else ["sh", "-c", script]
            ended = subprocess.run(
                argv, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE
            )
            return ended, started

        yield run


def test_make(follow: Follow, tmp_path: Path) -> None:
    makefile = "all: one two\none two:\n\techo $@ $$CEXEC_CLIENT > $(CURDIR)/$@\n"
    (tmp_path / "Makefile").write_text(makefile)
    ended, (worker,) = follow("make")
    assert ended.returncode == 0, ended.stderr
    assert [(tmp_path / name).read_text() for name in ("one", "two")] == ["one default\n", "two default\n"]
    assert len(worker.lines_with("finished ", 2)) == 2


def test_pytest_xdist(follow: Follow, tmp_path: Path) -> None:
    body = "import os\n\ndef test_it() -> None:\n    assert os.environ['CEXEC_CLIENT'] == 'default'\n"
    (tmp_path / "test_one.py").write_text(body)
    (tmp_path / "test_two.py").write_text(body)
    ended, (worker,) = follow("pytest-xdist")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "2 passed" in ended.stdout
    assert len(worker.lines_with("finished ", 2)) == 2


@pytest.mark.parametrize(
    ("name", "modules"),
    [
        ("Dask", ["dask"]),
        ("scikit-learn", ["joblib", "sklearn"]),
        ("asyncio with a thousand jobs in flight", []),
        ("Threads that run jobs", []),
    ],
)
def test_programs(follow: Follow, name: str, modules: list[str]) -> None:
    require_module(*modules)
    ended, (worker,) = follow(name)
    (said,) = re.findall(r"# prints: (.*)$", RECIPES[name], re.MULTILINE)
    assert (ended.stdout, ended.stderr) == (said + "\n", "")
    assert worker.lines_with("finished ", 1)


def test_every_recipe_is_followed() -> None:
    assert list(RECIPES)[:2] == ["make", "pytest-xdist"]
    assert sum(bool(PROGRAM.search(text)) for text in RECIPES.values()) == len(RECIPES) - 2 == 4
