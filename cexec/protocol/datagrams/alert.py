"""Alerts, which tell all loggers how a job ended, and acknowledgements, which tell a worker that its alert arrived.

Contract: `encode_alert` makes an ALERT datagram, `tag_of` reads the part of its inner that is in the clear,
`open_alert` proves the rest (all but the certificate's dates); `ProtocolError` for everything else.  `unseal_alert` and
`Author.prove` do the same in two steps.  The sender's name is that of its certificate; what it says of the other side
is its own word.  A worker numbers its jobs when they start: `series` and `sequence` tell a logger what it has missed,
`running` which numbers are still to come.  A client's alerts have the sequence 0 and are sent once.
docs/protocol.md section 5.2.
"""

from __future__ import annotations

from struct import Struct

from cexec.errors import ProtocolError, VerifyError
from cexec.protocol.base import sodium
from cexec.protocol.base.certificate import ROLE_WORKER, Certificate, verify_signature
from cexec.protocol.base.keys import ALERT_TAG_SIZE, ClientKey, WorkerKey
from cexec.protocol.base.limits import IDENTITY_SIZE, MAXIMUM_NAME
from cexec.protocol.base.wire import Reader, Writer
from cexec.protocol.datagrams import datagram

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

ALERT_LABEL = b"cexec 1 sealed alert"
ALERT_SIGNATURE_LABEL = b"cexec 1 alert signature"
ACKNOWLEDGEMENT_LABEL = b"cexec 1 sealed acknowledgement"
ACKNOWLEDGEMENT_SIGNATURE_LABEL = b"cexec 1 acknowledgement signature"

COMPLETED = 1  # a worker: the job is over, `status` is what the client was told
ABANDONED = 2  # a worker: the attempt ended without that; `complaint` says how
COMPLAINT = 3  # a client: this attempt failed, through the worker that is named
GAVE_UP = 4  # a client: the job failed, its exit status was 111
OUTCOMES = (COMPLETED, ABANDONED, COMPLAINT, GAVE_UP)

NO_COMPLAINT = 0
COMPLAINTS = ("", "no answer", "disconnected", "protocol", "signature", "timed out", "refused", "gave up")

MAXIMUM_RUNNING = 48  # (protocol) numbers of running jobs in one alert
TOO_MANY = 255  # (protocol) instead of their count: more jobs run than can be told
MAXIMUM_ACKNOWLEDGED = 64  # (protocol) sequence numbers in one acknowledgement

_FRONT = Struct(">BBB")  # outcome, status, complaint
# Job id, attempt, instance, series, sequence, clock, duration, received, sent.
_FIGURES = Struct(f">{IDENTITY_SIZE}sH{IDENTITY_SIZE}s{IDENTITY_SIZE}sQQIQQ")


