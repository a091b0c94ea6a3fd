"""Announcements and claims: how a client asks all workers at once, and says that it has chosen.

Contract: `SealedAnnouncement` is the client's side and holds the secrets that belong to one attempt;
`opened_announcement` has the worker's.  An announcement carries no argument, no environment and no secret.
docs/protocol.md sections 2.2 and 2.3.
"""

from __future__ import annotations

from cexec.common_errors import ProtocolError
from cexec.protocol.base import sodium
from cexec.protocol.base.certificate import Certificate
from cexec.protocol.base.limits import IDENTITY_SIZE
from cexec.protocol.base.noise import Handshake
from cexec.protocol.base.wire import Reader, Writer
from cexec.protocol.datagrams import datagram
from cexec.protocol.datagrams.requirements import Requirements

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from cexec.protocol.base.client_key import ClientKey

RUN_ONE = 1
RUN_ALL = 2
CENSUS = 3
KINDS = (RUN_ONE, RUN_ALL, CENSUS)
PROVES = 1  # (protocol) the first byte in `known` of a job: its client answers PROVE; one of 0.1.0 sends none
CLOCK_SIZE = 8  # bytes (protocol) after it
BOOT_SIZE = 4  # bytes (protocol) after that
UNCLAIMED_SIZE = 20  # zero bytes (protocol) before clock and boot in a census, where a job has the hash of its claim

PROLOGUE = b"cexec 1 announcement"
SIGNATURE_LABEL = b"cexec 1 announcement signature"
CLAIM_LABEL = b"cexec 1 claim"
ANSWER_PROLOGUE = b"cexec 1 answer"
ANSWER_PSK_LABEL = b"cexec 1 answer psk"
MAXIMUM_CONNECTED = 4096  # (protocol) a claim's hint is clamped to this
MAXIMUM_ASKED = 800  # bytes (protocol) of requirements and known together: there is room beside every certificate
_UNCLAIMED = bytes(UNCLAIMED_SIZE)
CLAIM_SIZE = datagram.MAC1_SIZE + sodium.KEY_SIZE + 2


class Announcement:
    """The content of an announcement.  `wanted_for`: seconds after the last copy that a worker may still answer.

    In a census `weight` is about how many workers the client expects, `known` a filter (`bloom`, salted with the reply
    key) of the instances that it has heard already, and `claim_hash` is zeros, then the client's clock (`clock`)
    and when its machine was started (`boot`).  In others these are in `known` behind PROVES.  Clients of 0.1.0 say
    neither.
    """

    __slots__ = (
        "attempt", "certificate", "claim_hash", "job_id", "kind", "known", "reply_key", "requirements", "wanted_for",
        "weight",
    )  # fmt: skip

    def __init__(
        self,
        *,
        job_id: bytes,
        attempt: int,
        kind: int,
        weight: int,
        wanted_for: int,
        requirements: Requirements,
        claim_hash: bytes,
        reply_key: bytes,
        certificate: Certificate,
        known: bytes = b"",
    ) -> None:
        self.job_id = job_id
        self.attempt = attempt
        self.kind = kind
        self.weight = weight
        self.wanted_for = wanted_for
        self.requirements = requirements
        self.claim_hash = claim_hash
        self.reply_key = reply_key
        self.certificate = certificate
        self.known = known

    @property
    def proves(self) -> bool:
        """True if its client can prove where it receives."""
        return self.kind != CENSUS and self.known[:1] == bytes([PROVES])

    @property
    def clock(self) -> int:
        """When it was made, in milliseconds since 1970 by the client's clock; 0 if the client does not say it."""
        return int.from_bytes(self._clocks[:CLOCK_SIZE], "big")

    @property
    def boot(self) -> int:
        """When the client's machine was started, in seconds since 1970 by the same clock; 0 if it does not say it.

        It changes when the clock is set, so clocks of announcements are comparable where this is equal.
        """
        return int.from_bytes(self._clocks[CLOCK_SIZE:][:BOOT_SIZE], "big")

    @property
    def _clocks(self) -> bytes:
        if self.kind == CENSUS:
            said = self.claim_hash.startswith(_UNCLAIMED)
            return self.claim_hash[UNCLAIMED_SIZE:] if said else b""
        return self.known[1:] if self.proves else b""

    def encode(self) -> bytes:
        writer = Writer().raw(self.job_id).u16(self.attempt).u8(self.kind).u16(self.weight).u16(self.wanted_for)
        writer.raw(self.claim_hash).raw(self.reply_key)
        writer.long_bytes(self.requirements.encode()).short_bytes(self.certificate.encode())
        return bytes(writer.long_bytes(self.known))

    @classmethod
    def decode(cls, data: bytes) -> Announcement:
        reader = Reader(data)
        result = cls(
            job_id=reader.take(IDENTITY_SIZE),
            attempt=reader.u16(),
            kind=reader.u8(),
            weight=reader.u16(),
            wanted_for=reader.u16(),
            claim_hash=reader.take(sodium.KEY_SIZE),
            reply_key=reader.take(sodium.KEY_SIZE),
            requirements=Requirements.decode(reader.long_bytes()),
            certificate=Certificate.decode(reader.short_bytes()),
            known=reader.long_bytes(),
        )
        reader.finish()
        if result.kind not in KINDS or result.weight == 0:
            raise ProtocolError("announcement is of an unknown kind or has no weight")
        return result


