"""docs/architecture.md names what exists: every path in it does, every package is in its tree, and every link leads
somewhere.
"""

from __future__ import annotations

import re
import tomllib

import pytest

from tests.environment import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text()
TOP = ("benchmarks", "bin", "cexec", "docs", "examples", "man", "tests")
PLACEHOLDER = "NAME"  # stands in a path for the name of something that a reader adds


def named_paths(text: str) -> set[str]:
    """Returns the paths in backticks that begin at the root of the project."""
    words = re.findall(r"`([^`\s]+)`", text)
    return {word for word in words if "/" in word and word.split("/")[0] in TOP and PLACEHOLDER not in word}


def tree_paths(text: str) -> set[str]:
    """Returns the paths in the tree: each line is indented by two spaces more than its directory."""
    block = re.search(r"^    cexec/\n(?:    .+\n)+", text, re.MULTILINE)
    assert block, "there is no tree"
    found: set[str] = set()
    above: list[str] = []
    for line in block[0].splitlines():
        depth = (len(line) - len(line.lstrip()) - 4) // 2
        above[depth:] = [line.split()[0]]
        found.add("".join(above))
    return found


def anchors(text: str) -> set[str]:
    """Returns what links within the page may lead to: headings as hosts of Markdown write them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def row(question: str) -> str:
    """Returns what the page answers to a question of its tables."""
    found = re.search(rf"^\| {re.escape(question)} \| (.*) \|$", PAGE, re.MULTILINE)
    assert found, f"the page does not answer {question!r}"
    return found[1]


def missing(paths: set[str]) -> list[str]:
    return sorted(path for path in paths if not (ROOT / path).exists() or path.endswith("/") > (ROOT / path).is_dir())


def test_every_path_that_is_named_exists() -> None:
    paths = named_paths(PAGE)
    assert len(paths) > 100
    assert missing(paths) == []


def test_the_tree_is_as_it_is() -> None:
    paths = tree_paths(PAGE)
    assert len(paths) > 30
    assert missing(paths) == []


def test_every_package_and_every_top_directory_is_in_the_tree() -> None:
    packages = {f"{path.parent.relative_to(ROOT)}/" for path in (ROOT / "cexec").rglob("__init__.py")}
    assert len(packages) > 20
    assert sorted((packages | {f"{name}/" for name in TOP}) - tree_paths(PAGE)) == []


def test_the_layers_are_those_that_import_linter_checks() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = {one["containers"][0]: one["layers"] for one in contracts if one["type"] == "layers"}
    assert len(layers) >= 6
    for container, names in layers.items():
        expected = " > ".join(re.sub(r"\w+", r"`\g<0>`", layer).replace(" | ", r" \| ") for layer in names)
        assert row(f"`{container.rpartition('.')[2]}`") == expected


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^):]+)\)", PAGE)
    assert len(links) > 5
    pages = [link for link in links if not link.startswith("#")]
    assert [link for link in pages if not (ROOT / "docs" / link).exists()] == []
    assert sorted({link[1:] for link in links if link.startswith("#")} - anchors(PAGE)) == []


@pytest.mark.parametrize(
    ("question", "path", "found_there"),
    [
        ("a frame type", "cexec/protocol/connection/frames.py", "\nCONFIRM = "),
        ("the delay before a bid", "cexec/protocol/decisions/bid_delay.py", "LOAD_DELAY * load"),
        ("the message when a key is world-readable", "cexec/system/storage/keyfile.py", "by others; type: chmod 600"),
        ("what a client makes of a refusal, and of a withdrawal", "cexec/client/search/messages.py", "refuses: "),
        ("sizes, durations and counts (`1.5G`, `1m30s`)", "cexec/system/units.py", "def parse_size("),
        ("what `--halt` does", "cexec/cmap/run/policy.py", "class Halt"),
        ("the retry of a lost worker", "cexec/client/blocking/client.py", "running the job again"),
    ],
)
def test_a_stranger_finds_the_file(question: str, path: str, found_there: str) -> None:
    assert path in named_paths(row(question))
    assert found_there in (ROOT / path).read_text()


def test_the_glossary_is_sorted_and_says_each_word_once() -> None:
    glossary = PAGE.partition("\n## Glossary\n")[2]
    words = [re.sub(r"\W", "", word).lower() for word in re.findall(r"^\| ([^|]+) \|", glossary, re.MULTILINE)][1:]
    assert len(words) > 50
    assert words == sorted(set(words))


def test_the_checks_see_what_they_look_for() -> None:
    assert named_paths("`cexec/a.py` and `docs/b`, but `a.b`, `x/y` and `bin/NAME`") == {"cexec/a.py", "docs/b"}
    assert missing({"cexec/errors.py", "cexec/none.py", "cexec/errors.py/", "cexec/net/"}) == [
        "cexec/errors.py/",
        "cexec/none.py",
    ]
    tree = "    cexec/\n      net/     sockets\n        a.py   one\n      b.py     two\n    bin/     launchers\n"
    assert tree_paths(tree) == {"cexec/", "cexec/net/", "cexec/net/a.py", "cexec/b.py", "bin/"}
    assert anchors("## Where is ...\n### A frame\n") == {"where-is-", "a-frame"}
