"""Workers that answer a census as docs/protocol.md says, section 2.6, without a network."""

from __future__ import annotations

import random

from cexec.protocol.base import bloom
from cexec.protocol.base.certificate import ROLE_WORKER, Certificate, Identity
from cexec.protocol.base.keys import WorkerKey
from cexec.protocol.datagrams import datagram, hello
from cexec.protocol.datagrams.announcement import CENSUS
from cexec.protocol.datagrams.hello import encode_answer, seal_hello
from cexec.protocol.datagrams.opened_announcement import open_announcement
from cexec.protocol.decisions.census import spread
from tests.protocol.wires import APPLICATION, hello_of

KEYS = [APPLICATION.client.mac1_key]
WALL = 1_800_000_000.0  # seconds since 1970: the time of the workers' clocks


def key_with(name: str, not_after: int | None) -> WorkerKey:
    """A worker's key with a certificate of this name, which ends at that second since 1970."""
    known = APPLICATION.worker
    public = known.identity.certificate.public_key
    certificate = Certificate.issue(APPLICATION.owner.authority_seed, ROLE_WORKER, name, 1, public, None, not_after)
    return WorkerKey(
        known.worker_secret, known.psk, known.authority_public, Identity(certificate, known.identity.signing_seed)
    )


EXPIRED = key_with("old", 1000)


class FakeWorker:
    """Answers as docs/protocol.md says; `slow` is what the network takes, both ways."""

    def __init__(self, number: int, key: WorkerKey = APPLICATION.worker, slow: float = 0.001, **fields: object) -> None:
        self.key = key
        self.instance = number.to_bytes(16, "big")
        self.address = f"10.0.{number // 250}.{number % 250 + 1}"
        self.slow = slow
        self.fields = fields
        self.rounds: list[int] = []  # those that it was asked in and had to answer

    def answer(self, data: bytes, dice: random.Random) -> tuple[float, bytes] | None:
        """How long after it was sent an answer arrives, and the answer."""
        parsed = datagram.parse(data, KEYS)
        assert parsed is not None and parsed.kind == datagram.ANNOUNCEMENT and parsed.reply_port == 0
        opened = open_announcement(self.key, parsed.inner)
        asked = opened.announcement
        assert asked.kind == CENSUS
        if bloom.contains(asked.known, asked.reply_key, self.instance):
            return None
        self.rounds.append(asked.attempt)
        said = hello_of(self.key, purpose=hello.CENSUS, instance=self.instance, clock=int(WALL * 1000), **self.fields)
        message = seal_hello(opened.handshake(), self.key.identity, said)
        delay = self.slow + dice.uniform(0, spread(asked.weight))
        return delay, encode_answer(self.key.mac1_key, parsed.mac1, message, hops=8)
