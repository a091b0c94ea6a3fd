"""The attacks that docs/protocol.md section 3 gives as the reasons for its handshake, played with the real code.

The attackers: an outsider that hears everything and connects to anybody but has no key, and another worker of the same
application, that has the worker's secret key, the psk and a certificate of its own.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cexec.errors import CexecError, ProtocolError, VerifyError
from cexec.protocol.base import sodium
from cexec.protocol.base.certificate import Identity
from cexec.protocol.base.noise import HASH_SIZE, OVERHEAD, Handshake, SymmetricState
from cexec.protocol.connection import frames
from cexec.protocol.connection.channel import FIRST_FLIGHT, OPENING, SECOND_FLIGHT, ClientHandshake
from cexec.protocol.connection.worker_handshake import WorkerHandshake
from cexec.protocol.datagrams import datagram, hello
from cexec.protocol.datagrams.announcement import (
    ANSWER_PROLOGUE,
    ANSWER_PSK_LABEL,
    PROLOGUE,
    Announcement,
    SealedAnnouncement,
)
from cexec.protocol.datagrams.hello import decode_answer, encode_answer, open_hello, seal_hello
from cexec.protocol.datagrams.opened_announcement import Claim, open_announcement
from tests.protocol.wires import (
    APPLICATION,
    JOB_ID,
    Side,
    Wire,
    WorkerRobot,
    client_handshake,
    hello_of,
    join,
    transport_keys,
    worker_handshake,
)

AUTHORITY = APPLICATION.client.authority_public
MALLORY = APPLICATION.other_worker  # the other worker


class Recorded:
    """A whole job between a client and the honest worker, everything that passed, and the announcement."""

    def __init__(self) -> None:
        self.sealed = APPLICATION.announce()
        self.announcement = self.sealed.datagram(0, 4000, 8)
        self.wire = join(sealed=self.sealed, robots=True).flow().raise_errors()
        assert len(self.wire.client.exits) == 1
        self.from_worker = self.wire.to_client.carried
        self.from_client = self.wire.to_worker.carried
        self.first_flight = self.from_worker[:FIRST_FLIGHT]
        self.second_flight = self.from_client[:SECOND_FLIGHT]
        self.worker_records = self.from_worker[FIRST_FLIGHT:]
        self.client_records = self.from_client[SECOND_FLIGHT:]

    def client(self) -> ClientHandshake:
        """What the same attempt's listener makes of one more connection."""
        return client_handshake(self.sealed.handshake(), APPLICATION.client)


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    return Recorded()


# (a) The winner's recorded first flight on a second connection


def test_a_replayed_first_flight_never_gives_the_keys_of_the_first_connection(recorded: Recorded) -> None:
    seen = [transport_keys(recorded.wire.client.records)]
    for _ in range(20):
        client = recorded.client()
        client.receive_data(recorded.first_flight, 0.0)
        assert client.records is not None
        seen.append(transport_keys(client.records))
    keys = [key for pair in seen for key in pair]
    assert len(set(keys)) == len(keys) == 42  # so no nonce is ever used twice with one key


def test_the_clients_ephemeral_is_fresh_on_every_connection(recorded: Recorded) -> None:
    answers = [recorded.second_flight]
    for _ in range(5):
        client = recorded.client()
        client.receive_data(recorded.first_flight, 0.0)
        answers.append(client.data_to_send())
    assert len({answer[: sodium.KEY_SIZE] for answer in answers}) == 6


def test_records_of_the_first_connection_do_not_verify_in_the_second(recorded: Recorded) -> None:
    for replayed in (recorded.worker_records, recorded.client_records):
        client = Side(recorded.client())
        client.receive(recorded.first_flight, 0.0)
        client.receive(replayed, 0.0)
        assert isinstance(client.error, VerifyError)
        assert (client.events, client.exits, client.output) == ([], [], {})


def test_the_replayer_cannot_compute_the_keys_from_what_it_saw(recorded: Recorded) -> None:
    """It sees the second flight of its own connection, but has the ephemeral secret of neither side."""
    client = recorded.client()
    client.receive_data(recorded.first_flight, 0.0)
    second = client.data_to_send()
    opened = APPLICATION.hear(recorded.sealed)
    stranger = opened.handshake()  # more than an outsider could have: all that a worker knows
    body = hello_of(APPLICATION.worker).encode()
    stranger.write_message(lambda h: body)
    with pytest.raises(VerifyError):
        stranger.read_message(second)


