"""HELLO and BYE: a worker tells its group that it has come, or that it goes.

Contract: `seal` makes the inner part of a PRESENCE datagram, `open_presence` reads it and proves who wrote it (all but
the certificate's dates); `ProtocolError` for everything else.  Anybody can send one again, so a process that follows
presences checks each with `Followed.news`: the sequence number of an instance only grows, and an instance that has said
BYE does not return.  docs/protocol.md section 5.1.
"""

from __future__ import annotations

from cexec.errors import ProtocolError
from cexec.protocol.base import sodium
from cexec.protocol.base.certificate import ROLE_WORKER, Certificate, verify_signature
from cexec.protocol.base.keys import ClientKey, WorkerKey
from cexec.protocol.base.limits import IDENTITY_SIZE, MAXIMUM_NAME
from cexec.protocol.base.wire import Reader, Writer
from cexec.protocol.datagrams import datagram

HELLO = 1  # it serves from now on, or its addresses have changed
BYE = 2  # it takes no more jobs
PURPOSES = (HELLO, BYE)

SEALING_LABEL = b"cexec 1 presence"
SIGNATURE_LABEL = b"cexec 1 presence signature"
MAXIMUM_FOLLOWED = 10_000  # instances (ours); the one heard longest ago is forgotten


class Presence:
    """`sequence`: from 1, of this instance; copies of one statement have the same.  `clock`: milliseconds, of 1970."""

    __slots__ = ("certificate", "clock", "host", "instance", "purpose", "sequence")

    def __init__(
        self, *, purpose: int, instance: bytes, sequence: int, clock: int, host: str, certificate: Certificate
    ) -> None:
        self.purpose = purpose
        self.instance = instance
        self.sequence = sequence
        self.clock = clock
        self.host = host
        self.certificate = certificate

    def encode(self) -> bytes:
        writer = Writer().u8(self.purpose).raw(self.instance).u32(self.sequence).u64(self.clock)
        return bytes(writer.text(self.host[:MAXIMUM_NAME]).short_bytes(self.certificate.encode()))

    @classmethod
    def decode(cls, data: bytes) -> Presence:
        reader = Reader(data)
        presence = cls(
            purpose=reader.u8(),
            instance=reader.take(IDENTITY_SIZE),
            sequence=reader.u32(),
            clock=reader.u64(),
            host=reader.text(),
            certificate=Certificate.decode(reader.short_bytes()),
        )
        reader.finish()
        if presence.purpose not in PURPOSES:
            raise ProtocolError("presence has an unknown purpose")
        if len(presence.host) > MAXIMUM_NAME:
            raise ProtocolError("presence has a host name that is too long")
        return presence


def seal(key: WorkerKey, presence: Presence) -> bytes:
    """Returns the inner part, sealed under the application's alert key and signed by this worker."""
    body = presence.encode()
    signature = key.identity.sign(SIGNATURE_LABEL, body)
    return sodium.seal_message(key.alert_key, body + signature, SEALING_LABEL)


def open_presence(key: WorkerKey | ClientKey, inner: bytes) -> Presence:
    """Opens an inner part and proves that a worker of the application wrote it, once upon a time."""
    text = sodium.open_message(key.alert_key, inner, SEALING_LABEL)
    body, signature = text[: -sodium.SIGNATURE_SIZE], text[-sodium.SIGNATURE_SIZE :]
    presence = Presence.decode(body)
    presence.certificate.check_signature(key.authority_public, ROLE_WORKER)
    verify_signature(presence.certificate.public_key, signature, SIGNATURE_LABEL, body)
    return presence


def encode_presence(mac1_key: bytes, inner: bytes, hops: int) -> bytes:
    """The datagram around what `seal` made."""
    mac1 = datagram.compute_mac1(mac1_key, datagram.PRESENCE, inner)
    return datagram.encode(datagram.PRESENCE, mac1, inner, hops=hops)


class Followed:
    """The last statement of each instance."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: dict[bytes, tuple[int, int]] = {}  # sequence and purpose, heard longest ago first

    def news(self, presence: Presence) -> bool:
        """Returns True if this statement is newer than all known ones, and so neither a copy nor a replay."""
        sequence, purpose = self._last.pop(presence.instance, (0, HELLO))
        fresh = presence.sequence > sequence and purpose != BYE
        if fresh:
            sequence, purpose = presence.sequence, presence.purpose
        if len(self._last) >= MAXIMUM_FOLLOWED:
            del self._last[next(iter(self._last))]
        self._last[presence.instance] = (sequence, purpose)
        return fresh

    def gone(self, instance: bytes) -> bool:
        """Returns True if this instance has said BYE."""
        return self._last.get(instance, (0, HELLO))[1] == BYE
