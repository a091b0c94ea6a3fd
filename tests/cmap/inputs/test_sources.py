"""Where tasks come from: options to a table, a choice of rows, an order, blocks of a stream."""

from __future__ import annotations

import io
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cexec.cmap.inputs.notation import parse_ranges
from cexec.cmap.inputs.sources import (
    LINEAR,
    RANDOM,
    Reading,
    Selection,
    cut_blocks,
    parse_order,
    split_words,
    table_from,
    with_header,
)
from cexec.cmap.inputs.tables import Table
from cexec.errors import UsageError


def all_cells(table: Table) -> list[tuple[str, ...]]:
    return [table.row(number).cells for number in range(1, len(table) + 1)]


def test_words_are_split_at_each_sign() -> None:
    assert split_words(["app.pub", "-j", "2", ":::", "a", "b", ":::+", "1", ":::", "x"]) == (
        ["app.pub", "-j", "2"],
        [(":::", ["a", "b"]), (":::+", ["1"]), (":::", ["x"])],
    )
    assert split_words(["app.pub"]) == (["app.pub"], [])
    assert split_words([":::"]) == ([], [(":::", [])])
    with pytest.raises(UsageError, match="there is none"):
        split_words(["app.pub", ":::+", "a"])


def test_inputs_on_the_command_line() -> None:
    assert all_cells(table_from(inputs=[(":::", ["a", "b"])])) == [("a",), ("b",)]
    assert all_cells(table_from(inputs=[(":::", ["a", "b"]), (":::", ["x", "y"])])) == [
        ("a", "x"), ("a", "y"), ("b", "x"), ("b", "y"),
    ]  # fmt: skip
    linked = [(":::", ["a", "b"]), (":::+", ["1", "2", "3"]), (":::", ["x"]), (":::+", ["y"])]
    assert all_cells(table_from(inputs=linked)) == [("a", "1", "x", "y"), ("b", "2", "x", "y")]
    assert len(table_from(inputs=[(":::", [])])) == 0


def test_lines_of_standard_input_are_what_there_is_by_default() -> None:
    assert all_cells(table_from(stdin=io.BytesIO(b"a\nb\n"))) == [("a",), ("b",)]
    assert all_cells(table_from(stdin=io.BytesIO(b"a\n\0b"), reading=Reading(null=True))) == [("a\n",), ("b",)]


def test_standard_input_stays_open() -> None:
    for options in ({}, {"params": "-"}):
        stdin = io.BytesIO(b"a,b\n1,2\n")
        table_from(stdin=stdin, **options)  # type: ignore[arg-type]
        assert not stdin.closed


def test_files_of_lines(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"a\nb\n")
    (tmp_path / "two").write_bytes(b"1\n2")
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    assert all_cells(table_from(files=[one])) == [("a",), ("b",)]
    assert all_cells(table_from(files=[one, two])) == [("a", "1"), ("a", "2"), ("b", "1"), ("b", "2")]
    assert all_cells(table_from(files=["-", two], stdin=io.BytesIO(b"x\n"))) == [("x", "1"), ("x", "2")]


def test_several_inputs_for_a_task() -> None:
    assert all_cells(table_from(inputs=[(":::", ["a", "b", "c"])], reading=Reading(group=2))) == [("a", "b"), ("c", "")]
    assert all_cells(table_from(stdin=io.BytesIO(b"a\nb\n"), reading=Reading(group=2))) == [("a", "b")]


