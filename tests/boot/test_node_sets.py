"""Node sets of clush."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cexec.boot.node_sets import MOST_NAMES, expand
from cexec.errors import UsageError


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("node1", ["node1"]),
        ("node[01-03,40]", ["node01", "node02", "node03", "node40"]),
        ("node[8-11]", ["node8", "node9", "node10", "node11"]),
        ("node[008-010]", ["node008", "node009", "node010"]),
        ("a[1-9/4]", ["a1", "a5", "a9"]),
        ("r[1-2]n[1-2].example", ["r1n1.example", "r1n2.example", "r2n1.example", "r2n2.example"]),
        ("a,b[1-2],a", ["a", "b1", "b2"]),
        ("a[1-4]!a3", ["a1", "a2", "a4"]),
        ("a[1-4]!a[2-3],a2", ["a1", "a4", "a2"]),
        ("4/user@node[1-2]:22", ["4/user@node1:22", "4/user@node2:22"]),
        ("[fd77::1]:22,b", ["[fd77::1]:22", "b"]),
        ("a, b", ["a", "b"]),
        ("", []),
    ],
)
def test_a_set_is_expanded_in_its_order(text: str, names: list[str]) -> None:
    assert expand(text) == names


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("node[1-", "not closed"),
        ("node1-2]", "do not match"),
        ("node[[1]]", "do not match"),
        ("node[]", "neither a number nor a range"),
        ("node[a-b]", "'a-b' is neither a number nor a range"),
        ("node[3-1]", "the range 3-1 is empty"),
        ("node[1-5/0]", "the range 1-5/0 is empty"),
        ("node[1-99999999]", "more than"),
        ("a[1-200]b[1-200]", f"more than {MOST_NAMES} hosts"),
        ("node[11111111111111111111]", "neither a number"),
        ("@rack1", "nodeset -e @rack1"),
    ],
)
def test_a_slip_of_the_pen_is_named(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        expand(text)
    assert words in str(caught.value) and repr(text) in str(caught.value)


@given(st.text(alphabet="ab[]-,!/0123456789@:", max_size=20))
def test_any_text_gives_names_or_a_usage_error(text: str) -> None:
    try:
        names = expand(text)
    except UsageError:
        return
    assert len(names) == len(set(names)) <= MOST_NAMES


@given(st.integers(0, 500), st.integers(0, 60), st.integers(1, 4))
def test_a_range_has_the_numbers_that_it_says(first: int, more: int, width: int) -> None:
    names = expand(f"n[{first:0{width}}-{first + more:0{width}}]")
    assert [int(name[1:]) for name in names] == list(range(first, first + more + 1))
