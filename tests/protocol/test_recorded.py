"""What version 0.1.0 sent and received, recorded with the secrets of both sides: this version reads it and writes it.

The tests of the other files let our code talk with itself, and two sides that are wrong in the same way agree.  The
record was made by the code of 0.1.0 with fixed random numbers: key files, every kind of datagram, and a connection with
a job on it.  It is never made anew.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cexec.protocol.base import bloom, sodium
from cexec.protocol.base.keys import ClientKey, OwnerKey, RelayKey, WorkerKey, decode_key, encode_key
from cexec.protocol.base.noise import Handshake
from cexec.protocol.connection import frames
from cexec.protocol.connection.channel import ClientHandshake, WorkerHandshake
from cexec.protocol.connection.frames import Exit, Go
from cexec.protocol.connection.options import READS, WRITES
from cexec.protocol.connection.session import OVER, Session
from cexec.protocol.datagrams import alert, announcement, datagram, hello, presence
from cexec.protocol.datagrams.announcement import ANSWER_PROLOGUE, Claim, OpenedAnnouncement, open_announcement
from cexec.protocol.datagrams.hello import Hello, decode_answer, open_hello
from tests.protocol.wires import sent_bytes, transport_keys

RECORDED = json.loads((Path(__file__).parent / "recorded_0_1_0.json").read_text())
INSTANCE, JOB_ID, SERIES = b"instance 16 byte", b"job number 16 by", b"a series 16 byte"


def recorded(name: str) -> bytes:
    return bytes.fromhex(RECORDED[name])


def recorded_key(name: str) -> OwnerKey | ClientKey | WorkerKey | RelayKey:
    return decode_key(RECORDED["keys"][name].encode())


def client_key() -> ClientKey:
    key = recorded_key("client")
    assert isinstance(key, ClientKey)
    return key


def worker_key() -> WorkerKey:
    key = recorded_key("worker")
    assert isinstance(key, WorkerKey)
    return key


def inner(name: str, kind: int) -> datagram.Datagram:
    parsed = datagram.parse(recorded(name), [client_key().mac1_key])
    assert parsed is not None and parsed.kind == kind and parsed.hops == 8
    return parsed


def opened() -> OpenedAnnouncement:
    return open_announcement(worker_key(), inner("announcement", datagram.ANNOUNCEMENT).inner)


def responder(ephemeral: bytes | None = None) -> Handshake:
    """The client's side of the recorded announcement."""
    heard = opened()
    return Handshake(
        "NKpsk0", initiator=False, prologue=ANSWER_PROLOGUE + heard.hash, psk=heard.psk,
        static=recorded("reply_secret"), ephemeral_for_tests=ephemeral,
    )  # fmt: skip


def initiator(ephemeral: bytes) -> Handshake:
    """The worker's side."""
    heard = opened()
    return Handshake(
        "NKpsk0", initiator=True, prologue=ANSWER_PROLOGUE + heard.hash, psk=heard.psk,
        remote_static=heard.announcement.reply_key, ephemeral_for_tests=ephemeral,
    )  # fmt: skip


def described(purpose: int) -> Hello:
    """The worker that was recorded."""
    return Hello(
        purpose=purpose, instance=INSTANCE, certificate=worker_key().identity.certificate, host="host-1",
        ciphers=["chacha20-poly1305", "aegis-256"], version="0.1.0", load=0.75, speed=2.5, slots=8, running=7,
        waiting=300, uptime=86_400, clock=1_800_000_000, detail="d", attributes={"arch": "x86_64"},
    )  # fmt: skip


# Key files


@pytest.mark.parametrize("kind", ["owner", "client", "worker", "relay"])
def test_a_key_file_is_read_and_written_as_it_was(kind: str) -> None:
    assert encode_key(recorded_key(kind)) == RECORDED["keys"][kind]


def test_the_owners_seed_gives_the_same_keys() -> None:
    owner = recorded_key("owner")
    assert isinstance(owner, OwnerKey)
    assert encode_key(owner.client_key()) == RECORDED["keys"]["client"]
    assert encode_key(owner.relay_key()) == RECORDED["keys"]["relay"]
    assert owner.worker_secret == worker_key().worker_secret


# Datagrams


def test_an_announcement_is_opened() -> None:
    heard = opened()
    said = heard.announcement
    assert (said.job_id, said.attempt, said.kind) == (JOB_ID, 2, announcement.RUN_ALL)
    assert (said.weight, said.wanted_for, said.certificate.name) == (3, 20, "default")
    assert (said.requirements.needs, said.requirements.wanted) == ({"gpu": ""}, ("one",))
    assert heard.psk == recorded("answer_psk")
    assert said.reply_key == sodium.public_key(recorded("reply_secret"))
    parsed = inner("announcement", datagram.ANNOUNCEMENT)
    assert (parsed.counter, parsed.reply_port) == (1, 4000)


def test_a_claim_is_proved() -> None:
    claim = Claim.decode(inner("claim", datagram.CLAIM).inner)
    assert claim.announced == inner("announcement", datagram.ANNOUNCEMENT).mac1
    assert claim.connected == 5 and claim.proves(opened().announcement.claim_hash)


