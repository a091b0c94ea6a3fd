"""The tool: it sees mistakes that were not seen once, says so of a change that means nothing, and finds what to change.

Each run is in a process of its own, because mutants are forked from one that has no module of cexec in memory.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants.__main__ import sample
from tests.mutants.explained import EXPLAINED
from tests.mutants.known import EQUIVALENT, KNOWN, TESTS
from tests.mutants.modules import MIRRORS
from tests.mutants.mutations import compiled, mutants_of

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = '''
"""A docstring."""
from math import inf
__slots__ = ("a",)
TABLE = {"x": (1, 2)}
def f(a: int, b: int = 3) -> int:
    """Another."""
    if a < b and not a:
        raise ValueError(f"bad {a + 1}")
    g(a, b)
    return min(a, b) + 1
'''


def test_the_changes_of_a_module_are_these() -> None:
    found = [f"{mutant.before} -> {mutant.after}" for mutant in mutants_of("m", SAMPLE)]
    for change in (
        "a < b -> a <= b", "a < b and (not a) -> a < b or not a", "not a -> a", "min(a, b) -> max(a, b)",
        "g(a, b) -> pass", "g(a, b) -> g(b, a)", "min(a, b) + 1 -> min(a, b) - 1",
        "(1, 2) -> (2,)", "{'x': (1, 2)} -> {}", "3 -> 4", "return min(a, b) + 1 -> return None",
        "raise ValueError(f'bad {a + 1}') -> pass", "TABLE = {'x': (1, 2)} -> pass",
    ):  # fmt: skip
        assert change in found
    assert not [text for text in found if "docstring" in text or "Another" in text or "__slots__" in text]
    assert not [text for text in found if "'x' ->" in text or "a + 1 ->" in text]


def test_each_mutant_is_the_source_with_one_change() -> None:
    for mutant in mutants_of("m", SAMPLE):
        assert compiled(mutant, SAMPLE, "m.py").co_filename == "m.py"
    names: dict[str, object] = {"g": print}
    (changed,) = [one for one in mutants_of("m", SAMPLE) if (one.before, one.after) == ("3", "4")]
    assert len({str(mutant) for mutant in mutants_of("m", SAMPLE)}) == len(mutants_of("m", SAMPLE))
    assert str(changed) == "m: 3 -> 4 in: def f(a: int, b: int = 3) -> int:"
    exec(compiled(changed, SAMPLE, "m.py"), names)
    assert names["f"].__defaults__ == (4,) and names["TABLE"] == {"x": (1, 2)}  # type: ignore[attr-defined]


def test_a_sample_has_as_many_as_were_asked_for_and_fewer_of_a_module_are_the_first_of_the_more() -> None:
    many, few = sample("", 60, 1), sample("", 30, 1)
    assert (len(many), len(few)) == (60, 30) and len(set(many)) == 60
    for module in MIRRORS:
        drawn = [mutant for mutant in many if mutant.module == module]
        assert [mutant for mutant in few if mutant.module == module] == drawn[: sum(m.module == module for m in few)]
    only = sample(r"\.(wire|keys)$", 60, 1)
    assert only == [mutant for mutant in many if mutant.module.endswith((".wire", ".keys"))]
    assert sample("", 60, 2) != many


def test_modules_and_their_tests_exist() -> None:
    for module, tests in MIRRORS.items():
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), module
        assert tests and all((ROOT / path.partition("::")[0]).is_file() for path in tests), module


def test_what_is_explained_can_still_happen() -> None:
    possible = {
        str(mutant)
        for module in MIRRORS
        for mutant in mutants_of(module, (ROOT / f"{module.replace('.', '/')}.py").read_text())
    }
    assert EXPLAINED.keys() <= possible, EXPLAINED.keys() - possible
    assert all(len(reason) > 20 for reason in EXPLAINED.values())


QUICK = {EQUIVALENT.module, "cexec.protocol.connection.session_states"}  # few runs of short tests


def verdicts_of(*modules: str) -> dict[str, str]:
    """What the tool says of the mistakes that are known."""
    command = [sys.executable, "-m", "tests.mutants.replaced", *modules]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr.decode()
    found: dict[str, str] = json.loads(ended.stdout)
    return found


@pytest.mark.parametrize("modules", [QUICK, pytest.param(set(TESTS), marks=pytest.mark.campaign)], ids=["quick", "all"])
def test_mistakes_that_were_not_seen_once_are_seen_and_a_change_that_means_nothing_survives(modules: set[str]) -> None:
    """If nothing survived, the tool would call everything killed, whatever the tests say."""
    expected = {one.name: "killed" for one in KNOWN if one.module in modules} | {EQUIVALENT.name: "survived"}
    assert len(expected) >= 2
    assert verdicts_of(*sorted(modules)) == expected
