"""Tables: rows by their number."""

from __future__ import annotations

import io

import pytest

from cexec.cmap.inputs.store import RecordStore
from cexec.cmap.inputs.tables import Groups, Lines, Linked, Numbers, Product, Slices, Table, Words, decode, encode


def lines(data: bytes, separator: bytes = b"\n") -> Lines:
    store = RecordStore()
    store.take_lines(io.BytesIO(data), separator)
    return Lines(store, separator)


def all_cells(table: Table) -> list[tuple[str, ...]]:
    return [table.row(number).cells for number in range(1, len(table) + 1)]


def test_text_that_is_no_utf8_comes_back_as_it_was() -> None:
    data = bytes(range(256))
    assert encode(decode(data)) == data


def test_lines_and_what_ends_them() -> None:
    table = lines(b"one\ntwo words\n\nlast")
    assert all_cells(table) == [("one",), ("two words",), ("",), ("last",)]
    assert table.row(2).line == "two words"
    assert table.row(2).inputs == ("two words",)
    assert (table.terminator, table.longest, table.has_nul) == ("\n", 10, False)


def test_records_that_end_with_nul_may_contain_line_ends() -> None:
    table = lines(b"a\nb\0c\0", b"\0")
    assert all_cells(table) == [("a\nb",), ("c",)]
    assert (table.terminator, table.has_nul) == ("\0", False)


def test_a_product_has_every_combination_the_last_table_fastest() -> None:
    table = Product([Words(["a", "b"]), Words(["1", "2", "3"])])
    assert all_cells(table) == [("a", "1"), ("a", "2"), ("a", "3"), ("b", "1"), ("b", "2"), ("b", "3")]
    assert table.columns == ("1", "2")
    assert table.row(4).line == "b 1"
    assert table.longest == 2


def test_linked_tables_end_with_the_shortest() -> None:
    table = Linked([Words(["a", "b", "c"]), Words(["1", "2"])])
    assert all_cells(table) == [("a", "1"), ("b", "2")]


def test_a_product_of_linked_tables() -> None:
    table = Product([Linked([Words(["a", "b"]), Words(["1", "2"])]), Words(["x", "y"])])
    assert all_cells(table) == [("a", "1", "x"), ("a", "1", "y"), ("b", "2", "x"), ("b", "2", "y")]
    assert table.columns == ("1", "2", "3")


def test_nothing_times_something_is_nothing() -> None:
    assert len(Product([Words(["a"]), Words([])])) == 0


def test_groups_take_several_inputs_and_the_last_may_be_short() -> None:
    table = Groups(lines(b"a\nb\nc\n"), 2)
    assert len(table) == 2
    first, second = table.row(1), table.row(2)
    assert (first.cells, first.inputs, first.line) == (("a", "b"), ("a", "b"), "a\nb")
    assert (second.cells, second.inputs, second.line) == (("c", ""), ("c",), "c")
    assert table.cells(2) == ("c", "")
    assert table.longest >= len("a\nb\n")


def test_numbers_of_ranges_are_not_kept() -> None:
    table = Numbers([range(1, 101, 5), range(7, 8), range(10**12)])
    assert len(table) == 21 + 10**12
    assert [table.row(number).cells[0] for number in (1, 2, 20, 21, 22, 10**12)] == [
        "1", "6", "96", "7", "0", str(10**12 - 22),
    ]  # fmt: skip
    with pytest.raises(IndexError):
        table.cells(len(table) + 1)


def test_slices_know_their_number_and_how_many_there_are() -> None:
    table = Slices(3)
    assert table.columns == ("slice", "slices")
    assert all_cells(table) == [("1", "3"), ("2", "3"), ("3", "3")]
    assert table.row(2).line == "2 3"