class Alert:
    """`duration` in milliseconds; `received` and `sent` bytes of the program's input and output."""

    __slots__ = (
        "attempt", "certificate", "client_address", "client_name", "clock", "complaint", "duration", "instance",
        "job_id", "outcome", "received", "running", "sent", "sequence", "series", "status", "worker_address",
        "worker_name",
    )  # fmt: skip

    def __init__(
        self,
        *,
        outcome: int,
        certificate: Certificate,
        job_id: bytes,
        attempt: int,
        client_name: str,
        client_address: str,
        worker_name: str,
        worker_address: str,
        instance: bytes = bytes(IDENTITY_SIZE),
        series: bytes = bytes(IDENTITY_SIZE),
        sequence: int = 0,
        running: Sequence[int] | None = (),
        status: int = 0,
        complaint: int = NO_COMPLAINT,
        clock: int = 0,
        duration: int = 0,
        received: int = 0,
        sent: int = 0,
    ) -> None:
        self.outcome = outcome
        self.certificate = certificate
        self.job_id = job_id
        self.attempt = attempt
        self.client_name = client_name
        self.client_address = client_address
        self.worker_name = worker_name
        self.worker_address = worker_address
        self.instance = instance
        self.series = series
        self.sequence = sequence
        self.running = running  # smaller numbers whose jobs are not over; None: too many to tell
        self.status = status
        self.complaint = complaint
        self.clock = clock
        self.duration = duration
        self.received = received
        self.sent = sent

    def encode(self) -> bytes:
        writer = Writer().raw(_FRONT.pack(self.outcome, self.status, self.complaint))
        writer.short_bytes(self.certificate.encode())
        figures = (self.job_id, self.attempt, self.instance, self.series, self.sequence, self.clock,
                   min(self.duration, 0xFFFFFFFF), self.received, self.sent)  # fmt: skip
        writer.raw(_FIGURES.pack(*figures))
        for text in (self.client_name, self.client_address, self.worker_name, self.worker_address):
            writer.text(text[:MAXIMUM_NAME])
        if self.running is None or len(self.running) > MAXIMUM_RUNNING:
            return bytes(writer.u8(TOO_MANY))
        writer.u8(len(self.running))
        for sequence in self.running:
            writer.u64(sequence)
        return bytes(writer)

    @classmethod
    def decode(cls, data: bytes) -> Alert:
        reader = Reader(data)
        outcome, status, complaint = _FRONT.unpack(reader.take(_FRONT.size))
        certificate = Certificate.decode(reader.short_bytes())
        job_id, attempt, instance, series, sequence, clock, duration, received, sent = _FIGURES.unpack(
            reader.take(_FIGURES.size)
        )
        client_name, client_address, worker_name, worker_address = (reader.text() for _ in range(4))
        count = reader.u8()
        if count > MAXIMUM_RUNNING and count != TOO_MANY:
            raise ProtocolError("alert is too long")
        running = None if count == TOO_MANY else [reader.u64() for _ in range(count)]
        reader.finish()
        if outcome not in OUTCOMES or complaint >= len(COMPLAINTS):
            raise ProtocolError("alert is of an unknown kind")
        if any(len(text) > MAXIMUM_NAME for text in (client_name, client_address, worker_name, worker_address)):
            raise ProtocolError("alert has a name that is too long")
        if (outcome in (COMPLETED, ABANDONED)) != (certificate.role == ROLE_WORKER):
            raise ProtocolError("alert is not the sender's to make")
        if (worker_name if certificate.role == ROLE_WORKER else client_name) != certificate.name:
            raise ProtocolError("alert calls its sender by another name than its certificate does")
        return cls(
            outcome=outcome,
            certificate=certificate,
            job_id=job_id,
            attempt=attempt,
            client_name=client_name,
            client_address=client_address,
            worker_name=worker_name,
            worker_address=worker_address,
            instance=instance,
            series=series,
            sequence=sequence,
            running=running,
            status=status,
            complaint=complaint,
            clock=clock,
            duration=duration,
            received=received,
            sent=sent,
        )


class Acknowledgement:
    """A logger's statement that it has these alerts of a series."""

    __slots__ = ("certificate", "sequences", "series")

    def __init__(self, *, certificate: Certificate, series: bytes, sequences: Sequence[int]) -> None:
        self.certificate = certificate
        self.series = series
        self.sequences = list(sequences)

    def encode(self) -> bytes:
        writer = Writer().short_bytes(self.certificate.encode()).raw(self.series).u8(len(self.sequences))
        for sequence in self.sequences:
            writer.u64(sequence)
        return bytes(writer)

    @classmethod
    def decode(cls, data: bytes) -> Acknowledgement:
        reader = Reader(data)
        certificate, series = Certificate.decode(reader.short_bytes()), reader.take(IDENTITY_SIZE)
        count = reader.u8()
        if count > MAXIMUM_ACKNOWLEDGED:
            raise ProtocolError("acknowledgement is too long")
        result = cls(certificate=certificate, series=series, sequences=[reader.u64() for _ in range(count)])
        reader.finish()
        return result


