"""--rpl: each expression does what GNU parallel does with it, or is refused."""

from __future__ import annotations

import subprocess

import pytest

from cexec.cmap.inputs.replacements import parse_replacement
from cexec.cmap.inputs.tables import Row
from cexec.cmap.inputs.templates import Template
from cexec.errors import UsageError
from tests.needs import require_tool

EXPRESSIONS = [
    ("{o} s/[.]wav$/.ogg/", "a.wav", "a.ogg"),
    ("{o} s/a/b/", "aa", "ba"),
    ("{o} s/a/b/g", "aAa", "bAb"),
    ("{o} s/a/b/gi", "aAa", "bbb"),
    ("{o} s:/:_:g", "a/b/c", "a_b_c"),
    (r"{o} s/\//_/g", "a/b/c", "a_b_c"),
    ("{o} s/(.)(.)/$2$1/", "xyz", "yxz"),
    ("{o} s/(.)/${1}1/", "xyz", "x1yz"),
    ("{o} s/y/[$&]/", "xyz", "x[y]z"),
    ("{o} s/a/b/; s/b/c/g;", "aab", "cac"),
    ("{o} s/^0+//", "007", "7"),
    ("{o}   s,.*/,,", "a/b/c.d", "c.d"),
]


@pytest.mark.parametrize(("text", "value", "expected"), EXPRESSIONS)
def test_a_substitution(text: str, value: str, expected: str) -> None:
    tag, change = parse_replacement(text, "--rpl")
    assert (tag, change(value)) == ("o", expected)


@pytest.mark.parametrize(("text", "value", "expected"), EXPRESSIONS)
def test_parallel_makes_the_same_of_it(text: str, value: str, expected: str) -> None:
    require_tool("parallel")
    argv = ["parallel", "--will-cite", "--rpl", text, "printf", "%s", "{o}", ":::", value]
    assert subprocess.run(argv, capture_output=True, text=True, timeout=60).stdout == expected


def test_the_tag_also_goes_with_columns() -> None:
    changes = dict([parse_replacement("{o} s/a/b/g", "--rpl")])
    row = Row(1, ("aa", "ca"))
    assert Template("{o} {1o} {2o} {nameo} {{o}}", ("1", "name"), changes).render(row) == "bb cb bb cb cb {o}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("o s/a/b/", "must be a tag in braces and a substitution"),
        ("{o}", "must be a tag in braces and a substitution"),
        ("{o} ", "must be a tag in braces and a substitution"),
        ("{o} s/a/b", "a substitution has three marks"),
        ("{o} s/a/b/e", "after a substitution come g or i"),
        ("{o} s/a/b/ s/c/d/", "after a substitution come g or i, and ; before the next one"),
        ("{o} $_=uc($_)", "only substitutions such as s/REGEX/TEXT/g are known here"),
        ("{o} s", "only substitutions"),
        ("{o} s{a}{b}", "only substitutions"),
        ("{o} s/(/b/", "unterminated subpattern"),
        ("{o} s/a/$1/", "invalid group reference"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_replacement(text, "--rpl")
    assert "--rpl" in str(raised.value) and message in str(raised.value)
