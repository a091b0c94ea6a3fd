"""Key files and datagrams of version 0.1.0: this version reads them, and writes the same where it can.

The tests of the other files let our code talk with itself, and two sides that are wrong in the same way agree.  The
record was made by the code of 0.1.0 and is never made anew.  `test_recorded_sessions` has connections.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cexec.protocol.base import bloom, sodium
from cexec.protocol.base.keys import ClientKey, OwnerKey, RelayKey, WorkerKey, decode_key, encode_key
from cexec.protocol.base.limits import FIRST_REVISION
from cexec.protocol.base.noise import Handshake
from cexec.protocol.datagrams import alert, announcement, datagram, hello, presence
from cexec.protocol.datagrams.announcement import ANSWER_PROLOGUE
from cexec.protocol.datagrams.hello import Hello, decode_answer, open_hello
from cexec.protocol.datagrams.opened_announcement import Claim, OpenedAnnouncement, open_announcement, own_job_id

RECORDED = json.loads((Path(__file__).parents[1] / "recorded" / "datagrams-0.1.0.json").read_text())
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


def responder() -> Handshake:
    """The client's side of the recorded announcement."""
    heard = opened()
    prologue = ANSWER_PROLOGUE + heard.hash
    return Handshake("NKpsk0", initiator=False, prologue=prologue, psk=heard.psk, static=recorded("reply_secret"))


def described(purpose: int) -> Hello:
    """The worker that was recorded."""
    return Hello(
        purpose=purpose, instance=INSTANCE, certificate=worker_key().identity.certificate, host="host-1",
        ciphers=["chacha20-poly1305", "aegis-256"], version="0.1.0", load=0.75, speed=2.5, slots=8, running=7,
        waiting=300, uptime=86_400, clock=1_800_000_000, detail="d", attributes={"arch": "x86_64"},
        revision=FIRST_REVISION, tells_wanted=False,
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
    assert own_job_id(JOB_ID, INSTANCE) == recorded("own_job_id")
    made = recorded("filter")
    assert bloom.make(b"\x05" * 32, [INSTANCE], 20) == made and bloom.contains(made, b"\x05" * 32, INSTANCE)
