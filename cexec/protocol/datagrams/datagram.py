"""The outer part of every datagram, and mac1, which is checked before any Diffie-Hellman.

Contract: `encode` makes a datagram of at most `MAXIMUM_DATAGRAM` bytes; `parse` returns None for everything that is
not one of ours under one of the given mac1 keys (dropped in silence), and never raises.  A `Datagram`'s `mac1` is the
identity of its content: the key of every seen-cache.  Layout: docs/protocol.md section 2.1.

    0  magic        4   CE 78 65 63
    4  version      1   1
    5  kind         1   see below
    6  hops         1   relays that it may still pass          (a relay lowers it)
    7  flags        1   sent as 0, ignored                      (reserved: "the client will dial")
    8  counter      2   number of this transmission            (a relay may rewrite it)
   10  reply port   2   TCP port of the sender's listener or 0 (a relay writes its own)
   12  mac1        16   keyed BLAKE2b over magic, version, kind, inner
   28  inner            never changed on the way
"""

from __future__ import annotations

from cexec.protocol.base.limits import MAXIMUM_DATAGRAM
from cexec.protocol.base.sodium import blake2b, equal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

MAGIC = b"\xcexec"
VERSION = 1
KIND_AT = 5
COUNTER = slice(8, 10)
MAC1_START = 12
INNER_START = 28
MAC1_SIZE = INNER_START - MAC1_START

ANNOUNCEMENT = 1  # client to group: section 2.2
CLAIM = 2  # client to group: section 2.3
ANSWER = 3  # worker to one client: section 2.4
FORWARDED = 4  # cservice to the others on its host: section 2.5
ALERT = 5  # worker or client to group: section 5
ACKNOWLEDGEMENT = 6  # logger to worker: section 5
PRESENCE = 7  # worker to group, HELLO and BYE: section 5
PROOF = 8  # client to group: section 2.8
JOINING = 32  # between two machines that share a short code, without mac1: section 2.7
KINDS = (ANNOUNCEMENT, CLAIM, ANSWER, FORWARDED, ALERT, ACKNOWLEDGEMENT, PRESENCE, PROOF)

PREFIX = MAGIC + bytes([VERSION])


class Datagram:
    """A datagram whose mac1 is right.  `key` is the index of the mac1 key that fitted.

    `unicast`: it was sent to this machine alone, as far as the receiver knows, and only this process has got it.
    `doubted`: a process that need not be believed has passed it on, so that its source may be invented.
    """

    __slots__ = ("counter", "doubted", "hops", "inner", "key", "kind", "mac1", "reply_port", "unicast")

    def __init__(
        self, kind: int, hops: int, counter: int, reply_port: int, mac1: bytes, inner: bytes, key: int
    ) -> None:
        self.kind = kind
        self.hops = hops
        self.counter = counter
        self.reply_port = reply_port
        self.mac1 = mac1
        self.inner = inner
        self.key = key
        self.unicast = False
        self.doubted = False


def compute_mac1(key: bytes, kind: int, inner: bytes) -> bytes:
    """Returns the 16 bytes that only a holder of the application's psk, or of its relay key, can compute."""
    return blake2b(PREFIX + bytes([kind]) + inner, digest_size=MAC1_SIZE, key=key).digest()


def encode(kind: int, mac1: bytes, inner: bytes, *, hops: int, counter: int = 0, reply_port: int = 0) -> bytes:
    """The whole datagram; `ValueError` if it would be too long."""
    header = PREFIX + bytes([kind, hops, 0]) + (counter & 0xFFFF).to_bytes(2, "big") + reply_port.to_bytes(2, "big")
    data = header + mac1 + inner
    if len(data) > MAXIMUM_DATAGRAM:
        raise ValueError(f"datagram of {len(data)} bytes is longer than {MAXIMUM_DATAGRAM}")
    return data


class BegunHashes(dict[int, blake2b]):
    """The hashes of one mac1 key by the kind of the datagram, each of which has everything before the inner part.

    In a flood this leaves one hash of the inner part to do for each datagram, with no bytes put together before.
    """

    __slots__ = ("_key",)

    def __init__(self, mac1_key: bytes) -> None:
        self._key = blake2b(digest_size=MAC1_SIZE, key=mac1_key)

    def __missing__(self, kind: int) -> blake2b:
        begun = self[kind] = self._key.copy()
        begun.update(PREFIX + bytes([kind]))
        return begun


def parse(data: bytes, mac1_keys: Sequence[bytes]) -> Datagram | None:
    """Returns the datagram, or None if no holder of one of the keys made it."""
    return parse_keyed(data, [BegunHashes(key) for key in mac1_keys])


def parse_keyed(data: bytes, begun: Sequence[BegunHashes]) -> Datagram | None:
    """Does the same with hashes that are kept from one datagram to the next."""
    if not data.startswith(PREFIX) or not INNER_START < len(data) <= MAXIMUM_DATAGRAM:
        return None
    kind, inner, mac1 = data[KIND_AT], data[INNER_START:], data[MAC1_START:INNER_START]
    for index, hashes in enumerate(begun):
        state = hashes[kind].copy()
        state.update(inner)
        if equal(state.digest(), mac1):
            counter, reply_port = data[8] << 8 | data[9], data[10] << 8 | data[11]
            return Datagram(kind, data[6], counter, reply_port, mac1, inner, index)
    return None
