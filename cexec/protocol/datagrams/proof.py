"""Proofs of receiving: bytes that a worker sends to where an announcement seems to come from, and gets back.

Contract: a `Prover` makes the proof for one announcement and one source, and recognises it; it keeps no state but a
secret.  The proof travels to the client inside a hello, so only the announcer can read it; the client returns it in a
datagram of kind PROOF (`encode_proofs`, `decode_proofs`).  Who returns it receives at that source, or has been told by
somebody who does.  docs/protocol.md section 2.8.
"""

from __future__ import annotations

from cexec.errors import ProtocolError
from cexec.protocol.base import sodium
from cexec.protocol.base.wire import Reader
from cexec.protocol.datagrams import datagram

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, TypeAlias

    Sockaddr: TypeAlias = tuple[Any, ...]

PROOF_SIZE = 16  # bytes (protocol)
MAXIMUM_PROOFS = 64  # (protocol) in one datagram: of so many workers
PROOF_PERIOD = 30.0  # seconds (ours): a proof is good for one to two of them
PROOF_LABEL = b"cexec 1 proof"


class Prover:
    """The worker's side."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        """`secret`: random, and never told to anybody."""
        self._secret = secret

    def proof(self, mac1: bytes, source: Sockaddr, now: float) -> bytes:
        """Returns the proof that the announcer of `mac1` receives at `source`, an address with its UDP port."""
        return self._of_period(mac1, source, int(now // PROOF_PERIOD))

    def proves(self, proofs: Sequence[bytes], mac1: bytes, source: Sockaddr, now: float) -> bool:
        """Returns True if one of the proofs is that for this announcement and this source, and not too old."""
        period = int(now // PROOF_PERIOD)
        valid = [self._of_period(mac1, source, number) for number in (period, period - 1)]
        return any(sodium.equal(proof, one) for proof in proofs for one in valid)

    def _of_period(self, mac1: bytes, source: Sockaddr, period: int) -> bytes:
        where = "\0".join(map(str, source)).encode()
        number = period.to_bytes(8, "big", signed=True)
        return sodium.keyed_hash(self._secret, PROOF_LABEL, mac1, number, where, size=PROOF_SIZE)


def encode_proofs(mac1_key: bytes, announced: bytes, proofs: Sequence[bytes], hops: int) -> bytes:
    """Returns the datagram that returns 1 to MAXIMUM_PROOFS proofs; `announced` is mac1 of the announcement."""
    inner = announced + b"".join(proofs)
    return datagram.encode(datagram.PROOF, datagram.compute_mac1(mac1_key, datagram.PROOF, inner), inner, hops=hops)


def decode_proofs(inner: bytes) -> tuple[bytes, list[bytes]]:
    """Returns the mac1 of the announcement and the proofs."""
    if not has_shape(len(inner)):
        raise ProtocolError("proofs do not have the right length")
    reader = Reader(inner)
    announced, rest = reader.take(datagram.MAC1_SIZE), reader.rest()
    return announced, [rest[start : start + PROOF_SIZE] for start in range(0, len(rest), PROOF_SIZE)]


def has_shape(size: int) -> bool:
    """Returns True if the inner part of a PROOF may have this size."""
    count, over = divmod(size - datagram.MAC1_SIZE, PROOF_SIZE)
    return not over and 1 <= count <= MAXIMUM_PROOFS
