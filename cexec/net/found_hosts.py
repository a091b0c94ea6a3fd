"""The hosts that multicast DNS has found, and which of them get a datagram now.

Contract: anybody on the link can register any host, so a host that has never answered gets few datagrams, and not
close together.  `add` and `remove` follow what is found; `answered(host)` says that an authenticated answer has come
from a host.  `due(now)` returns the destinations for a datagram and counts it, `new(now)` those that have had none yet;
`parting(now)` returns those that have had some.  A host that has had MOST_UNANSWERED datagrams in vain is forgotten for
a while, each time for longer; a *patient* sender, whose datagrams are seldom answered, sends on at a low rate instead.
Pure; times are seconds of a monotonic clock.  docs/protocol.md section 2.
"""

from __future__ import annotations

from cexec.protocol.base.token_bucket import TokenBucket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cexec.net.destinations import Destination
    from cexec.net.groups import Sockaddr

MAXIMUM_HOSTS = 1024  # (ours) that are remembered; further ones are not believed
MAXIMUM_PORTS = 2  # (ours) of one host
AT_ONCE = 2  # datagrams (ours) to one host before the first pause
FIRST_PAUSE = 1.0  # seconds (ours), then twice as long each time
MOST_UNANSWERED = 6  # datagrams (ours) to one host that does not answer: they take 15 s
FORGOTTEN_FOR, FORGOTTEN_FOR_LONGEST = 300.0, 3600.0  # seconds (ours)
PATIENT_RATE = 1 / 30  # datagrams a second (ours) of a patient sender to a host that does not answer
TOTAL_RATE, TOTAL_BURST = 64.0, 256.0  # datagrams a second (ours) to all hosts that do not answer, and at once


class _Host:
    __slots__ = ("answered", "bucket", "next", "pause", "places", "sent", "silence")

    def __init__(self, now: float) -> None:
        self.places: dict[Sockaddr, Destination] = {}
        self.answered = False
        self.sent = 0  # since it was found, or remembered again
        self.next = now  # when the next datagram may go there
        self.pause = FIRST_PAUSE
        self.silence = FORGOTTEN_FOR  # how long it will be forgotten
        self.bucket: TokenBucket | None = None  # of a patient sender


class FoundHosts:
    """The hosts of one sender.  One that is gone is still known, so that coming back is no fresh start."""

    def __init__(self, *, patient: bool, now: float) -> None:
        self._patient = patient
        self._hosts: dict[str, _Host] = {}
        self._total = TokenBucket(TOTAL_RATE, TOTAL_BURST, now)
        self._count = 0

    def __len__(self) -> int:
        """The number of addresses that are found now."""
        return self._count

    def add(self, destination: Destination, now: float) -> None:
        host = self._hosts.get(destination.sockaddr[0])
        if host is None:
            if len(self._hosts) >= MAXIMUM_HOSTS and not self._forget_one():
                return
            host = self._hosts[destination.sockaddr[0]] = _Host(now)
        if destination.sockaddr not in host.places and len(host.places) < MAXIMUM_PORTS:
            host.places[destination.sockaddr] = destination
            self._count += 1

    def remove(self, sockaddr: Sockaddr) -> None:
        host = self._hosts.get(sockaddr[0])
        if host is not None and host.places.pop(sockaddr, None) is not None:
            self._count -= 1

    def answered(self, address: str) -> None:
        """Notes an answer that only a holder of a key can have made."""
        host = self._hosts.get(address.partition("%")[0])
        if host is not None:
            host.answered = True

    def due(self, now: float) -> list[Destination]:
        """Returns where a datagram goes now."""
        return self._choose(self._hosts.values(), now)

    def new(self, now: float) -> list[Destination]:
        """Returns those that have had no datagram yet."""
        return self._choose((host for host in self._hosts.values() if not host.sent), now)

    def parting(self, now: float) -> list[Destination]:
        """Returns those that have had datagrams lately: the last one takes them back."""
        known = [
            host for host in self._hosts.values() if host.answered or (host.sent and now >= host.next - host.pause)
        ]
        return [destination for host in known for destination in host.places.values()]

    def _choose(self, hosts: Iterable[_Host], now: float) -> list[Destination]:
        chosen: list[Destination] = []
        for host in hosts:
            for destination in host.places.values():
                if host.answered or self._may_send(host, now):
                    chosen.append(destination)
        return chosen

    def _may_send(self, host: _Host, now: float) -> bool:
        """Counts a datagram to a host that has not answered, if it may have one."""
        if not self._total.left(now):
            return False
        if self._patient:
            if host.bucket is None:
                host.bucket = TokenBucket(PATIENT_RATE, MOST_UNANSWERED, now)
            if not host.bucket.left(now):
                return False
            host.bucket.spend(1.0)
        elif not self._follow_schedule(host, now):
            return False
        host.sent += 1
        self._total.spend(1.0)
        return True

    def _follow_schedule(self, host: _Host, now: float) -> bool:
        if now < host.next:
            return False
        if host.sent >= MOST_UNANSWERED:  # it was forgotten, and is remembered again
            host.sent, host.pause = 0, FIRST_PAUSE
        if host.sent + 1 >= MOST_UNANSWERED:
            host.next = now + host.silence
            host.silence = min(2 * host.silence, FORGOTTEN_FOR_LONGEST)
        elif host.sent + 1 >= AT_ONCE:
            host.next = now + host.pause
            host.pause *= 2
        return True

    def _forget_one(self) -> bool:
        """Makes room by a host that is gone and has never answered."""
        for address, host in self._hosts.items():
            if not host.places and not host.answered:
                del self._hosts[address]
                return True
        return False
