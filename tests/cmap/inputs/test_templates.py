"""Placeholders, clause by clause of the table in the module."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cexec.cmap.inputs.tables import Row
from cexec.cmap.inputs.templates import Template
from cexec.errors import UsageError
from tests.needs import require_tool

ONE = ("1",)
NAMED = ("id", "file", "sample name", "a.b")


def filled(text: str, cell: str = "dir/sub/song.tar.gz") -> str:
    return Template(text, ONE).render(Row(7, (cell,)))


def named(text: str) -> str:
    return Template(text, NAMED).render(Row(2, ("x1", "in/a.wav", "J. Smith", "dot"), "x1,in/a.wav", ("x1,in/a.wav",)))


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("{}", "dir/sub/song.tar.gz"),
        ("{.}", "dir/sub/song.tar"),
        ("{/}", "song.tar.gz"),
        ("{//}", "dir/sub"),
        ("{/.}", "song.tar"),
        ("{#}", "7"),
        ("{1}", "dir/sub/song.tar.gz"),
        ("{1.}", "dir/sub/song.tar"),
        ("{1/}", "song.tar.gz"),
        ("{1//}", "dir/sub"),
        ("{1/.}", "song.tar"),
        ("{..}", "dir/sub/song"),
        ("{...}", "dir/sub/song.tar.gz"),
        ("{/..}", "song"),
        ("{/...}", "song.tar.gz"),
        ("{1..}", "dir/sub/song"),
        ("{+.}", "gz"),
        ("{+..}", "tar.gz"),
        ("{+...}", ""),
        ("{+/}", "dir/sub"),
        ("{1+/}", "dir/sub"),
        ("{{..}}", "{..}"),
        ("{%}", "{%}"),
        ("{.}.ogg", "dir/sub/song.tar.ogg"),
        ("a{#}b{}c{#}", "a7bdir/sub/song.tar.gzc7"),
        ("no placeholder", "no placeholder"),
        ("", ""),
    ],
)
def test_placeholders(text: str, result: str) -> None:
    assert filled(text) == result


PLUS = ("{..}", "{...}", "{/..}", "{/...}", "{+.}", "{+..}", "{+...}", "{+/}", "{.}", "{/}", "{//}", "{/.}")


@pytest.mark.parametrize("cell", ["a/b.tar.gz.x", "b.c", "b", "a/b", "/b.c", "a.b/c.d.e", "x/y/z.1.2.3.4"])
def test_parallel_takes_names_apart_likewise(cell: str) -> None:
    require_tool("parallel")
    argv = ["parallel", "--will-cite", "--plus", "printf", "'%s\\n'", *(f"'<'{one}'>'" for one in PLUS), ":::", cell]
    found = subprocess.run(argv, capture_output=True, text=True, timeout=60).stdout.splitlines()
    assert [f"<{filled(one, cell)}>" for one in PLUS] == found


def test_the_slot_is_what_the_row_says() -> None:
    row = Row(7, ("a",))
    row.slot = "3"
    assert Template("{%}-{#}", ONE).render(row) == "3-7"
    assert Template("{%}", ONE).used == {"%"}


@pytest.mark.parametrize(
    ("cell", "without_suffix", "base", "directory"),
    [
        ("a.wav", "a", "a.wav", "."),
        ("a", "a", "a", "."),
        ("/a.wav", "/a", "a.wav", "/"),
        ("/a", "/a", "a", "/"),
        ("d.x/a", "d.x/a", "a", "d.x"),
        (".bashrc", ".bashrc", ".bashrc", "."),
        ("d/.bashrc", "d/.bashrc", ".bashrc", "d"),
        ("d/", "d/", "d", "."),
        ("d//a.b", "d//a", "a.b", "d"),
        ("../a.b", "../a", "a.b", ".."),
        ("", "", "", "."),
        ("a.", "a", "a.", "."),
    ],
)
def test_parts_of_a_path(cell: str, without_suffix: str, base: str, directory: str) -> None:
    assert [filled(text, cell) for text in ("{.}", "{/}", "{//}")] == [without_suffix, base, directory]


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("{id}-{file/.}.png", "x1-a.png"),
        ("{2}", "in/a.wav"),
        ("{sample name}", "J. Smith"),
        ("{sample name.}", "J"),
        ("{a.b}", "dot"),
        ("{a.b.}", "dot"),
        ("{}", "x1,in/a.wav"),
    ],
)
def test_columns_by_name_and_number(text: str, result: str) -> None:
    assert named(text) == result


@pytest.mark.parametrize(
    "text",
    ["{print $1}", '{"a": {"b": 1}}', "{ }", "{1,3}", "{", "}", "}{", "${x:-y}", "{-}", "{....}", "{{", "{{ x }}"],
)
def test_other_braces_are_text(text: str) -> None:
    assert filled(text) == text
    assert not Template(text, ONE).used


@pytest.mark.parametrize(
    ("text", "result"),
    [("{{}}", "{}"), ("{{1}}", "{1}"), ("{{foo}}", "{foo}"), ("{{#}}{#}", "{#}7"), ("a{{/.}}b", "a{/.}b")],
)
def test_doubled_braces_stand_for_the_text(text: str, result: str) -> None:
    assert filled(text) == result
    assert not Template("{{}}{{1}}", ONE).used


@pytest.mark.parametrize("text", ["{2}", "{0}", "{foo}", "{foo.}", "{foo/.}", "{foo//}", "x{Id}y", "{return}", "{1x}"])
def test_an_unknown_column_is_told_with_those_that_there_are(text: str) -> None:
    with pytest.raises(UsageError, match=r"there is no such column; the columns are 1; \{\{"):
        Template(text, ONE)
    with pytest.raises(UsageError, match="the columns are none"):
        Template("{1}", ())


def test_which_columns_are_used() -> None:
    assert Template("{id}{2.}{#}{}", NAMED).used == {"id", "file", "#", "{}"}
    assert Template("{/.}", NAMED).used == {"{}"}
    assert Template("plain", NAMED).used == set()


def test_several_inputs_are_joined_unless_the_placeholder_is_the_argument() -> None:
    row = Row(1, ("a x.c", "b.c", ""), inputs=("a x.c", "b.c"))
    columns = ("1", "2", "3")
    assert Template("{}", columns).render_each(row) == ["a x.c", "b.c"]
    assert Template("{.}", columns).render_each(row) == ["a x", "b"]
    assert Template("-f{}", columns).render_each(row) == ["-fa x.c b.c"]
    assert Template("{1}", columns).render_each(row) == ["a x.c"]
    assert Template("{3}", columns).render_each(row) == [""]
    assert Template("{}{}", columns).render_each(row) == ["a x.c b.ca x.c b.c"]
    assert Template("{{}}", columns).render_each(row) == ["{}"]


@given(st.text(max_size=20))
def test_what_is_filled_in_is_never_looked_at_again(cell: str) -> None:
    assert filled("<{}>", cell) == f"<{cell}>"
    assert Template("{}", ONE).render_each(Row(1, (cell,))) == [cell]