def test_an_answer_is_read() -> None:
    announced, message = decode_answer(inner("answer", datagram.ANSWER).inner)
    assert announced == inner("announcement", datagram.ANNOUNCEMENT).mac1
    found = open_hello(responder(), message, client_key().authority_public)
    assert found.encode() == described(hello.QUEUED).encode()


def test_an_alert_is_read_and_written() -> None:
    told = alert.open_alert(client_key(), inner("alert", datagram.ALERT).inner)
    assert told.encode() == recorded("alert_body")
    assert (told.series, told.sequence, told.running, told.status) == (SERIES, 7, [3, 5], 3)
    assert (told.clock, told.duration, told.received, told.sent) == (1_800_000_000_000, 1500, 10, 20)


def test_an_acknowledgement_is_read() -> None:
    told = alert.open_acknowledgement(worker_key(), inner("acknowledgement", datagram.ACKNOWLEDGEMENT).inner)
    assert (told.series, told.sequences, told.certificate.name) == (SERIES, [7, 8], "default")


def test_a_presence_is_read_and_written() -> None:
    told = presence.open_presence(client_key(), inner("presence", datagram.PRESENCE).inner)
    assert told.encode() == recorded("presence_body")
    assert (told.purpose, told.sequence, told.host) == (presence.HELLO, 2, "host-1")


def test_what_is_derived_is_the_same() -> None:
    assert announcement.own_job_id(JOB_ID, INSTANCE) == recorded("own_job_id")
    made = recorded("filter")
    assert bloom.make(b"\x05" * 32, [INSTANCE], 20) == made and bloom.contains(made, b"\x05" * 32, INSTANCE)


# A connection


def client() -> ClientHandshake:
    """The recorded client, which has heard the recorded worker."""
    machine = ClientHandshake(
        responder(recorded("client_ephemeral")), client_key().authority_public, [sodium.CHACHA], 0.0
    )
    machine.receive_data(recorded("first_flight"), 0.0)
    return machine


def worker() -> WorkerHandshake:
    """The recorded worker, which has heard the recorded client."""
    machine = WorkerHandshake(
        initiator(recorded("worker_ephemeral")), worker_key().identity, described(hello.CONNECT), 0.0
    )
    assert machine.data_to_send() == recorded("first_flight")
    machine.receive_data(recorded("second_flight"), 0.0)
    return machine


def test_the_two_flights_are_read_and_written() -> None:
    answering = client()
    found = answering.next_event()
    assert found is not None and found.encode() == described(hello.CONNECT).encode()
    assert answering.data_to_send() == recorded("second_flight")
    offering = worker().records
    assert offering is not None and answering.records is not None
    assert transport_keys(offering) == transport_keys(answering.records)[::-1]


@pytest.mark.parametrize("side", ["worker", "client"])
def test_the_records_of_a_job_are_read_and_written(side: str) -> None:
    ends = (client().records, worker().records)
    receiving, sending = ends if side == "worker" else ends[::-1]
    assert receiving is not None and sending is not None
    expected = frames_of(side)
    assert receiving.receive_data(recorded(f"records_of_{side}"), 0.0) == expected
    for frame in expected:
        sending.send_frame(frame)
    assert sent_bytes(sending) == recorded(f"records_of_{side}")


def heard(session: Session, sent: list[bytes]) -> list[int]:
    """The types of the events that these frames cause."""
    found = []
    for one in sent:
        session.receive_data(memoryview(one), 0.0)
        found += [event.kind for event in iter(session.next_event, None)]
    return found


def frames_of(side: str) -> list[bytes]:
    return [bytes.fromhex(one) for one in RECORDED[f"frames_of_{side}"]]


def test_the_frames_of_a_client_are_a_job() -> None:
    session = Session(worker=True, now=0.0)
    session.confirm()
    go, *others, release = frames_of("client")
    job = Go.decode(go[4:])
    assert (job.job_id, job.attempt, job.arguments) == (JOB_ID, 2, [b"-Q", b"\xff"])
    assert (job.environment, job.options) == ({"A": b"1"}, {"lease": "yes"})
    assert [(one.number, one.directions) for one in job.streams] == [(0, READS), (1, WRITES), (2, WRITES)]
    assert frames.frame(frames.GO, job.encode()) == go
    assert heard(session, [go, *others]) == [frames.GO, frames.DATA, frames.END]
    session.started()
    session.end(1)
    session.end(2)
    session.exit(Exit(kind=frames.EXITED, status=3, endings=[]))
    assert heard(session, [release]) == [frames.RELEASE]
    assert session.stage == OVER


def test_the_frames_of_a_worker_are_its_end() -> None:
    session = Session(worker=False, now=0.0)
    confirm, *others = frames_of("worker")
    assert heard(session, [confirm]) == [frames.CONFIRM]
    session.go(Go.decode(frames_of("client")[0][4:]))
    session.data_head(0, 5)
    session.end(0)
    assert heard(session, others) == [frames.STARTED, frames.DATA, frames.END, frames.END, frames.EXIT]
    result = Exit.decode(others[-1][4:])
    assert (result.exit_status, result.user_time, result.system_time, result.memory) == (3, 1000, 2000, 4096)
    assert result.message == "m"
    assert frames.frame(frames.EXIT, result.encode()) == others[-1]
