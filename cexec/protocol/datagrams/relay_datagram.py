"""A datagram as a relay sees it: the outer part, and of the inner part only which announcement it is about.

Contract: `read` returns None for every datagram that a relay does not pass on, and never raises: one without the shape
of its kind, a forwarded one, and, if there are keys, one without a right mac1 under one of them.  `rewrite` changes
hops and reply port and nothing else.  docs/protocol.md section 6.
"""

from __future__ import annotations

from cexec.protocol.base.limits import MAXIMUM_DATAGRAM, MAXIMUM_HOPS
from cexec.protocol.base.noise import OVERHEAD
from cexec.protocol.datagrams import datagram
from cexec.protocol.datagrams.announcement import CLAIM_SIZE
from cexec.protocol.datagrams.proof import PROOF_SIZE, has_shape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

HOPS_AT, COUNTER_AT, PORT_AT = 6, 8, 10
_SEALED = 24 + 16  # bytes that sealing adds: nonce and tag (section 0)
# The fewest bytes that the inner part of each kind can have; a claim has exactly so many, a proof whole proofs.
LEAST_INNER = {
    datagram.ANNOUNCEMENT: OVERHEAD + 1,
    datagram.CLAIM: CLAIM_SIZE,
    datagram.ANSWER: datagram.MAC1_SIZE + OVERHEAD + 1,
    datagram.ALERT: _SEALED + 1,
    datagram.ACKNOWLEDGEMENT: _SEALED + 1,
    datagram.PRESENCE: _SEALED + 1,
    datagram.PROOF: datagram.MAC1_SIZE + PROOF_SIZE,
}


class Header:
    """`hops` is at most MAXIMUM_HOPS; `about`: of a claim, a proof or an answer, mac1 of its announcement."""

    __slots__ = ("about", "counter", "hops", "kind", "mac1", "reply_port")

    def __init__(self, kind: int, hops: int, counter: int, reply_port: int, mac1: bytes, about: bytes) -> None:
        self.kind = kind
        self.hops = hops
        self.counter = counter
        self.reply_port = reply_port
        self.mac1 = mac1
        self.about = about


def read(data: bytes, mac1_keys: Sequence[bytes] = ()) -> Header | None:
    """Returns what a relay has to know; without keys it checks the shape only."""
    if data[: datagram.KIND_AT] != datagram.PREFIX or not datagram.INNER_START < len(data) <= MAXIMUM_DATAGRAM:
        return None
    kind, size = data[datagram.KIND_AT], len(data) - datagram.INNER_START
    if kind not in LEAST_INNER or size < LEAST_INNER[kind] or (kind == datagram.CLAIM and size != CLAIM_SIZE):
        return None
    if kind == datagram.PROOF and not has_shape(size):
        return None
    if mac1_keys and datagram.parse(data, mac1_keys) is None:
        return None
    referring = kind in (datagram.CLAIM, datagram.ANSWER, datagram.PROOF)
    return Header(
        kind,
        min(data[HOPS_AT], MAXIMUM_HOPS),
        int.from_bytes(data[COUNTER_AT:PORT_AT], "big"),
        int.from_bytes(data[PORT_AT : datagram.MAC1_START], "big"),
        data[datagram.MAC1_START : datagram.INNER_START],
        data[datagram.INNER_START : datagram.INNER_START + datagram.MAC1_SIZE] if referring else b"",
    )


def rewrite(data: bytes, *, hops: int | None = None, reply_port: int | None = None) -> bytes:
    """Returns the datagram with other hops or another reply port; None leaves the field as it is."""
    changed = bytearray(data)
    if hops is not None:
        changed[HOPS_AT] = hops
    if reply_port is not None:
        changed[PORT_AT : datagram.MAC1_START] = reply_port.to_bytes(2, "big")
    return bytes(changed)
