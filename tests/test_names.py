"""One name, one meaning: no two modules and no two classes of the package have the same name.

A name that stands twice makes a reader ask which one is meant, and a search find the wrong one.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parent.parent
SAME_MEANING = {"lease"}  # modules: the two ends of one lease, at the client and at the worker


def duplicates(pairs: list[tuple[str, str]]) -> dict[str, list[str]]:
    """Names that stand in more than one place, and these places."""
    places: dict[str, list[str]] = defaultdict(list)
    for name, place in pairs:
        places[name].append(place)
    return {name: found for name, found in places.items() if len(found) > 1}


def modules() -> list[Path]:
    found = [
        path
        for path in sorted((ROOT / "cexec").rglob("*.py"))
        if path.name != "__init__.py" and "wire" not in path.parts
    ]  # protoc names its own
    assert len(found) > 150
    return found


def classes_of(source: str) -> list[str]:
    """The public classes that a source defines, at any depth; to parse it takes a hundred times as long."""
    return re.findall(r"^[ \t]*class ([^\W_]\w*)[(:\[]", source, re.MULTILINE)


def test_the_classes_of_a_source_are_found() -> None:
    source = "class A:\n  class B(A): x = 1\ndef f():\n    class C[T]: pass\nclass _D: pass\n# class E:\n"
    assert classes_of(source) == ["A", "B", "C"]


def test_no_two_modules_have_one_name() -> None:
    twice = duplicates([(path.stem, str(path.relative_to(ROOT))) for path in modules()])
    assert twice.keys() == SAME_MEANING, twice


def test_no_two_classes_have_one_name() -> None:
    classes = [(name, str(path.relative_to(ROOT))) for path in modules() for name in classes_of(path.read_text())]
    assert len(classes) > 200
    assert duplicates(classes) == {}


def test_the_check_sees_a_name_that_stands_twice() -> None:
    assert duplicates([("A", "one"), ("B", "two"), ("A", "three")]) == {"A": ["one", "three"]}
