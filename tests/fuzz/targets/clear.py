"""What anybody can send who has no key: datagrams, and the first bytes of a connection."""

from __future__ import annotations

from collections.abc import Callable

from cexec.errors import ProtocolError
from cexec.protocol.base import bloom
from cexec.protocol.base.noise import OVERHEAD, Handshake
from cexec.protocol.connection.channel import FIRST_FLIGHT, SECOND_FLIGHT
from cexec.protocol.datagrams import datagram, forwarded, relay_datagram
from cexec.protocol.datagrams.alert import open_acknowledgement, open_alert, tag_of
from cexec.protocol.datagrams.hello import decode_answer, open_hello
from cexec.protocol.datagrams.opened_announcement import Claim, open_announcement
from cexec.protocol.datagrams.presence import open_presence
from cexec.protocol.datagrams.proof import Prover, decode_proofs
from tests.fuzz.target import target
from tests.protocol.wires import APPLICATION, client_handshake, worker_handshake

KEYS = [APPLICATION.client.mac1_key]
SEALED = APPLICATION.announce()
OPENED = APPLICATION.hear(SEALED)


@target()
def outer_part(data: bytes) -> None:
    """The outer part of a datagram."""
    parsed = datagram.parse(data, KEYS)
    if parsed is not None:
        again = datagram.encode(
            parsed.kind, parsed.mac1, parsed.inner, hops=parsed.hops, counter=parsed.counter,
            reply_port=parsed.reply_port,
        )  # fmt: skip
        assert again[:7] == data[:7] and again[8:] == data[8:]  # all but the flags


@target()
def right_mac1(data: bytes) -> None:
    """Any inner part behind a right mac1, as a holder of a relay key can send it."""
    if len(data) < 2 or len(data) > 1000:
        return
    kind, inner = data[0], data[1:]
    mac1 = datagram.compute_mac1(APPLICATION.client.mac1_key, kind, inner)
    parsed = datagram.parse(datagram.encode(kind, mac1, inner, hops=8), KEYS)
    assert parsed is not None and (parsed.kind, parsed.inner) == (kind, inner)
    tag_of(inner)
    openers: dict[int, Callable[[], object]] = {
        datagram.ANNOUNCEMENT: lambda: open_announcement(APPLICATION.worker, inner),
        datagram.CLAIM: lambda: Claim.decode(inner),
        datagram.ANSWER: lambda: open_hello(
            SEALED.handshake(), decode_answer(inner)[1], APPLICATION.client.authority_public
        ),
        datagram.ALERT: lambda: open_alert(APPLICATION.client, inner),
        datagram.ACKNOWLEDGEMENT: lambda: open_acknowledgement(APPLICATION.worker, inner),
        datagram.PRESENCE: lambda: open_presence(APPLICATION.client, inner),
        datagram.PROOF: lambda: decode_proofs(inner),
    }
    if kind in openers:
        try:
            openers[kind]()
        except ProtocolError:
            pass


@target()
def forwarded_datagram(data: bytes) -> None:
    """A datagram that another process of this host has forwarded, or a message of them."""
    for wrapped in forwarded.split(data):
        forwarded.unwrap(wrapped)
    found = forwarded.unwrap(data)
    if found is not None:
        inner, source = found
        assert forwarded.may_be_wrapped(inner)
        assert forwarded.unwrap(forwarded.wrap(inner, source)) == (inner, source)


@target(ProtocolError)
def proofs(data: bytes) -> None:
    """Proofs of receiving that are returned."""
    announced, found = decode_proofs(data)
    assert announced + b"".join(found) == data
    prover = Prover(bytes(32))
    assert not prover.proves(found, announced, ("10.0.0.1", 4000), 0.0)


@target()
def relayed_datagram(data: bytes) -> None:
    """A datagram that a relay without a key looks at."""
    head = relay_datagram.read(data)
    if head is not None:
        passed = relay_datagram.rewrite(data, hops=max(0, head.hops - 1), reply_port=4000)
        again = relay_datagram.read(passed)
        assert again is not None and (again.kind, again.mac1, again.about) == (head.kind, head.mac1, head.about)
        assert passed[12:] == data[12:] and len(passed) == len(data)


@target(ProtocolError)
def claim(data: bytes) -> None:
    """A claim."""
    found = Claim.decode(data)
    assert not found.proves(SEALED.announcement.claim_hash)


@target()
def instance_filter(data: bytes) -> None:
    """The filter of known instances in a census: any bytes are one."""
    identity = bytes(16)
    bloom.contains(data, bytes(32), identity)
    assert not bloom.contains(b"", data[:64], identity)
    made = bloom.make(bytes(32), [data[:16].ljust(16, b"\0")], max(1, len(data)))
    assert bloom.contains(made, bytes(32), data[:16].ljust(16, b"\0"))


@target(ProtocolError)
def first_flight(data: bytes) -> None:
    """The first bytes of a connection at a client, in two pieces."""
    machine = client_handshake(SEALED.handshake(), APPLICATION.client)
    half = len(data) // 2
    for piece in (data[:half], data[half:FIRST_FLIGHT]):
        machine.receive_data(piece, 0.0)
    assert machine.records is None and machine.wanted == FIRST_FLIGHT - len(data[:FIRST_FLIGHT])


@target(ProtocolError)
def second_flight(data: bytes) -> None:
    """The first bytes of a connection at a worker."""
    machine = worker_handshake(OPENED.handshake(), APPLICATION.worker)
    machine.receive_data(data[:SECOND_FLIGHT], 0.0)
    assert machine.records is None


@target(ProtocolError)
def noise_message(data: bytes) -> None:
    """A message of the one-way handshake."""
    key = APPLICATION.worker
    Handshake("Npsk0", initiator=False, prologue=b"", psk=key.psk, static=key.worker_secret).read_message(data)
    raise AssertionError(f"{len(data)} bytes verified; {OVERHEAD} are added")