class Author:
    """Says who has written a message; `prove` shows it.  Before, it may be any holder of the application's key.

    To prove it takes five times as long as to read it: who knows already that it does not matter need not.
    """

    __slots__ = ("_body", "_certificate", "_label", "_signature")

    def __init__(self, certificate: Certificate, label: bytes, body: bytes, signature: bytes) -> None:
        self._certificate = certificate
        self._label = label
        self._body = body
        self._signature = signature

    def prove(self, key: ClientKey | WorkerKey) -> None:
        """Raises `VerifyError` if somebody else has written the message."""
        self._certificate.check_signature(key.authority_public, self._certificate.role)
        verify_signature(self._certificate.public_key, self._signature, self._label, self._body)


def job_key(job_id: bytes, attempt: int) -> bytes:
    """Returns what alerts call one attempt of a job."""
    return job_id + attempt.to_bytes(2, "big")


def tag_of(inner: bytes) -> str:
    """Returns the application's tag, which is in the clear; a logger names an unknown key by it."""
    return inner[:ALERT_TAG_SIZE].hex()


def encode_alert(key: ClientKey | WorkerKey, alert: Alert, hops: int) -> bytes:
    """Returns the datagram, sealed under the application's alert key and signed by the sender."""
    inner = _seal(key, alert.encode(), ALERT_LABEL, ALERT_SIGNATURE_LABEL)
    mac1 = datagram.compute_mac1(key.mac1_key, datagram.ALERT, inner)
    return datagram.encode(datagram.ALERT, mac1, inner, hops=hops)


def unseal_alert(key: ClientKey | WorkerKey, inner: bytes) -> tuple[Alert, Author]:
    """Reads an alert, which counts when its author is proved."""
    body, signature = _open(key, inner, ALERT_LABEL)
    alert = Alert.decode(body)
    return alert, Author(alert.certificate, ALERT_SIGNATURE_LABEL, body, signature)


def open_alert(key: ClientKey | WorkerKey, inner: bytes) -> Alert:
    """Opens an alert and proves its author.  It may be a copy that anybody has sent again."""
    alert, author = unseal_alert(key, inner)
    author.prove(key)
    return alert


def encode_acknowledgement(key: ClientKey | WorkerKey, acknowledgement: Acknowledgement, hops: int) -> bytes:
    inner = _seal(key, acknowledgement.encode(), ACKNOWLEDGEMENT_LABEL, ACKNOWLEDGEMENT_SIGNATURE_LABEL)
    mac1 = datagram.compute_mac1(key.mac1_key, datagram.ACKNOWLEDGEMENT, inner)
    return datagram.encode(datagram.ACKNOWLEDGEMENT, mac1, inner, hops=hops)


def unseal_acknowledgement(key: ClientKey | WorkerKey, inner: bytes) -> tuple[Acknowledgement, Author]:
    """Reads an acknowledgement, which counts when its author is proved."""
    body, signature = _open(key, inner, ACKNOWLEDGEMENT_LABEL)
    acknowledgement = Acknowledgement.decode(body)
    return acknowledgement, Author(acknowledgement.certificate, ACKNOWLEDGEMENT_SIGNATURE_LABEL, body, signature)


def open_acknowledgement(key: ClientKey | WorkerKey, inner: bytes) -> Acknowledgement:
    acknowledgement, author = unseal_acknowledgement(key, inner)
    author.prove(key)
    return acknowledgement


def _seal(key: ClientKey | WorkerKey, body: bytes, label: bytes, signature_label: bytes) -> bytes:
    signed = body + key.identity.sign(signature_label, body)
    return key.alert_tag + sodium.seal_message(key.alert_key, signed, label + key.alert_tag)


def _open(key: ClientKey | WorkerKey, inner: bytes, label: bytes) -> tuple[bytes, bytes]:
    if not sodium.equal(inner[:ALERT_TAG_SIZE], key.alert_tag):
        raise VerifyError("alert is of another application")
    text = sodium.open_message(key.alert_key, inner[ALERT_TAG_SIZE:], label + key.alert_tag)
    if len(text) < sodium.SIGNATURE_SIZE:
        raise ProtocolError("alert is too short")
    return text[: -sodium.SIGNATURE_SIZE], text[-sodium.SIGNATURE_SIZE :]
