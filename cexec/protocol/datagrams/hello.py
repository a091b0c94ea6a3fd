"""The hello: a worker's description of itself, in the first message of every answer and every connection.

Contract: `seal_hello` writes the first message of section 3's handshake, signed by the worker's identity over the
handshake's hash; `open_hello` reads it and proves certificate and signature (all but the certificate's dates), raising
`ProtocolError` for everything else.  Anybody who has recorded a first message can send it again: it proves who wrote
it, not who sends it.  docs/protocol.md section 2.4 (as a datagram, `encode_answer`) and 3.1 (as a first flight).
"""

from __future__ import annotations

from cexec.common_errors import ProtocolError
from cexec.protocol.base import sodium
from cexec.protocol.base.certificate import ROLE_WORKER, Certificate, Identity, verify_signature
from cexec.protocol.base.limits import FIRST_REVISION, IDENTITY_SIZE, MAXIMUM_NAME, SECOND_REVISION
from cexec.protocol.base.wire import Reader, Writer
from cexec.protocol.datagrams import datagram
from cexec.protocol.datagrams.requirements import ONCE, PROOF

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cexec.protocol.base.noise import Handshake

CONNECT = 1  # the first flight of a connection
QUEUED = 2  # all slots are busy; the announcement is remembered
UNREACHABLE = 3  # heard you, cannot connect; `detail` says where to and why
REFUSED = 4  # never, for the reason in `detail`
CENSUS = 5  # an answer to a census
PROVE = 6  # heard you, there is no place now: return the proof in `attributes`
PURPOSES = (CONNECT, QUEUED, UNREACHABLE, REFUSED, CENSUS, PROVE)

SIGNATURE_LABEL = b"cexec 1 hello signature"
CIPHERS = (sodium.CHACHA, sodium.AEGIS)  # (protocol) bit 0, bit 1 of the offer
REVISION_BIT = 0x80  # (protocol) of the offer: the worker speaks SECOND_REVISION on connections
WANTED_BIT = 0x40  # (protocol) of the offer: the worker knows the frame WANTED, and the option that asks for it
TERMINAL_BIT = 0x20  # (protocol) of the offer: the worker gives a job a terminal if GO asks for one
SUGGESTED_BIT = 0x10  # (protocol) of the offer: a client at a terminal should ask for one by itself
THOUSANDTHS = 1000  # loads and speeds travel as integers
MAXIMUM_ATTRIBUTES = 480  # bytes (protocol) of the attributes' mapping, so that every answer fits in a datagram
MAXIMUM_DETAIL = 240  # bytes (protocol) of a detail, likewise


