"""Announcements and claims as the others hear them; `announcement` has the client's side.

Contract: `open_announcement` is the worker's side: `ProtocolError` for every byte string that no certified client of
this application made.  docs/protocol.md sections 2.2 and 2.3.
"""

from __future__ import annotations

from cexec.protocol.base import sodium
from cexec.protocol.base.certificate import ROLE_CLIENT, verify_signature
from cexec.protocol.base.limits import IDENTITY_SIZE
from cexec.protocol.base.noise import Handshake
from cexec.protocol.base.wire import Reader
from cexec.protocol.datagrams import datagram
from cexec.protocol.datagrams.announcement import (
    ANSWER_PROLOGUE,
    MAXIMUM_CONNECTED,
    PROLOGUE,
    SIGNATURE_LABEL,
    Announcement,
    answer_psk,
)
from cexec.protocol.datagrams.announcement import claim_hash as hash_of_claim

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cexec.protocol.base.keys import WorkerKey

OWN_JOB_LABEL = b"cexec 1 job of all"


class OpenedAnnouncement:
    """The worker's side: the announcement, and the secrets that an answer needs."""

    __slots__ = ("announcement", "hash", "psk")

    def __init__(self, announcement: Announcement, handshake_hash: bytes, psk: bytes) -> None:
        self.announcement = announcement
        self.hash = handshake_hash
        self.psk = psk

    def handshake(self) -> Handshake:
        """An initiator for one answer or one connection: every one has a fresh ephemeral."""
        return Handshake(
            "NKpsk0",
            initiator=True,
            prologue=ANSWER_PROLOGUE + self.hash,
            psk=self.psk,
            remote_static=self.announcement.reply_key,
        )


def open_announcement(key: WorkerKey, inner: bytes) -> OpenedAnnouncement:
    """Opens and proves an announcement, all but the dates of the client's certificate (`Certificate.check_dates`)."""
    handshake = Handshake("Npsk0", initiator=False, prologue=PROLOGUE, psk=key.psk, static=key.worker_secret)
    payload, h = handshake.read_message(inner)
    body, signature = payload[: -sodium.SIGNATURE_SIZE], payload[-sodium.SIGNATURE_SIZE :]
    announcement = Announcement.decode(body)
    announcement.certificate.check_signature(key.authority_public, ROLE_CLIENT)
    verify_signature(announcement.certificate.public_key, signature, SIGNATURE_LABEL, h, body)
    return OpenedAnnouncement(announcement, handshake.hash, answer_psk(handshake))


def own_job_id(job_id: bytes, instance: bytes) -> bytes:
    """Returns the job id of one worker's part of a RUN_ALL, which is a job of its own for loggers."""
    return sodium.keyed_hash(job_id, OWN_JOB_LABEL, instance, size=IDENTITY_SIZE)


class Claim:
    """`announced`: mac1 of the claimed announcement; `connected`: how many workers had offered themselves, a hint."""

    __slots__ = ("announced", "connected", "secret")

    def __init__(self, announced: bytes, secret: bytes, connected: int) -> None:
        self.announced = announced
        self.secret = secret
        self.connected = connected

    @classmethod
    def decode(cls, inner: bytes) -> Claim:
        reader = Reader(inner)
        claim = cls(reader.take(datagram.MAC1_SIZE), reader.take(sodium.KEY_SIZE), min(reader.u16(), MAXIMUM_CONNECTED))
        reader.finish()
        return claim

    def proves(self, claim_hash: bytes) -> bool:
        """Returns True if the client that made the announcement with this claim hash made this claim."""
        return sodium.equal(hash_of_claim(self.secret), claim_hash)
