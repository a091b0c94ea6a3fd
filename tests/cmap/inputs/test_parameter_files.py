"""Files of parameters: each format, and each mistake with its line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cexec.cmap.inputs import parameter_files
from cexec.cmap.inputs.parameter_files import read_parameters
from cexec.cmap.inputs.tables import StoredRows
from cexec.errors import UsageError


def read(text: str | bytes) -> StoredRows:
    data = text.encode() if isinstance(text, str) else text
    return read_parameters(data.splitlines(keepends=True), "p.csv")


def all_cells(table: StoredRows) -> list[tuple[str, ...]]:
    return [table.row(number).cells for number in range(1, len(table) + 1)]


@pytest.mark.parametrize(
    "text",
    [
        "id,name\n1,one\n2,two\n",
        "id\tname\n1\tone\n2\ttwo\n",
        "id|name\n1|one\n2|two\n",
        "id | name\n1 | one\n 2 |two \n",
        "id,name\r\n1,one\r\n2,two\r\n",
        "id,name\n1,one\n2,two",
        "\n\nid,name\n\n1,one\n   \n2,two\n\n",
        '"id","name"\n"1","one"\n"2","two"\n',
        "\ufeffid,name\n1,one\n2,two\n",
        '{"id": 1, "name": "one"}\n{"name": "two", "id": 2}\n',
        '\n  {"id": 1, "name": "one"}\n\n{"name": "two", "id": "2"}  ',
    ],
)
def test_a_table_is_known_by_its_first_line(text: str) -> None:
    table = read(text)
    assert table.columns == ("id", "name")
    assert all_cells(table) == [("1", "one"), ("2", "two")]


def test_a_tab_wins_over_a_bar_and_a_bar_over_a_comma() -> None:
    assert read("a,b\tc|d\n1,2\t3|4\n").columns == ("a,b", "c|d")
    assert read("a,b|c\n1|2\n").columns == ("a,b", "c")


def test_semicolons_between_cells_are_told() -> None:
    with pytest.raises(UsageError) as raised:
        read("id;name\n1;one\n")
    assert str(raised.value) == (
        "p.csv, header line: there are semicolons in the name of the one column; cells are separated by commas, tabs "
        "or |, or by what --colsep says: --colsep ';'"
    )
    assert read('"id;name"\n1\n').columns == ("id;name",)  # it was meant
    assert read("id;name,b\n1,2\n").columns == ("id;name", "b")


def test_one_column() -> None:
    assert all_cells(read("file\na b.wav\n\nc.wav\n")) == [("a b.wav",), ("c.wav",)]
    with pytest.raises(UsageError, match="line 2 has 2 cells, but the header has 1"):
        read("file\na,b\n")


def test_quotes_are_those_of_csv_and_a_cell_may_contain_line_ends() -> None:
    table = read('id,text\n1,"a, ""b""\nc\r\nd"\n2,plain\n')
    assert all_cells(table) == [("1", 'a, "b"\nc\r\nd'), ("2", "plain")]
    assert table.row(1).line == '1,"a, ""b""\nc\r\nd"'
    assert table.row(1).inputs == (table.row(1).line,)
    assert all_cells(read('a\tb\n"x\ty"\t\n')) == [("x\ty", "")]


def test_quotes_mean_nothing_between_bars() -> None:
    assert all_cells(read('a|b\n"x | 2"\n |"\n')) == [('"x', '2"'), ("", '"')]


def test_the_header_may_have_quotes_and_several_lines() -> None:
    assert read('id,"long\nname"\n1,2\n').columns == ("id", "long\nname")


def test_empty_cells_are_cells_even_where_a_line_has_no_others() -> None:
    assert all_cells(read("a\tb\tc\n\t\t\n")) == [("", "", "")]


def test_bytes_that_are_no_utf8_come_back() -> None:
    assert read(b"a,b\n\xff,2\n").row(1).cells[0].encode("utf-8", "surrogateescape") == b"\xff"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n1\n", "p.csv, line 3 has 1 cell, but the header has 2"),
        ("a,b\n\n1,2,3\n", "p.csv, line 3 has 3 cells, but the header has 2"),
        ('a,b\n"1\n2",3\n1,2\n4\n', "p.csv, line 5 has 1 cell, but the header has 2"),
        ('a,b\n1,"x"y\n', "p.csv, line 2: "),
        ('a,b\n1,2\n1,"never ended\n1,2\n', "p.csv, line 3: "),
        ('a,"b\n', "p.csv, header line: "),
        ("a,,c\n1,2,3\n", "p.csv, header line: column 2 has no name"),
        ("a,b,a\n1,2,3\n", "p.csv, header line: two columns are called a"),
        ("1,2,3\n4,5,6\n", "the first line must name the columns, but has the number 1"),
        ("", "p.csv is empty; its first line must name the columns"),
        ("\n \n", "p.csv is empty"),
        ('{"a": 1}\n{"b": 1}\n', "p.csv, line 2 has no a, other than the first line"),
        ('{"a": 1}\n\n{"a": 1, "b": 1}\n', "p.csv, line 3 has b, other than the first line"),
        ('{"a": 1}\n{"a": 1,}\n', "p.csv, line 2, column "),
        ('{"a": 1}\nnull\n', "p.csv, line 2 must be one JSON object with at least one key"),
        ('{"a": 1} {"a": 1}\n', "p.csv, line 1 must be one JSON object"),
        ("\n{}\n", "p.csv, line 2 must be one JSON object with at least one key"),
        ('{"a": ' + "[" * 100_000 + "\n", "p.csv, line 1 cannot be read as JSON"),
        ('{"a": ' + "[" * 300 + "1" + "]" * 300 + "}\n" + '{"a": ' + "[" * 100_000, "p.csv, line 2 cannot be read"),
        ('{"a": "\\ud800"}\n', "p.csv, line 1 has an escape that is half a character"),
        ('{"a": "\\udce9"}\n', "p.csv, line 1 has an escape that is half a character"),
        ('{"\\ud800": 1}\n', "p.csv, line 1 has an escape that is half a character"),
        ('{"a": 1}\n{"a": 1, "a": 2}\n', "p.csv, line 2 has the key a twice in one object"),
        ('{"a": [{"b": {"c": 1, "d": 1, "c": 1}}]}\n', "p.csv, line 1 has the key c twice in one object"),
        ('{"a": NaN}\n', "p.csv, line 1 has NaN, which is no JSON"),
        ('{"a": [-Infinity]}\n', "p.csv, line 1 has -Infinity, which is no JSON"),
        ("a b,c,a_b\n1,2,3\n", "columns a b and a_b would both be the variable PARAM_a_b; rename one"),
        ('{"ä": 1, "ö": 1}\n', "columns ä and ö would both be the variable PARAM__"),
        ('{"1": "x"}\n', "has the number 1"),
    ],
)
def test_a_mistake_is_told_with_its_line(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        read(text)


def test_json_values_become_text() -> None:
    table = read('{"t": "\\u00e4 \\"x\\"", "i": 12, "f": 0.5, "b": true, "n": null, "l": [1, {"k": "v"}]}\n')
    assert table.row(1).cells == ('ä "x"', "12", "0.5", "true", "null", '[1,{"k":"v"}]')
    assert not table.has_nul


@pytest.mark.parametrize("number", ["1e6", "3.10", "1e400", "-0", "-0.0", "1E+2", "9" * 5000, "0.1" + "0" * 400])
def test_json_numbers_are_as_they_were_written(number: str) -> None:
    """Regression: 1e6 became 1000000.0, 3.10 became 3.1, and 1e400 the word Infinity."""
    table = read('{"n": %s, "l": [%s, {"k": %s}]}\n' % ((number,) * 3))
    assert table.row(1).cells == (number, f'[{number},{{"k":{number}}}]')


@pytest.mark.parametrize("size", [131_071, 131_072, 131_073, 3_000_000])
def test_a_cell_of_any_length_may_be_quoted_or_not(size: int) -> None:
    """Regression: a quoted cell of more than 131,072 characters was refused, an unquoted one was not."""
    cell = "x" * size
    assert all_cells(read(f'a,b\n{cell},1\n"{cell}",2\n')) == [(cell, "1"), (cell, "2")]
    assert all_cells(read(f'file\n{cell}\n"{cell}"\n')) == [(cell,), (cell,)]


def test_a_quote_that_never_ends_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parameter_files, "LONGEST_RECORD", 1000)
    read_so_far: list[int] = []

    def lines() -> Iterator[bytes]:
        yield from (b"a,b\n", b'1,"x\n')
        for number in range(10_000):
            read_so_far.append(number)
            yield b"123456789\n"

    with pytest.raises(UsageError, match="p, line 2: a quote that begins here does not end within 1000 B"):
        read_parameters(lines(), "p")
    assert len(read_so_far) == 101


def test_a_nul_is_noticed_however_it_is_written() -> None:
    assert read(b"a,b\n1,\0\n").has_nul
    assert read('{"a": "\\u0000"}\n').has_nul
    assert not read("a,b\n1,2\n").has_nul


CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=6)


@given(st.sampled_from("\t,"), st.lists(st.tuples(CELL, CELL), max_size=5))
def test_whatever_the_csv_module_writes_is_read_as_it_was(delimiter: str, rows: list[tuple[str, str]]) -> None:
    import csv
    import io

    file = io.StringIO()
    csv.writer(file, delimiter=delimiter, lineterminator="\n").writerows([("a", "b"), *rows])
    data = file.getvalue().encode()
    table = read_parameters((line + b"\n" for line in data.split(b"\n")), "p")
    assert all_cells(table) == rows


@given(st.lists(st.fixed_dictionaries({"a": CELL, "b": st.integers() | st.none()}), min_size=1, max_size=5))
def test_whatever_the_json_module_writes_is_read_as_it_was(rows: list[dict[str, object]]) -> None:
    for ascii_only in (False, True):
        lines = [json.dumps(row, ensure_ascii=ascii_only, sort_keys=True).encode() + b"\n" for row in rows]
        assert all_cells(read_parameters(lines, "p")) == [(row["a"], json.dumps(row["b"])) for row in rows]
