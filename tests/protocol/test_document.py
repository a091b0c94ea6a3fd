"""docs/protocol.md says what the code does: labels, type numbers, limits, and the sizes in its transcript."""

from __future__ import annotations

import ast
import functools
import importlib
import re
from pathlib import Path

import pytest

from cexec.protocol.base.limits import RECORD_HEADER
from cexec.protocol.connection import frames, options
from cexec.protocol.connection.channel import FIRST_FLIGHT, RECORD_LABEL, SECOND_FLIGHT
from cexec.protocol.connection.frames import ENDED, EXITED, Ending, Exit
from cexec.protocol.connection.options import READS, WRITES
from cexec.protocol.datagrams import announcement, datagram, hello, presence, requirements
from tests.protocol.wires import APPLICATION, job

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "cexec"
TEXT = (ROOT / "docs" / "protocol.md").read_text()
ROWS = dict(re.findall(r"^\| `([a-z_.]+\.[A-Z][A-Z0-9_]+)` \| (.*?) \|", TEXT, re.MULTILINE))
NUMBERED = {  # modules whose plain integers go over the wire, and some of them
    "datagram": datagram.KINDS,
    "frames": (*frames.TYPES, 0),
    "hello": hello.PURPOSES,
    "announcement": announcement.KINDS,
    "presence": presence.PURPOSES,
}
MARK = "(protocol)"
LABEL_START = "cexec 1 "
AEGIS_TAG = 32  # bytes


def module_name(path: Path) -> str:
    """As the document calls it: a module of the protocol by its last name alone."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[-1] if parts[0] == "protocol" else ".".join(parts)


@functools.cache
def paths() -> dict[str, Path]:
    return {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@functools.cache
def sources() -> dict[str, str]:
    return {module: path.read_text() for module, path in paths().items()}


def value_of(name: str) -> object:
    """The value of `module.CONSTANT`."""
    module, _, constant = name.rpartition(".")
    parts = paths()[module].relative_to(ROOT).with_suffix("").parts
    return getattr(importlib.import_module(".".join(parts)), constant)


def written(value: object) -> str:
    """A value as the document writes it."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int | float):
        return f"{value:,}"
    if isinstance(value, str):
        return f"`{value}`"
    assert isinstance(value, tuple | dict), value
    return ", ".join(written(one) for one in value)


def labels_of(source: str) -> set[str]:
    """Every byte string in it that is a label."""
    if LABEL_START not in source:  # so nearly no module is parsed while tests are collected, once in each process
        return set()
    return {
        node.value.decode()
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, bytes)
        and node.value.startswith(LABEL_START.encode())
    }


def strings_of(source: str) -> set[str]:
    """Every string in it, except the names in `__slots__` and the parts of f-strings, which are for people."""
    nodes = list(ast.walk(ast.parse(source)))
    others: list[ast.expr] = [node for node in nodes if isinstance(node, ast.JoinedStr)]
    others += [
        node.value for node in nodes if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__slots__"
    ]
    ignored = {id(node) for other in others for node in ast.walk(other)}
    return {
        node.value
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in ignored
    }


def marked_constants(source: str) -> set[str]:
    """The names of the constants whose comment says that they are the protocol's."""
    return {
        match[1]
        for line in source.splitlines()
        if MARK in line and (match := re.match(r"([A-Z][A-Z0-9_]*)(?:: [^=]*)? = [^#]*#", line))
    }


def type_numbers(module: str) -> set[str]:
    """The module's constants that are plain integers."""
    found = set()
    for node in ast.parse(sources()[module]).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and type(node.value.value) is int:
            assert isinstance(node.targets[0], ast.Name)
            found.add(node.targets[0].id)
    return found


LABELS = set().union(*map(labels_of, sources().values()))
MARKED = {f"{module}.{name}" for module, source in sources().items() for name in marked_constants(source)}
NOT_ON_THE_WIRE = {"datagram.VERSION", "datagram.KIND_AT", "datagram.MAC1_START", "datagram.INNER_START",
                   "frames.EXIT_HEAD", "frames.STREAM_FRONT", "frames.ENDING_SIZE", "hello.THOUSANDTHS",
                   "presence.MAXIMUM_FOLLOWED"}  # fmt: skip


def test_there_is_something_to_check() -> None:
    assert len(LABELS) >= 16 and RECORD_LABEL.decode() in LABELS
    assert len(MARKED) >= 30 and "limits.MAXIMUM_DATAGRAM" in MARKED
    assert len(ROWS) >= 70
    assert strings_of("__slots__ = ('a',); b = {'c': f'd{e}'}") == {"c"}
    assert labels_of('x = b"cexec 1 x"; y = "cexec 1 y"') == {"cexec 1 x"}
    assert marked_constants("A = 1  # bytes (protocol)\nB = 2  # (ours)\nC: int = 3  # (protocol)") == {"A", "C"}
    assert [written(value) for value in (3010, 5.0, 0.1, "x", ("a", "b"), {1: 2})] == [
        "3,010", "5", "0.1", "`x`", "`a`, `b`", "1",
    ]  # fmt: skip


