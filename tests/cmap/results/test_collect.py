"""Orders, writers and lines."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import random
import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cexec.cmap.inputs.tasks import NOTHING, STDERR, STDOUT, Result, Task, TaskInput
from cexec.cmap.results import collect, joblog
from cexec.cmap.results.appending import AppendFile
from cexec.cmap.results.attempt_files import Output
from cexec.cmap.results.collect import (
    Collected,
    CommitOrder,
    Concatenated,
    DelimitedResults,
    EndedTask,
    Joblog,
    JsonResults,
    LineBuffer,
    Printed,
    reddened,
    tagged,
)
from cexec.cmap.results.outcome import TaskOutcome

pytestmark = pytest.mark.usefixtures("process_end")


@pytest.fixture
def file(tmp_path: Path) -> AppendFile:
    return AppendFile.open(str(tmp_path / "file"))


def output(data: bytes) -> Output:
    made = Output()
    made.append(data)
    return made


def ended(
    stdout: bytes = b"", stderr: bytes = b"", *, succeeded: bool = True, rejected: bool = False,
    results: Iterable[Result] = (), **row: str,
) -> EndedTask:  # fmt: skip
    task = Task(3, stdin=TaskInput(NOTHING), results=list(results), parameters=row, label=" ".join(row.values()))
    outcome = TaskOutcome(
        3, succeeded=succeeded, command=lambda: "command", worker="w", started=1.0, runtime=2.0, rejected=rejected
    )
    return EndedTask(task, outcome, {STDOUT: output(stdout), STDERR: output(stderr)})


def written(writer: object, what: EndedTask) -> bytes:
    return b"".join(writer.additions(what))  # type: ignore[attr-defined]


# order


def test_without_an_order_everything_has_its_turn_at_once() -> None:
    order: CommitOrder[str] = CommitOrder()
    assert order.put(5, "five") == ["five"]
    assert order.put(1, "one") == ["one"]
    assert order.skip(2) == []
    assert not order.full


def test_things_wait_for_those_before_them() -> None:
    order: CommitOrder[str] = CommitOrder([2, 5, 9, 10])
    assert order.current == 2
    assert order.put(9, "nine") == []
    assert order.put(5, "five") == []
    assert order.put(2, "two") == ["two", "five", "nine"]
    assert order.current == 10
    assert order.put(10, "ten") == ["ten"]
    assert order.current is None


def test_what_is_skipped_is_not_waited_for() -> None:
    order: CommitOrder[str] = CommitOrder([1, 2, 3])
    assert order.put(3, "three") == []
    assert order.skip(2) == []
    assert order.skip(1) == ["three"]


def test_any_order_of_arrival_gives_the_same() -> None:
    for seed in range(20):
        numbers = list(range(50))
        order: CommitOrder[int] = CommitOrder(numbers)
        found: list[int] = []
        for number in random.Random(seed).sample(numbers, 50):
            found += order.put(number, number) if number % 7 else order.skip(number)
        assert found == [number for number in numbers if number % 7]


def test_only_so_much_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "MOST_HELD", 2)
    order: CommitOrder[int] = CommitOrder([1, 2, 3])
    order.put(2, 2)
    assert not order.full
    order.put(3, 3)
    assert order.full
    order.put(1, 1)
    assert not order.full


# printing


def test_grouped_output(file: AppendFile) -> None:
    what = ended(b"out\n", b"err\n", x="1")
    assert written(Printed(file, STDOUT), what) == b"out\n"
    assert written(Printed(file, STDERR), what) == b"err\n"
    failed = ended(b"out\n", b"why\n", succeeded=False)
    assert written(Printed(file, STDOUT), failed) + written(Printed(file, STDERR), failed) == b"out\nwhy\n"


def test_what_was_rejected_is_no_output(file: AppendFile) -> None:
    """Regression: what --validate had refused was printed between the results."""
    what = ended(b"out\n", b"err\n", succeeded=False, rejected=True)
    assert written(Printed(file, STDOUT), what) + written(Printed(file, STDERR), what) == b"err\n"


def test_what_has_a_file_of_its_own_is_not_printed(file: AppendFile) -> None:
    what = ended(b"out\n", b"err\n", results=[Result(STDOUT, "o")])
    assert written(Printed(file, STDOUT), what) == b""
    assert written(Printed(file, STDERR), what) == b"err\n"


def test_tags_stand_before_every_line(file: AppendFile) -> None:
    what = ended(b"one\ntwo\n\nrest", x="a", y="b\nc")
    assert written(Printed(file, STDOUT, tag=True), what) == b"a b c\tone\na b c\ttwo\na b c\t\na b c\trest\n"


def with_tags(data: bytes) -> bytes:
    return b"".join(b"T\t" + line.removesuffix(b"\n") + b"\n" for line in data.splitlines(keepends=True))


@given(st.text("ab\n").map(str.encode), st.integers(1, 5))
def test_tags_do_not_depend_on_the_pieces(data: bytes, size: int) -> None:
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    assert b"".join(tagged(pieces, b"T\t")) == with_tags(data)
    assert b"".join(tagged(pieces, b"")) == data


@given(st.text("ab\n").map(str.encode), st.integers(1, 5))
def test_lines_are_passed_on_whole(data: bytes, size: int) -> None:
    buffer, plain = LineBuffer(b"T\t"), LineBuffer()
    found = untagged = b""
    for start in range(0, len(data), size):
        lines = b"".join(buffer.append(data[start : start + size]))
        assert not lines or lines.endswith(b"\n")
        found += lines
        untagged += b"".join(plain.append(data[start : start + size]))
        assert untagged == data[: data.rfind(b"\n", 0, start + size) + 1]
    assert found + b"".join(buffer.end()) == with_tags(data)
    assert untagged + b"".join(plain.end()) == data
    assert b"".join(buffer.end()) == b""


def test_a_line_is_never_cut_however_long_and_waits_on_disk() -> None:
    """Regression: --line-buffer cut lines of more than 1 MiB, so that those of two tasks were mixed."""
    buffer = LineBuffer(b"T\t")
    for _ in range(40):
        assert list(buffer.append(b"x" * 65_536)) == []
    tracemalloc.start()
    try:
        for _ in range(400):
            assert list(buffer.append(b"x" * 65_536)) == []
        assert tracemalloc.get_traced_memory()[1] < 1 << 20  # of 25 MiB
    finally:
        tracemalloc.stop()
    size = 0
    for number, piece in enumerate(buffer.append(b"end\nnext")):
        assert len(piece) <= 2 << 20
        assert piece.startswith(b"T\tx") if number == 0 else not piece.startswith(b"T")
        size += len(piece)
    assert size == len(b"T\t") + 440 * 65_536 + len(b"end\n")
    assert b"".join(buffer.end()) == b"T\tnext\n"


# collecting


def test_concatenation_takes_what_succeeded(file: AppendFile) -> None:
    assert written(Concatenated(file), ended(b"data", b"err")) == b"data"
    assert written(Concatenated(file), ended(b"data", succeeded=False)) == b""


def test_blocks_have_a_head_of_their_parameters(file: AppendFile) -> None:
    what = ended(b"data\n", x="1", name="J. S.\n")
    assert written(Concatenated(file, headed=True), what) == b"# row 3: x=1 name='J. S. '\ndata\n"
    assert written(Concatenated(file, headed=True), ended(b"data\n", succeeded=False)) == b""


def test_what_a_program_made_of_it(file: AppendFile) -> None:
    what = ended(b"raw")
    assert written(Collected(file), what) == b""
    what.collected = output(b"made of it")
    assert written(Collected(file), what) == b"made of it"


def test_the_joblog(file: AppendFile) -> None:
    what = ended()
    assert written(Joblog(file), what) == joblog.line(what.outcome)


def test_results_as_csv(file: AppendFile) -> None:
    header = DelimitedResults.header(["1", 'na"me'])
    row = written(DelimitedResults(file), ended(b'a "b"\nc,', b"\xff", one='x,"y"', two="z\n"))
    names, cells = csv.reader(io.StringIO((header + row).decode("utf-8", "surrogateescape"), newline=""))
    assert names == [*joblog.COLUMNS, "V1", 'na"me', "Stdout", "Stderr"]
    assert cells == [
        "3", "w", "1.000", "2.000", "0", "0", "0", "0", "command", 'x,"y"', "z\n", 'a "b"\nc,', "\udcff",
    ]  # fmt: skip


def test_results_as_json(file: AppendFile) -> None:
    found = json.loads(written(JsonResults(file), ended(b'ab\n\xc3\xa4"', b"\xff\xfe", x="1")))
    assert found["stdout"] == 'ab\nä"'
    assert base64.b64decode(found["stderr_base64"]) == b"\xff\xfe"
    assert "stderr" not in found
    assert (found["seq"], found["host"], found["parameters"]) == (3, "w", {"x": "1"})


@pytest.mark.parametrize("cut", range(1, 9))
def test_a_character_may_be_cut_by_the_pieces(file: AppendFile, cut: int) -> None:
    text = 'ä€😀"\\'.encode()

    class Cut(Output):
        def pieces(self) -> object:  # type: ignore[override]
            return iter([text[:cut], text[cut:]])

    what = ended()
    what = EndedTask(what.task, what.outcome, {STDOUT: Cut(), STDERR: Output()})
    assert json.loads(written(JsonResults(file), what))["stdout"] == text.decode()
    half = EndedTask(what.task, what.outcome, {STDOUT: output(text[:1]), STDERR: output(os.urandom(1000) + b"\xff")})
    found = json.loads(written(JsonResults(file), half))
    assert base64.b64decode(found["stdout_base64"]) == text[:1]
    assert base64.b64decode(found["stderr_base64"]) == b"".join(half.outputs[STDERR].pieces())


def test_large_outputs_are_passed_on_in_pieces(file: AppendFile) -> None:
    data = bytes(range(256)) * 20_000
    what = ended(data, b"x" * 3_000_000)
    longest = max(len(piece) for piece in JsonResults(file).additions(what))
    assert longest < 2 * 1024 * 1024
    found = json.loads(written(JsonResults(file), what))
    assert base64.b64decode(found["stdout_base64"]) == data
    assert found["stderr"] == "x" * 3_000_000


def test_what_failed_is_red_line_by_line() -> None:
    assert b"".join(reddened([b"a\nb", b"c\n", b"\n", b"d"])) == (
        b"\x1b[31ma\x1b[0m\n\x1b[31mbc\x1b[0m\n\x1b[31m\x1b[0m\n\x1b[31md\x1b[0m"
    )
    assert b"".join(reddened([])) == b""


def test_only_what_failed_is_red_and_only_where_there_are_colours(file: AppendFile) -> None:
    failed, good = ended(b"out\n", b"", succeeded=False), ended(b"out\n", b"")
    assert written(Printed(file, STDOUT, red=True), failed) == b"out\n"  # a file
    file.terminal.coloured = True
    assert written(Printed(file, STDOUT, red=True), failed) == b"\x1b[31mout\x1b[0m\n"
    assert written(Printed(file, STDOUT, red=True), good) == b"out\n"
    assert written(Printed(file, STDOUT), failed) == b"out\n"
