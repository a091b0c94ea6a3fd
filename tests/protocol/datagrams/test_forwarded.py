"""Datagrams that are passed on to the other processes of a host, docs/protocol.md section 2.5."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cexec.protocol.base.limits import MAXIMUM_DATAGRAM, MAXIMUM_FORWARDED
from cexec.protocol.datagrams import datagram
from cexec.protocol.datagrams.forwarded import MAXIMUM_MESSAGE, may_be_wrapped, pack, split, unwrap, wrap
from tests.protocol.wires import APPLICATION, STRANGERS, cut_anywhere, hostile_bytes, mutations

KEYS = [APPLICATION.client.mac1_key]
DATA = APPLICATION.announce().datagram(3, 4000, 8)
SOURCES: list[tuple[Any, ...]] = [("10.0.0.3", 1), ("fd77::3", 65535, 0, 0), ("fe80::3", 4000, 0, 7)]
HEAD = wrap(DATA, SOURCES[0])[: datagram.INNER_START]
LONGEST = datagram.PREFIX + bytes([datagram.ALERT]) + bytes(MAXIMUM_DATAGRAM - 6)


@pytest.mark.parametrize("source", SOURCES)
def test_what_was_wrapped_comes_out_with_its_source(source: tuple[Any, ...]) -> None:
    assert may_be_wrapped(DATA)
    assert unwrap(wrap(DATA, source)) == (DATA, source)


def test_the_scope_of_an_address_is_a_number_only() -> None:
    assert unwrap(wrap(DATA, ("fe80::3%eth0", 4000, 0, 7))) == (DATA, ("fe80::3", 4000, 0, 7))


def test_the_longest_datagram_can_be_wrapped() -> None:
    wrapped = wrap(LONGEST, ("ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255", 65535, 0, 2**32 - 1))
    assert MAXIMUM_DATAGRAM < len(wrapped) <= MAXIMUM_FORWARDED
    assert unwrap(wrapped) is not None


def test_datagrams_of_any_key_are_wrapped_but_none_of_another_kind_or_version() -> None:
    assert may_be_wrapped(STRANGERS.announce().datagram(0, 4000, 8))
    for bad in (b"", b"x" * 100, wrap(DATA, SOURCES[0]), LONGEST + b"\0", DATA[:28], b"\0" + DATA[1:],
                DATA[:4] + b"\2" + DATA[5:], DATA[:5] + b"\xff" + DATA[6:]):  # fmt: skip
        assert not may_be_wrapped(bad)


def test_a_wrapped_datagram_is_no_datagram_itself() -> None:
    assert datagram.parse(DATA, KEYS) is not None
    assert datagram.parse(wrap(DATA, SOURCES[0]), KEYS) is None


def test_a_wrapped_datagram_that_was_wrapped_is_refused() -> None:
    twice = wrap(wrap(DATA, SOURCES[0]), SOURCES[0])
    assert unwrap(twice) is None


@pytest.mark.parametrize("address", [b"", b"\1" * 5, b"name.example"])
def test_a_source_that_is_no_address_is_refused(address: bytes) -> None:
    """A name would be looked up when it is answered, which can take a minute."""
    inner = bytes([len(address)]) + address + bytes(6) + DATA
    assert unwrap(HEAD + inner) is None


def test_a_wrapped_datagram_cut_in_its_head_is_refused() -> None:
    wrapped = wrap(DATA, SOURCES[0])
    head = len(wrapped) - len(DATA)
    for bad in cut_anywhere(wrapped)[: head + datagram.INNER_START + 1]:
        assert unwrap(bad) is None
    assert unwrap(wrapped + bytes(MAXIMUM_FORWARDED)) is None


@given(hostile_bytes | mutations(wrap(DATA, SOURCES[0])) | st.binary(max_size=200).map(lambda inner: HEAD + inner))
def test_hostile_bytes_yield_nothing_or_a_datagram_to_be_checked(data: bytes) -> None:
    found = unwrap(data)
    assert found is None or may_be_wrapped(found[0])


# Messages between the processes of one host


@given(st.lists(st.binary(min_size=1, max_size=MAXIMUM_FORWARDED), max_size=200))
def test_all_that_is_packed_comes_out_in_order(datagrams: list[bytes]) -> None:
    messages = pack(datagrams)
    assert [data for message in messages for data in split(message)] == datagrams
    assert all(0 < len(message) <= MAXIMUM_MESSAGE for message in messages)


@given(mutations(b"".join(pack([wrap(DATA, SOURCES[0])] * 3))))
def test_of_a_damaged_message_whole_datagrams_come_out(message: bytes) -> None:
    found = split(message)
    assert message.startswith(b"".join(len(data).to_bytes(2, "big") + data for data in found))