def test_a_replayed_second_flight_does_not_finish_a_new_handshake(recorded: Recorded) -> None:
    worker = worker_handshake(APPLICATION.hear(recorded.sealed).handshake(), APPLICATION.worker)
    with pytest.raises(VerifyError):
        worker.receive_data(recorded.second_flight, 0.0)


def test_a_handshake_cannot_answer_twice(recorded: Recorded) -> None:
    client = recorded.client()
    client.receive_data(recorded.first_flight, 0.0)
    with pytest.raises(ValueError, match="more bytes than were wanted"):
        client.receive_data(recorded.first_flight, 0.0)


# (b) Another worker of the same application in the middle


class Middle:
    """Mallory between the client and the honest worker: passes on what both send, changed as it likes."""

    def __init__(self, change: Callable[[str, bytes], bytes] = lambda direction, data: data) -> None:
        self.sealed = APPLICATION.announce()
        self.opened = APPLICATION.hear(self.sealed, MALLORY)  # Mallory reads the announcement as every worker does
        self.client = Side(client_handshake(self.sealed.handshake(), APPLICATION.client))
        honest = APPLICATION.hear(self.sealed)
        self.worker = WorkerRobot(worker_handshake(honest.handshake(), APPLICATION.worker))
        self.change = change
        self.seen: list[bytes] = []

    def flow(self) -> Middle:
        for _ in range(10):
            for name, sender, receiver in (("up", self.worker, self.client), ("down", self.client, self.worker)):
                data = sender.bytes_to_send()
                if data:
                    self.seen.append(data)
                    receiver.receive(self.change(name, data), 0.0)
        return self


def test_a_worker_in_the_middle_can_pass_on_but_not_read() -> None:
    middle = Middle()
    middle.flow()
    assert middle.client.events == [(frames.CONFIRM, 0)]
    assert middle.client.hello is not None and middle.client.hello.name == "honest"
    first, second = middle.seen[0], middle.seen[1]
    # As the client: it has everything but the reply secret.
    for secret in (MALLORY.worker_secret, MALLORY.psk, MALLORY.identity.signing_seed, b"\x07" * 32):
        pose = Handshake(
            "NKpsk0",
            initiator=False,
            prologue=ANSWER_PROLOGUE + middle.opened.hash,
            psk=middle.opened.psk,
            static=secret,
        )
        with pytest.raises(ProtocolError):
            pose.read_message(first[len(OPENING) :])
    # As the worker: it has everything but the honest worker's ephemeral secret.
    pose = middle.opened.handshake()
    pose.write_message(lambda h: bytes(640))
    with pytest.raises(VerifyError):
        pose.read_message(second)


def test_a_worker_that_shares_every_static_secret_cannot_derive_the_record_keys() -> None:
    """With a psk from the announcement as the only secret, every worker had the keys of every connection."""
    middle = Middle().flow()
    known = [middle.opened.psk, MALLORY.psk, MALLORY.worker_secret, middle.opened.hash[:32], MALLORY.mac1_key]
    known += [sodium.keyed_hash(key, label) for key in list(known) for label in (ANSWER_PSK_LABEL, b"cexec 1 record ")]
    for key in transport_keys(middle.client.records):
        assert key not in known


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("message", [0, 1])
def test_a_worker_in_the_middle_cannot_alter_anything(direction: str, message: int) -> None:
    passed = {"up": 0, "down": 0}
    changed = []

    def change(name: str, data: bytes) -> bytes:
        passed[name] += 1
        if name == direction and passed[name] == message + 1:
            changed.append(name)
            return data[:-1] + bytes([data[-1] ^ 1])
        return data

    middle = Middle(change)
    middle.flow()
    if direction == "down" and message == 1:
        middle.client.session.go(frames.Go(job_id=JOB_ID, attempt=1, streams=[]))
        middle.flow()
    assert changed
    errors = [middle.client.error, middle.worker.error]
    assert any(isinstance(error, VerifyError) for error in errors)
    assert frames.GO not in [kind for kind, _ in middle.worker.events]


def refused_by_the_client(sealed: SealedAnnouncement, worker: WorkerHandshake) -> None:
    client = client_handshake(sealed.handshake(), APPLICATION.client)
    with pytest.raises(VerifyError):
        client.receive_data(worker.data_to_send(), 0.0)
    assert client.next_event() is None and client.data_to_send() == b"" and client.records is None


