"""What a host answers may be anything."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cexec.boot.failures import REMOTE, HostError
from cexec.boot.shapes import LONGEST_TEXT, RECORD, SEEN, Every, fits, read_line, shaped

ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
GOOD: dict[str, Any] = {
    "app": "a", "fingerprint": "f", "options": [], "program": ["cat"], "packages": [], "environment": {"A": "b"},
    "how": "unit", "name": "n", "serial": 7, "not_after": None, "release": "1", "host": "h", "running": True,
    "version": "1", "more": [1],
}  # fmt: skip


def test_a_value_of_the_right_shape_comes_back() -> None:
    assert shaped(GOOD, RECORD) is GOOD


@pytest.mark.parametrize(
    "changes",
    [{"serial": "7"}, {"serial": True}, {"running": 1}, {"options": "x"}, {"options": [1]}, {"environment": {"A": 1}},
     {"not_after": "x"}, {"app": "x" * (LONGEST_TEXT + 1)}, {"how": None}],
)  # fmt: skip
def test_a_value_of_another_shape_is_a_failure_of_the_host(changes: dict[str, Any]) -> None:
    with pytest.raises(HostError, match="it answers what cannot be read") as caught:
        shaped({**GOOD, **changes}, RECORD)
    assert caught.value.failure.kind == REMOTE and len(caught.value.failure.text) < 200


@pytest.mark.parametrize("name", [name for name in RECORD])
def test_every_member_must_be_there(name: str) -> None:
    assert not fits({key: value for key, value in GOOD.items() if key != name}, RECORD)


@pytest.mark.parametrize("text", ["", "x", '{"a"', "[" * 100_000, '{"a":' * 100_000, "9" * 5000])
def test_a_line_that_cannot_be_read_is_a_failure_of_the_host(text: str) -> None:
    """Regression: a host that answered with brackets without end ended the run of all hosts with a traceback."""
    with pytest.raises(HostError, match="it answers what cannot be read") as caught:
        read_line(text)
    assert caught.value.failure.kind == REMOTE and len(caught.value.failure.text) < 200


@given(ANY)
def test_whatever_comes_is_accepted_or_refused(value: Any) -> None:
    for shape in (RECORD, SEEN, Every(list, str), (int, str)):
        try:
            shaped(value, shape)
        except HostError:
            pass