class SealedAnnouncement:
    """The client's side of one attempt.  Copies are equal byte for byte, except for counter and hops."""

    __slots__ = ("_claim_secret", "_hash", "_psk", "_reply_secret", "announcement", "inner", "mac1", "mac1_key")

    def __init__(
        self,
        key: ClientKey,
        *,
        job_id: bytes,
        attempt: int,
        kind: int = RUN_ONE,
        weight: int = 1,
        wanted_for: int = 15,
        requirements: Requirements | None = None,
        known: Collection[bytes] = (),
        clocks: tuple[int, int] = (0, 0),
    ) -> None:
        """`known`: instances that are not to answer a census; `clocks`: what it says as `clock` and `boot`."""
        self._claim_secret = sodium.random_bytes(sodium.KEY_SIZE)
        self._reply_secret = sodium.random_bytes(sodium.KEY_SIZE)
        requirements = requirements or Requirements()
        reply_key = sodium.public_key(self._reply_secret)
        made = _encoded(*clocks)
        if kind == CENSUS:
            claimed, told = _UNCLAIMED + made, _filter(reply_key, known, requirements) if known else b""
        else:
            claimed, told = claim_hash(self._claim_secret), bytes([PROVES]) + made
        self.announcement = Announcement(
            job_id=job_id,
            attempt=attempt,
            kind=kind,
            weight=weight,
            wanted_for=wanted_for,
            requirements=requirements,
            claim_hash=claimed,
            reply_key=reply_key,
            certificate=key.identity.certificate,
            known=told,
        )
        handshake = Handshake("Npsk0", initiator=True, prologue=PROLOGUE, psk=key.psk, remote_static=key.worker_public)
        body = self.announcement.encode()
        self.inner = handshake.write_message(lambda h: body + key.identity.sign(SIGNATURE_LABEL, h, body))
        self._hash = handshake.hash
        self._psk = answer_psk(handshake)
        self.mac1_key = key.mac1_key
        self.mac1 = datagram.compute_mac1(key.mac1_key, datagram.ANNOUNCEMENT, self.inner)

    def anew(self, key: ClientKey, clocks: tuple[int, int]) -> SealedAnnouncement:
        """Returns another announcement of the same attempt: nobody who has heard this one knows that one."""
        old = self.announcement
        return SealedAnnouncement(
            key,
            job_id=old.job_id,
            attempt=old.attempt,
            kind=old.kind,
            weight=old.weight,
            wanted_for=old.wanted_for,
            requirements=old.requirements,
            clocks=clocks,
        )

    def datagram(self, counter: int, reply_port: int, hops: int) -> bytes:
        return datagram.encode(
            datagram.ANNOUNCEMENT, self.mac1, self.inner, hops=hops, counter=counter, reply_port=reply_port
        )

    def claim(self, connected: int, hops: int) -> bytes:
        """Returns the datagram that tells all other workers to give up; `connected` workers had connected."""
        inner = self.mac1 + self._claim_secret + min(connected, MAXIMUM_CONNECTED).to_bytes(2, "big")
        mac1 = datagram.compute_mac1(self.mac1_key, datagram.CLAIM, inner)
        return datagram.encode(datagram.CLAIM, mac1, inner, hops=hops)

    def handshake(self) -> Handshake:
        """A responder for one worker's answer or connection."""
        if not self._reply_secret:
            raise ValueError("reply key has been erased")
        prologue = ANSWER_PROLOGUE + self._hash
        return Handshake("NKpsk0", initiator=False, prologue=prologue, psk=self._psk, static=self._reply_secret)

    def erase(self) -> None:
        """Forgets the reply key: from now on nobody can answer this attempt any more."""
        self._reply_secret = self._psk = b""


def _encoded(clock: int, boot: int) -> bytes:
    """A clock may be wrong: it may stand before 1970, soon after, when its machine had not been started, or in 2106."""
    return _clamped(clock, CLOCK_SIZE) + _clamped(boot, BOOT_SIZE)


def _clamped(value: int, size: int) -> bytes:
    return min(max(0, value), (1 << 8 * size) - 1).to_bytes(size, "big")


def _filter(reply_key: bytes, known: Collection[bytes], requirements: Requirements) -> bytes:
    from cexec.protocol.base import bloom  # only a census needs it

    return bloom.make(reply_key, known, MAXIMUM_ASKED - len(requirements.encode()))


def claim_hash(secret: bytes) -> bytes:
    """Returns what an announcement has of the secret that its claim will tell."""
    return sodium.keyed_hash(secret, CLAIM_LABEL)


def answer_psk(handshake: Handshake) -> bytes:
    """Returns the secret that only those share who can read the announcement."""
    first, _ = handshake.split()
    return sodium.keyed_hash(first, ANSWER_PSK_LABEL)
