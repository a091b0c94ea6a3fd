"""The announcements that a worker has heard, and the ways by which each of them can be answered.

Contract: the table is bounded in number and time.  A copy of an announcement that is done with is recognised without
opening it, because opening costs a Diffie-Hellman.  docs/protocol.md section 2.2.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cexec.protocol.base.keys import DEFAULT_CLIENT_NAME
from cexec.protocol.base.limits import FAMILY_SIZE, MAXIMUM_HOPS
from cexec.protocol.datagrams.alert import job_key
from cexec.protocol.datagrams.opened_announcement import Claim, OpenedAnnouncement
from cexec.protocol.decisions.remembered import Origin
from cexec.protocol.decisions.standing import Standing
from cexec.protocol.decisions.ways import Way, Ways

if TYPE_CHECKING:
    import _socket
    from collections.abc import Sequence

    from cexec.net.groups import Sockaddr
    from cexec.protocol.datagrams.datagram import Datagram
    from cexec.protocol.datagrams.proof import Prover

MAXIMUM_HEARD = 10_000  # (ours) entries of each table: some megabytes, whatever peers send
DONE_LIFETIME = 60.0  # seconds (ours) after its last copy that an announcement is known as done with
IDLE_LIFETIME = 120.0  # seconds (ours) without a copy after which even a refused announcement is dropped


@dataclass(slots=True)
class Copy:
    """Where one copy of an announcement came from, and the socket that heard it."""

    source: Sockaddr
    via: _socket.socket = field(compare=False)


class Known:
    """One announcement.  `refusal`: the reason why this worker will never do it, or "".

    `application`: the index of its application among those that the worker serves.
    """

    __slots__ = ("application", "began", "failures", "heard", "mac1", "opened", "refusal", "refusals", "ways")

    def __init__(self, mac1: bytes, opened: OpenedAnnouncement, now: float, application: int = 0) -> None:
        self.mac1 = mac1
        self.application = application
        self.opened = opened
        self.began = now
        self.heard = now
        self.ways: Ways[Copy] = Ways()
        self.refusal = ""
        self.refusals = 0
        self.failures = 0

    def hear(self, parsed: Datagram, copy: Copy, now: float) -> None:
        """Takes another copy, which came by a known way or by one more."""
        self.heard = now
        host, *rest = copy.source
        standing = Standing.DOUBTED if parsed.doubted else Standing.UNPROVED
        self.ways.hear((host, parsed.reply_port, *rest[1:]), min(parsed.hops, MAXIMUM_HOPS), copy, now, standing)

    def best_ways(self, now: float) -> list[Way[Copy]]:
        """Returns the ways to the client, the best one first."""
        return self.ways.order(now)

    def prove(self, proofs: Sequence[bytes], prover: Prover, now: float) -> bool:
        """Returns True if the client receives by one of the ways, because it has returned what was sent there."""
        proved = False
        for way in self.best_ways(now):
            if way.standing != Standing.PROVED and prover.proves(proofs, self.mac1, way.origin.source, now):
                self.ways.prove(way)
                proved = True
        return proved

    def connected(self, address: Sockaddr, now: float) -> None:
        """Notes that the client has answered a connection to this address, which only the announcer can."""
        for way in self.best_ways(now):
            if way.address == address:
                self.ways.prove(way)

    def relays(self, now: float) -> int:
        """Returns the number of relays on the best way."""
        return MAXIMUM_HOPS - self.best_ways(now)[0].hops

    @property
    def origin(self) -> Origin:
        """Whose announcement it is.  Many clients hold the default certificate: their addresses tell them apart."""
        announcement = self.opened.announcement
        certificate = announcement.certificate
        host = ""
        if certificate.name == DEFAULT_CLIENT_NAME:
            host = next((str(way.origin.source[0]) for way in self.best_ways(self.heard)), "")
        job = job_key(announcement.job_id, announcement.attempt)
        return Origin(certificate.public_key + host.encode(), job, announcement.job_id[:FAMILY_SIZE])

    def fields(self) -> dict[str, object]:
        """The fields that name it in a log line."""
        announcement = self.opened.announcement
        return {
            "job": announcement.job_id.hex(),
            "attempt": announcement.attempt,
            "name": announcement.certificate.name,
            "serial": announcement.certificate.serial,
        }


class HeardAnnouncements:
    """All announcements that are known, by mac1."""

    def __init__(self) -> None:
        self._known: dict[bytes, Known] = {}
        self._refused: dict[bytes, Known] = {}
        self._done: dict[bytes, float] = {}  # until when
        self._unfit: dict[bytes, float] = {}  # likewise: what this worker lacks something for
        self._claims: dict[bytes, tuple[float, Claim]] = {}  # claims that came before their announcement

    def get(self, mac1: bytes) -> Known | None:
        return self._known.get(mac1) or self._refused.get(mac1)

    def done(self, mac1: bytes, now: float) -> bool:
        """Returns True if this datagram needs no more attention.

        What has been done stays known while copies come: `cexec --all` repeats its announcement until the last worker
        has the job.
        """
        if self._done.pop(mac1, None) is None:
            return mac1 in self._unfit
        self._done[mac1] = now + DONE_LIFETIME
        return True

    def add(self, parsed: Datagram, opened: OpenedAnnouncement, copy: Copy, now: float) -> Known:
        """Adds a new one, which stays until `forget`; the bidder, or the answer to a census, sees to that."""
        known = self._known[parsed.mac1] = Known(parsed.mac1, opened, now, parsed.key)
        known.hear(parsed, copy, now)
        return known

    def refuse(self, known: Known, reason: str) -> None:
        """Keeps it apart, because this worker will never do it and the bidder is not told of it; `expire` drops it."""
        known.refusal = reason
        self._known.pop(known.mac1, None)
        _put(self._refused, known.mac1, known)

    def reconsider(self, application: int) -> None:
        """Forgets what was refused for one application, so that the next copy is judged anew."""
        self._refused = {mac1: known for mac1, known in self._refused.items() if known.application != application}

    def forget(self, mac1: bytes, now: float, *, over: bool = True) -> None:
        """Drops it; if it is over, copies that still come are ignored."""
        self._known.pop(mac1, None)
        if over:
            _put(self._done, mac1, now + DONE_LIFETIME)

    def pass_over(self, mac1: bytes, now: float) -> None:
        """Drops what this worker lacks something for; it is looked at again later, because addresses may change."""
        self._known.pop(mac1, None)
        _put(self._unfit, mac1, now + DONE_LIFETIME)

    def claim_first(self, claim: Claim, now: float) -> None:
        """Keeps a claim whose announcement has not been heard yet."""
        _put(self._claims, claim.announced, (now + DONE_LIFETIME, claim))

    def take_claim(self, mac1: bytes) -> Claim | None:
        """Returns the claim that came before this announcement, if there is one, and forgets it."""
        early = self._claims.pop(mac1, None)
        return None if early is None else early[1]

    def waiting(self) -> list[Known]:
        """Returns those that may still be served."""
        return list(self._known.values())

    def expire(self, now: float) -> None:
        """Drops the entries that are too old to matter."""
        self._done = {mac1: until for mac1, until in self._done.items() if until > now}
        self._unfit = {mac1: until for mac1, until in self._unfit.items() if until > now}
        self._claims = {mac1: early for mac1, early in self._claims.items() if early[0] > now}
        self._refused = {mac1: known for mac1, known in self._refused.items() if known.heard >= now - IDLE_LIFETIME}


def _put(table: dict, key: bytes, value: object) -> None:  # type: ignore[type-arg]
    """Adds an entry; in a full table the oldest one makes room."""
    if len(table) >= MAXIMUM_HEARD:
        del table[next(iter(table))]
    table[key] = value