def test_another_worker_cannot_pose_as_the_honest_one() -> None:
    sealed = APPLICATION.announce()
    handshake = APPLICATION.hear(sealed, MALLORY).handshake()
    posing = Identity(APPLICATION.worker.identity.certificate, MALLORY.identity.signing_seed)
    refused_by_the_client(sealed, WorkerHandshake(handshake, posing, hello_of(APPLICATION.worker), 0.0))


def test_the_honest_workers_signature_of_another_conversation_does_not_help() -> None:
    """Mallory was a client once and has a hello that the honest worker signed for it: it is bound to that handshake."""
    earlier = APPLICATION.announce()
    message = seal_hello(
        APPLICATION.hear(earlier).handshake(), APPLICATION.worker.identity, hello_of(APPLICATION.worker)
    )
    payload, _ = earlier.handshake().read_message(message)
    open_hello(earlier.handshake(), message, AUTHORITY)  # it is genuine there
    sealed = APPLICATION.announce()
    stolen = APPLICATION.hear(sealed, MALLORY).handshake().write_message(lambda h: payload.ljust(640, b"\0"))
    client = client_handshake(sealed.handshake(), APPLICATION.client)
    with pytest.raises(VerifyError, match="signature"):
        client.receive_data(OPENING + stolen, 0.0)


def test_under_its_own_name_another_worker_is_only_another_worker() -> None:
    sealed = APPLICATION.announce()
    client = client_handshake(sealed.handshake(), APPLICATION.client)
    client.receive_data(worker_handshake(APPLICATION.hear(sealed, MALLORY).handshake(), MALLORY).data_to_send(), 0.0)
    offer = client.next_event()
    assert offer is not None and offer.name == "other"


# Announcements


def test_a_replayed_announcement_makes_nothing_run(recorded: Recorded) -> None:
    """The worker may have forgotten it, connects to the replayer, and waits in vain for a second flight."""
    parsed = datagram.parse(recorded.announcement, [APPLICATION.worker.mac1_key])
    assert parsed is not None
    opened = open_announcement(APPLICATION.worker, parsed.inner)
    attempts = [recorded.second_flight, bytes(SECOND_FLIGHT), recorded.first_flight[-SECOND_FLIGHT:]]
    for attempt in attempts:
        worker = WorkerRobot(worker_handshake(opened.handshake(), APPLICATION.worker))
        first = worker.bytes_to_send()
        assert len(first) == FIRST_FLIGHT and first != recorded.first_flight
        worker.receive(attempt + recorded.client_records, 0.0)
        assert isinstance(worker.error, ProtocolError) and worker.events == []


def test_a_replayed_announcement_has_the_identity_of_the_first_one(recorded: Recorded) -> None:
    """Whatever the replayer does to hops, counter and port: the seen-cache knows it by its mac1."""
    moved = recorded.announcement[:6] + bytes([1, 0, 9, 9, 0x20, 0]) + recorded.announcement[12:]
    parsed = datagram.parse(moved, [APPLICATION.worker.mac1_key])
    assert parsed is not None and parsed.mac1 == recorded.sealed.mac1


def opened_by_mallory(sealed: SealedAnnouncement) -> tuple[bytes, bytes]:
    """The client's signed payload and the ephemeral it was sent with: a worker can read both."""
    handshake = Handshake("Npsk0", initiator=False, prologue=PROLOGUE, psk=MALLORY.psk, static=MALLORY.worker_secret)
    payload, _ = handshake.read_message(sealed.inner)
    return payload, sealed.inner[: sodium.KEY_SIZE]


def npsk0() -> Handshake:
    return Handshake(
        "Npsk0", initiator=True, prologue=PROLOGUE, psk=MALLORY.psk, remote_static=APPLICATION.client.worker_public
    )


def test_a_worker_cannot_lift_a_signed_payload_into_an_announcement_of_its_own() -> None:
    payload, _ = opened_by_mallory(APPLICATION.announce())
    with pytest.raises(VerifyError, match="signature"):
        open_announcement(APPLICATION.worker, npsk0().write_message(lambda h: payload))


def test_a_worker_cannot_put_its_own_reply_key_into_a_clients_announcement() -> None:
    payload, _ = opened_by_mallory(APPLICATION.announce())
    body, signature = payload[: -sodium.SIGNATURE_SIZE], payload[-sodium.SIGNATURE_SIZE :]
    forged = Announcement.decode(body)
    forged.reply_key = sodium.public_key(b"\x09" * 32)
    with pytest.raises(VerifyError, match="signature"):
        open_announcement(APPLICATION.worker, npsk0().write_message(lambda h: forged.encode() + signature))


