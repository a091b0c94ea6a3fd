"""One name, one meaning: no two modules and no two classes of the package have the same name.

A name that stands twice makes a reader ask which one is meant, and a search find the wrong one.
"""

from __future__ import annotations

import ast
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


def test_no_two_modules_have_one_name() -> None:
    twice = duplicates([(path.stem, str(path.relative_to(ROOT))) for path in modules()])
    assert twice.keys() == SAME_MEANING, twice


def test_no_two_classes_have_one_name() -> None:
    classes = [
        (node.name, str(path.relative_to(ROOT)))
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    assert len(classes) > 200
    assert duplicates(classes) == {}


def test_the_check_sees_a_name_that_stands_twice() -> None:
    assert duplicates([("A", "one"), ("B", "two"), ("A", "three")]) == {"A": ["one", "three"]}
