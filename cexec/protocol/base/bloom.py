"""A set of instance ids in a few bytes: the Bloom filter by which a census names the workers that it knows.

Contract: `make(salt, ids, room)` returns at most `room` bytes; `contains(data, salt, identity)` is true for every id
that was put in, and sometimes for another one.  More room makes this rarer, and another salt hits other ids.  An empty
filter contains nothing.  Any bytes are a filter.  Pure.  docs/protocol.md section 2.2.
"""

from __future__ import annotations

from cexec.protocol.base.sodium import keyed_hash

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

LABEL = b"cexec 1 known"
PLACES = 4  # (protocol) bits that are set for each id
PLACE_SIZE = 4  # bytes (protocol) of the hash for each of them
BITS = 12  # (ours) for each id while there is room: one other id in 150 is then taken for one of them


def make(salt: bytes, ids: Collection[bytes], room: int) -> bytes:
    """The filter of `ids`."""
    bits = bytearray(min(room, (len(ids) * BITS + 7) // 8))
    if bits:
        for identity in ids:
            for place in _places(salt, identity, 8 * len(bits)):
                bits[place >> 3] |= 1 << (place & 7)
    return bytes(bits)


def contains(data: bytes, salt: bytes, identity: bytes) -> bool:
    """Returns True if `identity` was put into the filter `data`, and rarely also if it was not."""
    return bool(data) and all(data[place >> 3] & 1 << (place & 7) for place in _places(salt, identity, 8 * len(data)))


def _places(salt: bytes, identity: bytes, bits: int) -> list[int]:
    digest = keyed_hash(salt, LABEL, identity, size=PLACES * PLACE_SIZE)
    return [
        int.from_bytes(digest[start : start + PLACE_SIZE], "big") % bits for start in range(0, len(digest), PLACE_SIZE)
    ]