def test_a_worker_cannot_change_the_payload_under_the_clients_ephemeral() -> None:
    """It knows the worker's secret key, hence the key of the box: the signature alone stands against it."""
    sealed = APPLICATION.announce()
    payload, ephemeral = opened_by_mallory(sealed)
    forged = Announcement.decode(payload[: -sodium.SIGNATURE_SIZE])
    forged.weight += 1
    box_key = _box_key(ephemeral)
    assert _sealed_with(box_key, ephemeral, payload) == sealed.inner  # so the attack is a real one
    with pytest.raises(VerifyError, match="signature"):
        open_announcement(
            APPLICATION.worker, _sealed_with(box_key, ephemeral, forged.encode() + payload[-sodium.SIGNATURE_SIZE :])
        )


def _box_key(ephemeral: bytes) -> SymmetricState:
    """The state after `psk e es` of another client's message; it takes no more than the worker's key."""
    name = b"Noise_Npsk0_25519_ChaChaPoly_BLAKE2b".ljust(HASH_SIZE, b"\0")
    state = SymmetricState(name, name, None, 0)
    state.mix_hash(PROLOGUE)
    state.mix_hash(sodium.public_key(MALLORY.worker_secret))
    state.mix_key_and_hash(MALLORY.psk)
    state.mix_hash(ephemeral)
    state.mix_key(ephemeral)
    state.mix_key(sodium.diffie_hellman(MALLORY.worker_secret, ephemeral))
    return state


def _sealed_with(state: SymmetricState, ephemeral: bytes, payload: bytes) -> bytes:
    return ephemeral + state.copy().encrypt(payload)


def test_a_claim_forged_by_a_worker_is_refused() -> None:
    """It knows the announcement and the mac1 key, but not the claim secret, only its hash."""
    sealed = APPLICATION.announce()
    opened = APPLICATION.hear(sealed, MALLORY)
    for secret in (opened.announcement.claim_hash, bytes(32), MALLORY.psk, opened.psk):
        inner = sealed.mac1 + secret + b"\0\1"
        mac1 = datagram.compute_mac1(MALLORY.mac1_key, datagram.CLAIM, inner)
        parsed = datagram.parse(datagram.encode(datagram.CLAIM, mac1, inner, hops=8), [APPLICATION.worker.mac1_key])
        assert parsed is not None  # it passes for a datagram of the application
        assert not Claim.decode(parsed.inner).proves(opened.announcement.claim_hash)


# Answers


def test_an_answer_is_read_by_the_asking_client_only() -> None:
    sealed, another_clients = APPLICATION.announce(), APPLICATION.announce()
    message = seal_hello(
        APPLICATION.hear(sealed).handshake(),
        APPLICATION.worker.identity,
        hello_of(APPLICATION.worker, purpose=hello.UNREACHABLE, detail="10.0.0.6:4000: timed out"),
    )
    data = encode_answer(APPLICATION.worker.mac1_key, sealed.mac1, message, hops=8)
    parsed = datagram.parse(data, [APPLICATION.client.mac1_key])
    assert parsed is not None
    assert b"10.0.0.6" not in data and b"honest" not in data
    _, carried = decode_answer(parsed.inner)
    assert open_hello(sealed.handshake(), carried, AUTHORITY).detail == "10.0.0.6:4000: timed out"
    with pytest.raises(VerifyError):
        open_hello(another_clients.handshake(), carried, AUTHORITY)


def test_an_answer_does_not_open_a_connection_nor_a_first_flight_answer() -> None:
    sealed = APPLICATION.announce()
    opened = APPLICATION.hear(sealed)
    queued = seal_hello(
        opened.handshake(), APPLICATION.worker.identity, hello_of(APPLICATION.worker, purpose=hello.QUEUED), 640
    )
    client = client_handshake(sealed.handshake(), APPLICATION.client)
    with pytest.raises(ProtocolError, match="not meant for a connection"):
        client.receive_data(OPENING + queued, 0.0)
    assert len(queued) == 640 + OVERHEAD


def test_an_undisturbed_connection_works() -> None:
    """The control: everything above fails for a reason."""
    wire: Wire = join(robots=True).flow()
    errors: list[CexecError | None] = [wire.client.error, wire.worker.error]
    assert errors == [None, None] and wire.client.exits[0].exit_status == 3
