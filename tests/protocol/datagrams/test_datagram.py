"""The outer part of datagrams, docs/protocol.md section 2.1."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cexec.protocol.base.limits import MAXIMUM_DATAGRAM
from cexec.protocol.datagrams import datagram
from tests.protocol.wires import cut_anywhere, hostile_bytes, mutations

KEY, OTHER_KEY = b"\x07" * 32, b"\x08" * 32
INNER = b"the inner part, never changed on the way"
MAC1 = datagram.compute_mac1(KEY, datagram.ANNOUNCEMENT, INNER)
WHOLE = datagram.encode(datagram.ANNOUNCEMENT, MAC1, INNER, hops=8, counter=0x0102, reply_port=0xABCD)
REWRITABLE = range(6, 12)  # hops, flags, counter, reply port


def test_the_layout_is_that_of_the_document() -> None:
    header = b"\xcexec" + bytes([1, 1, 8, 0, 1, 2, 0xAB, 0xCD])
    assert header + MAC1 + INNER == WHOLE
    assert len(MAC1) == 16


def test_a_datagram_reads_back() -> None:
    parsed = datagram.parse(WHOLE, [KEY])
    assert parsed is not None
    assert (parsed.kind, parsed.hops, parsed.counter, parsed.reply_port) == (datagram.ANNOUNCEMENT, 8, 0x0102, 0xABCD)
    assert (parsed.mac1, parsed.inner, parsed.key) == (MAC1, INNER, 0)


@given(st.sampled_from(datagram.KINDS), st.binary(min_size=1, max_size=1204), *[st.integers(0, 255)] * 3)
def test_what_parses_encodes_to_the_same_bytes(kind: int, inner: bytes, hops: int, counter: int, port: int) -> None:
    mac1 = datagram.compute_mac1(KEY, kind, inner)
    data = datagram.encode(kind, mac1, inner, hops=hops, counter=counter * 257, reply_port=port * 257)
    parsed = datagram.parse(data, [KEY])
    assert parsed is not None
    again = datagram.encode(
        parsed.kind, parsed.mac1, parsed.inner, hops=parsed.hops, counter=parsed.counter, reply_port=parsed.reply_port
    )
    assert again == data


def test_a_datagram_cut_anywhere_is_dropped() -> None:
    assert [datagram.parse(cut, [KEY]) for cut in cut_anywhere(WHOLE)] == [None] * len(WHOLE)


def test_a_trailer_is_dropped_with_its_datagram() -> None:
    assert datagram.parse(WHOLE + b"\0", [KEY]) is None


def test_a_relay_can_change_only_hops_flags_counter_and_port() -> None:
    for offset in range(len(WHOLE)):
        changed = WHOLE[:offset] + bytes([WHOLE[offset] ^ 1]) + WHOLE[offset + 1 :]
        parsed = datagram.parse(changed, [KEY])
        if offset in REWRITABLE:
            assert parsed is not None and parsed.mac1 == MAC1 and parsed.inner == INNER
        else:
            assert parsed is None, offset


def test_mac1_is_for_one_kind_only() -> None:
    moved = datagram.encode(datagram.CLAIM, MAC1, INNER, hops=8)
    assert datagram.parse(moved, [KEY]) is None


def test_the_key_that_fits_is_named() -> None:
    parsed = datagram.parse(WHOLE, [OTHER_KEY, KEY])
    assert parsed is not None and parsed.key == 1


@pytest.mark.parametrize("keys", [[], [OTHER_KEY]])
def test_without_the_key_everything_is_dropped(keys: list[bytes]) -> None:
    assert datagram.parse(WHOLE, keys) is None


def test_the_longest_datagram_and_one_byte_more() -> None:
    inner = bytes(MAXIMUM_DATAGRAM - datagram.INNER_START)
    mac1 = datagram.compute_mac1(KEY, datagram.ALERT, inner)
    longest = datagram.encode(datagram.ALERT, mac1, inner, hops=0)
    assert len(longest) == MAXIMUM_DATAGRAM and datagram.parse(longest, [KEY]) is not None
    inner += b"\0"
    mac1 = datagram.compute_mac1(KEY, datagram.ALERT, inner)
    with pytest.raises(ValueError, match="1233 bytes"):
        datagram.encode(datagram.ALERT, mac1, inner, hops=0)
    assert datagram.parse(longest[:12] + mac1 + inner, [KEY]) is None


def test_the_counter_starts_again_after_65535() -> None:
    data = datagram.encode(datagram.ANNOUNCEMENT, MAC1, INNER, hops=8, counter=65_536 + 5)
    parsed = datagram.parse(data, [KEY])
    assert parsed is not None and parsed.counter == 5


@given(hostile_bytes | mutations(WHOLE))
def test_hostile_bytes_are_dropped_in_silence(data: bytes) -> None:
    parsed = datagram.parse(data, [KEY])
    assert parsed is None or parsed.inner == INNER
