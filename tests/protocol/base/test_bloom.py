"""The filter by which a census says whom it knows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cexec.protocol.base import bloom

SALT = b"s" * 32
ids = st.lists(st.binary(min_size=16, max_size=16), max_size=50)


def numbered(numbers: range) -> list[bytes]:
    return [number.to_bytes(16, "big") for number in numbers]


@given(ids, st.integers(1, 800))
def test_what_was_put_in_is_contained(identities: list[bytes], room: int) -> None:
    data = bloom.make(SALT, identities, room)
    assert len(data) <= room
    assert all(bloom.contains(data, SALT, identity) for identity in identities)


def test_a_filter_of_nobody_is_empty_and_contains_nobody() -> None:
    assert bloom.make(SALT, [], 800) == b""
    assert not bloom.contains(b"", SALT, b"i" * 16)


def test_a_filter_with_room_takes_few_others_for_its_own() -> None:
    data = bloom.make(SALT, numbered(range(100)), 800)
    assert len(data) == 150
    assert sum(bloom.contains(data, SALT, other) for other in numbered(range(1000, 3000))) < 40


def test_a_thousand_fit_into_a_datagram_well_enough() -> None:
    data = bloom.make(SALT, numbered(range(1000)), 797)
    assert len(data) == 797
    assert sum(bloom.contains(data, SALT, other) for other in numbered(range(1000, 3000))) < 200  # 10 in 100


def test_another_salt_confuses_others() -> None:
    known, others = numbered(range(1000)), numbered(range(1000, 3000))
    confused = []
    for salt in (SALT, b"t" * 32):
        data = bloom.make(salt, known, 797)
        confused.append({other for other in others if bloom.contains(data, salt, other)})
    assert confused[0] and confused[1]
    assert len(confused[0] & confused[1]) < min(map(len, confused)) / 2


@given(st.binary(max_size=100), st.binary(min_size=16, max_size=16))
def test_any_bytes_are_a_filter(data: bytes, identity: bytes) -> None:
    assert bloom.contains(data, SALT, identity) in (True, False)
