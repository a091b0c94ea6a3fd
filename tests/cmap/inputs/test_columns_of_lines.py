"""Columns of lines and words, their names, and inputs of which a task sees nothing."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from cexec.cmap.inputs.columns_of_lines import one_character, parse_separator
from cexec.cmap.inputs.sources import Reading, table_from
from cexec.cmap.inputs.tables import Table
from cexec.cmap.inputs.task_plan import Plan, Work
from cexec.errors import UsageError


def cut(text: bytes, separator: str, *, headed: bool = False) -> Table:
    reading = Reading(separator=parse_separator(separator, "--colsep"), headed=headed)
    return table_from(stdin=io.BytesIO(text), reading=reading)


def all_cells(table: Table) -> list[tuple[str, ...]]:
    return [table.row(number).cells for number in range(1, len(table) + 1)]


@pytest.mark.parametrize(
    ("separator", "line"),
    [
        (",", b"a,b b,c\n"),
        (",", b" a , b b,c \n"),
        (r"\t", b"a\tb b\tc"),
        ("\t", b"a\tb b\tc\n"),
        (r"\|", b"a|b b|c\n"),
        ("[:;]", b"a:b b;c\n"),
        (r",\s*", b"a, b b,c\n"),
        ("--", b"a--b b--c\n"),
    ],
)
def test_columns_by_number(separator: str, line: bytes) -> None:
    plan = Plan(Work(arguments=["{3}", "{2}-{1}", "<{}>"]), cut(line, separator))
    assert plan.task(1).arguments == [b"c", b"b b-a", b"<a b b c>"]


def test_an_input_that_stands_alone_becomes_its_columns() -> None:
    assert Plan(Work(arguments=["{}"]), cut(b"a,b\nc\n", ",")).task(1).arguments == [b"a", b"b"]
    assert Plan(Work(arguments=["{}"]), cut(b"a,b\nc\n", ",")).task(2).arguments == [b"c"]


def test_columns_that_a_line_lacks_are_empty() -> None:
    assert all_cells(cut(b"a\nb,c,d\n\n", ",")) == [("a", "", ""), ("b", "c", "d"), ("", "", "")]


def test_the_line_itself_is_the_standard_input() -> None:
    assert Plan(Work(), cut(b"a , b\n", ",")).task(1).stdin.data == b"a , b\n"


def test_words_and_several_sources_have_their_columns_side_by_side(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("1:2\n")
    reading = Reading(separator=parse_separator(":", "--colsep"))
    words = table_from(inputs=[(":::", ["a:b", "c:d"]), (":::", ["x"])], reading=reading)
    assert (words.columns, all_cells(words)) == (("1", "2", "3"), [("a", "b", "x"), ("c", "d", "x")])
    both = table_from(files=["-", str(tmp_path / "f")], stdin=io.BytesIO(b"a:b\n"), reading=reading)
    assert all_cells(both) == [("a", "b", "1", "2")]


def test_the_first_row_names_the_columns() -> None:
    table = cut(b"name,size\nx,1\ny,2\n", ",", headed=True)
    assert (table.columns, all_cells(table)) == (("name", "size"), [("x", "1"), ("y", "2")])
    assert Plan(Work(arguments=["{size}{1}{#}"]), table).task(2).arguments == [b"2y2"]


def test_each_source_names_its_own_columns() -> None:
    table = table_from(inputs=[(":::", ["c", "r", "g"]), (":::", ["d", "1"])], reading=Reading(headed=True))
    assert (table.columns, all_cells(table)) == (("c", "d"), [("r", "1"), ("g", "1")])


def test_a_task_that_sees_nothing_of_its_input() -> None:
    table = table_from(inputs=[(":::", ["a", "b"])], reading=Reading(group=0))
    task = Plan(Work(arguments=["x{}", "{}", "{#}"]), table).task(2)
    assert (len(table), task.arguments, task.stdin.data) == (2, [b"x", b"2"], b"")
    assert Plan(Work(), table).task(1).stdin.data == b""


@pytest.mark.parametrize(
    ("reading", "message"),
    [
        (Reading(separator=re.compile(","), group=2), "-n cannot be used with --colsep or --header: a task has"),
        (Reading(headed=True, group=2), "-n cannot be used with --colsep or --header: a task has"),
    ],
)
def test_ways_to_read_that_contradict_one_another(reading: Reading, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        table_from(stdin=io.BytesIO(b"a\n"), reading=reading)


def test_without_a_first_row_there_are_no_names() -> None:
    with pytest.raises(UsageError, match="standard input is empty, but --header : takes the names of columns from"):
        cut(b"", ",", headed=True)
    with pytest.raises(UsageError, match="two columns are called a"):
        cut(b"a,a\n", ",", headed=True)


@pytest.mark.parametrize(("text", "message"), [("(", "is no regular expression"), ("x*", "also matches nothing")])
def test_what_is_no_separator(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=f"--colsep is .*{message}"):
        parse_separator(text, "--colsep")


@pytest.mark.parametrize(("text", "character"), [(";", ";"), (r"\t", "\t"), ("\t", "\t"), (r"\|", "|"), (r"\\", "\\")])
def test_with_a_table_the_separator_is_one_character(text: str, character: str) -> None:
    assert one_character(re.compile(text)) == character


@pytest.mark.parametrize("text", ["--", "[:;]", '"'])
def test_with_a_table_the_separator_is_no_pattern(text: str) -> None:
    with pytest.raises(UsageError, match="but with --params it must be one character"):
        one_character(re.compile(text))


def test_a_table_with_semicolons(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text('id;name\n1;"a;b"\n2;c\n')
    reading = Reading(separator=parse_separator(";", "--colsep"))
    table = table_from(params=str(tmp_path / "p.csv"), reading=reading)
    assert (table.columns, all_cells(table)) == (("id", "name"), [("1", "a;b"), ("2", "c")])