def test_parameters_arrays_and_slices(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("a,b\n1,2\n")
    assert all_cells(table_from(params=str(path))) == [("1", "2")]
    assert all_cells(table_from(params="-", stdin=io.BytesIO(b'{"a": 1}\n'))) == [("1",)]
    assert all_cells(table_from(array_members=parse_ranges("1-9:4,3", "--array"))) == [("1",), ("5",), ("9",), ("3",)]
    assert all_cells(table_from(slices=2)) == [("1", "2"), ("2", "2")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"params": "p", "slices": 2}, "--params and --slices cannot be used together"),
        ({"inputs": [(":::", ["a"])], "files": ["f"]}, "::: and -a cannot be used together"),
        ({"slices": 2, "reading": Reading(group=2)}, "-n needs one source of inputs"),
        ({"files": ["a", "b"], "reading": Reading(group=2)}, "-n needs one source of inputs"),
        ({"inputs": [(":::", ["a"]), (":::", ["a"])], "reading": Reading(group=2)}, "-n needs one source of inputs"),
        ({"array_members": [range(1, 4)], "reading": Reading(null=True)}, "-0 is about lines"),
        ({"files": ["/nonexistent"]}, "cannot read /nonexistent: no such file or directory"),
        ({"params": "/"}, "cannot read /: is a directory"),
        ({"files": ["/"]}, "cannot read /: is a directory"),
        ({}, "standard input is needed for something else"),
        ({"inputs": [(":::", ["a"] * 1000)] * 6}, "too many combinations"),
    ],
)
def test_mistakes_are_told(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        table_from(**options)  # type: ignore[arg-type]


# the selection


def test_all_rows_in_order_by_default() -> None:
    selection = Selection(4)
    assert (len(selection), list(selection), list(selection.ascending())) == (4, [1, 2, 3, 4], [1, 2, 3, 4])
    assert list(Selection(0)) == []


def test_chosen_rows_are_taken_once_in_the_tables_order() -> None:
    selection = Selection(12, chosen=parse_ranges("8-10,2,9-12:3", "--rows"))
    assert (len(selection), list(selection)) == (5, [2, 8, 9, 10, 12])


@pytest.mark.parametrize("chosen", ["0", "13", "1-13", "0-2", "1-999999999999999"])
def test_a_row_that_is_not_there_is_told(chosen: str) -> None:
    with pytest.raises(UsageError, match=r"there is no row .*; the last one is 12"):
        Selection(12, chosen=parse_ranges(chosen, "--rows"))


def test_a_random_order_is_another_one_and_the_same_again() -> None:
    selection = Selection(1000, order=RANDOM, seed=5)
    assert list(selection) != list(range(1, 1001))
    assert sorted(selection) == list(range(1, 1001))
    assert list(selection) == list(Selection(1000, order=RANDOM, seed=5))
    assert list(selection) != list(Selection(1000, order=RANDOM, seed=6))
    assert list(selection.ascending()) == list(range(1, 1001))


def test_every_order_is_as_likely() -> None:
    orders = Counter(
        tuple(Selection(9, chosen=[range(2, 3), range(5, 6), range(7, 8)], order=RANDOM, seed=seed))
        for seed in range(600)
    )
    assert len(orders) == 6
    assert min(orders.values()) > 60


def test_an_unknown_order_is_told() -> None:
    with pytest.raises(UsageError, match="--order is 'reverse', but must be linear or random"):
        parse_order("reverse", "--order")
    assert parse_order("random", "--order") == RANDOM
    assert list(Selection(1, order=LINEAR)) == [1]


# blocks


def blocks(data: bytes, size: int, end: bytes = b"\n") -> list[bytes]:
    return list(cut_blocks(io.BytesIO(data), size, end))


def test_blocks_are_whole_records() -> None:
    assert blocks(b"aa\nbb\ncc\ndd", 6) == [b"aa\nbb\n", b"cc\ndd"]
    assert blocks(b"aa\nbb\ncc\n", 7) == [b"aa\nbb\n", b"cc\n"]
    assert blocks(b"", 7) == []


def test_a_longer_record_is_a_block_of_its_own() -> None:
    assert blocks(b"a\n" + b"b" * 20 + b"\nc\n", 4) == [b"a\n", b"b" * 20 + b"\n", b"c\n"]
    assert blocks(b"b" * 20, 4) == [b"b" * 20]


def test_records_may_end_with_several_bytes() -> None:
    assert blocks(b"a\n\nb\nb\n\nc\n\n", 5, b"\n\n") == [b"a\n\n", b"b\nb\n\n", b"c\n\n"]
    assert blocks(b"a--b--c", 3, b"--") == [b"a--", b"b--", b"c"]


def test_without_an_end_blocks_are_cut_anywhere() -> None:
    assert blocks(b"0123456789", 4, b"") == [b"0123", b"4567", b"89"]


def test_nothing_is_read_before_it_is_asked_for() -> None:
    stream = io.BytesIO(b"line\n" * 100)
    found = cut_blocks(stream, 50, b"\n")
    assert stream.tell() == 0
    assert next(found) == b"line\n" * 10
    assert stream.tell() <= 100


@given(st.lists(st.binary(max_size=8)).map(b";;".join), st.integers(1, 12), st.sampled_from([b";;", b";", b"", b"abc"]))
def test_blocks_put_together_are_the_stream(data: bytes, size: int, end: bytes) -> None:
    found = blocks(data, size, end)
    assert b"".join(found) == data
    for block in found[:-1]:
        assert block.endswith(end)
        assert len(block) <= size or end not in block[: -len(end)]


# --header of blocks


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_each_block_begins_with_the_header(chunk: int) -> None:
    data = b"name\nsize\na1\nb2\nc3\n"

    class Slow(io.RawIOBase):
        place = 0

        def read(self, size: int = -1) -> bytes:
            size = min(size, chunk)
            self.place += size
            return data[self.place - size : self.place]

    def blocks(lines: int) -> list[bytes]:
        return list(with_header(Slow(), lines, 6, b"\n"))  # type: ignore[arg-type]

    assert blocks(2) == [b"name\nsize\na1\nb2\n", b"name\nsize\nc3\n"]
    assert blocks(0) == [b"name\n", b"size\n", b"a1\nb2\n", b"c3\n"]
    assert blocks(9) == []