@pytest.mark.parametrize("label", sorted(LABELS))
def test_a_label_is_in_the_document(label: str) -> None:
    assert re.search(f'[`"]{re.escape(label)}[`"]', TEXT)


def test_the_document_has_no_label_that_is_gone() -> None:
    told = set(re.findall(r'[`"](cexec \d [^`"]*)[`"]', TEXT))
    records = {RECORD_LABEL.decode() + cipher for cipher in hello.CIPHERS}
    assert told == LABELS | records


@pytest.mark.parametrize("name", sorted(ROWS))
def test_a_row_of_the_document_has_the_value_of_the_code(name: str) -> None:
    assert ROWS[name] == written(value_of(name))


def test_every_constant_of_the_protocol_has_a_row() -> None:
    assert MARKED - ROWS.keys() == set()


@pytest.mark.parametrize("module", NUMBERED)
def test_every_type_number_has_a_row(module: str) -> None:
    numbers = {f"{module}.{name}" for name in type_numbers(module)} - NOT_ON_THE_WIRE
    assert len(numbers) >= len(NUMBERED[module])
    assert numbers - ROWS.keys() == set()


def test_the_options_of_go_are_those_of_the_code() -> None:
    _, _, table = TEXT.partition("| option of GO | value | |\n")
    told = re.findall(r"^\| `([^`]+)`", table.partition("\n\n")[0], re.MULTILINE)
    known = {*options.LIMITS, options.FETCH_ON_FAILURE, options.LEASE, options.TELL_WANTED}
    known |= {options.PROGRAM_STREAM, options.PROGRAM, options.SUBSYSTEM, options.TERMINAL}
    assert sorted(told) == sorted(known)


def test_the_words_of_the_wire_are_written_once() -> None:
    words = {
        options.LEASE, options.FETCH_ON_FAILURE, options.TIME_LIMIT, options.CPU_LIMIT, options.MEMORY_LIMIT,
        options.PROGRAM_STREAM, options.PROGRAM, options.TELL_WANTED, requirements.ALLOWED, requirements.ONCE,
    }  # fmt: skip
    places: dict[str, list[str]] = {word: [] for word in words}
    for module, source in sources().items():
        if not any(word in source for word in words):
            continue  # it need not be parsed
        for word in words & strings_of(source):
            places[word].append(module)
    assert {word: found for word, found in places.items() if len(found) != 1} == {}


def test_the_sections_that_the_code_cites_exist() -> None:
    headings = set(re.findall(r"^##+ ([\d.]+?)\.? ", TEXT, re.MULTILINE))
    assert {"0", "1", "2", "3", "4", "5", "6", "7", "2.1", "4.4"} <= headings
    cited = {
        section
        for source in sources().values()
        for sentence in re.findall(r"protocol\.md\s+sections?\s([^a-z\n]*(?:and [\d.]+)?)", source)
        for section in re.findall(r"\d(?:\.\d)?", sentence)
    }
    assert len(cited) >= 10
    assert cited - headings == set()


def test_lines_are_short_enough_to_be_reviewed() -> None:
    lines = TEXT.splitlines()
    assert [line for line in lines if len(line) > (160 if line.startswith("|") else 120)] == []


def test_the_sizes_of_the_transcript() -> None:
    _, _, transcript = TEXT.partition("## A job from beginning to end")
    rows = re.findall(r"^\| (\d+) \| .*\| (\d*) \|$", transcript.partition("\n## ")[0], re.MULTILINE)
    told = {int(number): int(size) for number, size in rows if size}
    sealed = APPLICATION.announce()
    exit_frame = Exit(
        kind=EXITED,
        status=0,
        endings=[Ending(1, WRITES, ENDED, 0), Ending(2, WRITES, ENDED, 0), Ending(0, READS, ENDED, 0)],
    )

    def record(kind: int, body: bytes = b"") -> int:
        return RECORD_HEADER + len(frames.frame(kind, body)) + AEGIS_TAG

    assert told == {
        1: len(sealed.datagram(0, 4000, 8)),
        3: FIRST_FLIGHT,
        4: SECOND_FLIGHT,
        5: record(frames.CONFIRM),
        6: record(frames.GO, job().encode()),
        7: len(sealed.claim(1, 8)),
        8: record(frames.STARTED, b"\0"),
        12: record(frames.EXIT, exit_frame.encode()),
        13: record(frames.RELEASE),
    }