class Hello:
    """`load`: 0.0 idle to 1.0 full, more when overloaded; `uptime`: seconds; `clock`: milliseconds since 1970, UTC.

    `attributes`: os, arch, cpus, mem and the labels in a census, where `detail` says how healthy the worker is;
    elsewhere ONCE, if that is so, and PROOF, if the client has not proved yet where it receives.  `tells_wanted`: a job
    may ask to hear when another client waits for its slot, on connections of the second revision.  `gives_terminal`: a
    job may ask to run on a terminal; `suggests_terminal`: it should, if its client is at one.
    """

    __slots__ = (
        "attributes", "certificate", "ciphers", "clock", "detail", "gives_terminal", "host", "instance", "load",
        "purpose", "revision", "running", "slots", "speed", "suggests_terminal", "tells_wanted", "uptime", "version",
        "waiting",
    )  # fmt: skip

    def __init__(
        self,
        *,
        purpose: int,
        instance: bytes,
        certificate: Certificate,
        host: str,
        ciphers: list[str],
        revision: int = SECOND_REVISION,
        tells_wanted: bool = True,
        gives_terminal: bool = False,
        suggests_terminal: bool = False,
        version: str = "",
        load: float = 0.0,
        speed: float = 1.0,
        slots: int = 1,
        running: int = 0,
        waiting: int = 0,
        uptime: int = 0,
        clock: int = 0,
        detail: str = "",
        attributes: dict[str, str] | None = None,
    ) -> None:
        self.purpose = purpose
        self.instance = instance
        self.certificate = certificate
        self.host = host[:MAXIMUM_NAME]
        self.ciphers = ciphers
        self.revision = revision
        self.tells_wanted = tells_wanted
        self.gives_terminal = gives_terminal
        self.suggests_terminal = suggests_terminal
        self.version = version
        self.load = load
        self.speed = speed
        self.slots = slots
        self.running = running
        self.waiting = waiting
        self.uptime = uptime
        self.clock = clock
        self.detail = detail
        self.attributes = attributes or {}

    @property
    def name(self) -> str:
        """The name that the worker's certificate gives it."""
        return self.certificate.name

    @property
    def once(self) -> bool:
        """True if a job that this worker may have started must never be repeated."""
        return ONCE in self.attributes

    @property
    def proof(self) -> bytes:
        """The bytes that the client is asked to return, or none."""
        try:
            return bytes.fromhex(self.attributes.get(PROOF, ""))
        except ValueError:
            return b""

    def encode(self) -> bytes:
        writer = Writer().u8(self.purpose).raw(self.instance).short_bytes(self.certificate.encode()).text(self.host)
        offer = sum(1 << CIPHERS.index(name) for name in self.ciphers)
        offer |= REVISION_BIT if self.revision == SECOND_REVISION else 0
        offer |= WANTED_BIT if self.tells_wanted else 0
        offer |= TERMINAL_BIT if self.gives_terminal else 0
        offer |= SUGGESTED_BIT if self.suggests_terminal else 0
        writer.u8(offer).text(self.version)
        for value in (self.load * THOUSANDTHS, self.speed * THOUSANDTHS, self.slots, self.running, self.waiting):
            writer.u16(max(0, min(0xFFFF, round(value))))
        return bytes(writer.u32(self.uptime).u64(self.clock).long_text(self.detail).mapping(self.attributes))

    @classmethod
    def decode(cls, data: bytes) -> Hello:
        reader = Reader(data)
        purpose, instance = reader.u8(), reader.take(IDENTITY_SIZE)
        certificate, host = Certificate.decode(reader.short_bytes()), reader.text()
        offer, version = reader.u8(), reader.text()
        load, speed, slots, running, waiting = (reader.u16() for _ in range(5))
        hello = cls(
            purpose=purpose,
            instance=instance,
            certificate=certificate,
            host=host,
            ciphers=[name for bit, name in enumerate(CIPHERS) if offer & 1 << bit],
            revision=SECOND_REVISION if offer & REVISION_BIT else FIRST_REVISION,
            tells_wanted=bool(offer & WANTED_BIT),
            gives_terminal=bool(offer & TERMINAL_BIT),
            suggests_terminal=bool(offer & SUGGESTED_BIT),
            version=version,
            load=load / THOUSANDTHS,
            speed=speed / THOUSANDTHS,
            slots=slots,
            running=running,
            waiting=waiting,
            uptime=reader.u32(),
            clock=reader.u64(),
            detail=reader.long_text(),
            attributes=reader.mapping(),
        )
        reader.finish()
        if purpose not in PURPOSES:
            raise ProtocolError("hello has an unknown purpose")
        if len(host) > MAXIMUM_NAME:
            raise ProtocolError("hello has a host name that is too long")
        return hello


def seal_hello(handshake: Handshake, identity: Identity, hello: Hello, padded_to: int = 0) -> bytes:
    """The first message of `handshake`; its payload is padded with zeros to `padded_to` bytes."""
    body = hello.encode()

    def payload(h: bytes) -> bytes:
        return Writer().long_bytes(body).raw(identity.sign(SIGNATURE_LABEL, h, body)).padded(padded_to)

    return handshake.write_message(payload)


def open_hello(handshake: Handshake, message: bytes, authority_public: bytes) -> Hello:
    """Reads the first message of `handshake` and proves who wrote it."""
    payload, h = handshake.read_message(message)
    reader = Reader(payload)
    body, signature = reader.long_bytes(), reader.take(sodium.SIGNATURE_SIZE)
    reader.zeros()
    hello = Hello.decode(body)
    hello.certificate.check_signature(authority_public, ROLE_WORKER)
    verify_signature(hello.certificate.public_key, signature, SIGNATURE_LABEL, h, body)
    return hello


def encode_answer(mac1_key: bytes, announced: bytes, message: bytes, hops: int) -> bytes:
    """Returns the datagram with `message`, which `seal_hello` made; `announced` is mac1 of the announcement."""
    inner = announced + message
    return datagram.encode(datagram.ANSWER, datagram.compute_mac1(mac1_key, datagram.ANSWER, inner), inner, hops=hops)


def decode_answer(inner: bytes) -> tuple[bytes, bytes]:
    """Returns the mac1 of the answered announcement and the message for `open_hello`."""
    reader = Reader(inner)
    return reader.take(datagram.MAC1_SIZE), reader.rest()
