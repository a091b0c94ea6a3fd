"""All connections of a worker that are on their way to clients.

Contract: `connect` begins one; `advance(ready, now)` follows those whose descriptors are ready and returns the offers
whose client has proved itself.  The caller takes the connection of each, and drops it.  A failure is told to the
bidder, to the log, and to the client if it may be a firewall's doing, which is seen only from here.
docs/protocol.md section 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cexec.errors import CexecError, DisconnectedError
from cexec.net.connecting import OwnLimitError
from cexec.net.destinations import address_label
from cexec.protocol.datagrams import hello
from cexec.protocol.decisions.standing import Standing
from cexec.worker.discovery.offer import PROVED, Offer, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cexec.net.groups import Sockaddr
    from cexec.protocol.decisions.bid import Bidder
    from cexec.protocol.decisions.ways import Way
    from cexec.system.storage.eventlog import EventLog
    from cexec.worker.discovery.heard import Copy, HeardAnnouncements, Known
    from cexec.worker.discovery.served import Served

MAXIMUM_OFFERS = 256  # (ours) to all clients together: each has a descriptor and a handshake's state
RACE_LASTS = 1.0  # seconds (ours) after an announcement in which a failure may mean that its client has just chosen
NEVER = float("inf")


class Offers:
    """The connections, by descriptor."""

    def __init__(self, *, served: Sequence[Served], heard: HeardAnnouncements, bidder: Bidder, log: EventLog) -> None:
        self._served = served
        self._heard = heard
        self._bidder = bidder
        self._log = log
        self._offers: dict[int, Offer] = {}

    def __len__(self) -> int:
        return len(self._offers)

    def masks(self) -> dict[int, int]:
        """The descriptors, and what to wait for at each."""
        return {fd: offer.mask for fd, offer in self._offers.items()}

    def next_timeout(self) -> float:
        return min((offer.next_timeout() for offer in self._offers.values()), default=NEVER)

    def handle_timeout(self, now: float) -> None:
        for offer in list(self._offers.values()):
            try:
                offer.handle_timeout(now)
            except CexecError as error:
                self._failed(offer, error, now)

    def connect(self, identity: bytes, now: float) -> None:
        """Begins a connection to the client of an announcement."""
        known = self._heard.get(identity)
        way = None if known is None or len(self._offers) >= MAXIMUM_OFFERS else known.ways.next_way(now)
        if known is None or way is None:
            self._bidder.failed(identity, now)
        else:
            self._connect(known, way, now)

    def advance(self, ready: set[int], now: float) -> list[Offer]:
        """Follows what is ready."""
        proved = []
        for offer in [self._offers[fd] for fd in ready.intersection(self._offers)]:
            try:
                offer.advance(now)
            except CexecError as error:
                self._failed(offer, error, now)
            else:
                if offer.state == PROVED:
                    proved.append(offer)
        return proved

    def drop(self, offer: Offer) -> None:
        """Closes our descriptor of a connection; another process may have it, too."""
        self._offers.pop(offer.connection.fileno(), None)
        offer.close()

    def forget(self, identity: bytes) -> None:
        """Drops the connections of one announcement."""
        for offer in [offer for offer in self._offers.values() if offer.identity == identity]:
            self.drop(offer)

    def tell_no_room(self, known: Known, what: str, now: float) -> None:
        """Tells a client that this worker has no room for something at the moment; it tries again later."""
        if self._bidder.may_answer(known.mac1, now):
            detail = f"it has no room for {what}"
            self._served[known.application].answers.send(known, hello.REFUSED, detail, now=now)

    def close(self) -> None:
        """Drops all."""
        for offer in list(self._offers.values()):
            self.drop(offer)

    def _connect(self, known: Known, way: Way[Copy], now: float) -> None:
        served = self._served[known.application]
        description = served.answers.hello(hello.CONNECT)
        try:
            offer = Offer(known.mac1, way.address, known.opened, served.key.identity, description, now)
        except OwnLimitError as error:
            self._log.event("failed", **known.fields(), reason=f"no connection to its client: {error}")
            self.tell_no_room(known, f"another connection: {error}", now)
            self._bidder.failed(known.mac1, now)
        except CexecError as error:
            self._unreachable(known.mac1, way.address, error, now)
        else:
            self._offers[offer.connection.fileno()] = offer

    def _failed(self, offer: Offer, error: CexecError, now: float) -> None:
        self.drop(offer)
        if not isinstance(error, (DisconnectedError, UnreachableError)):  # a client that closes has chosen another
            self._log.event("lost", client=offer.client[0], reason=str(error))
        self._unreachable(offer.identity, offer.client, error, now)

    def _unreachable(self, identity: bytes, address: Sockaddr, error: CexecError, now: float) -> None:
        """Tells the client, and tries another way.

        A refusal is told only when no way is left for the second time, and just after the announcement other ways are
        not tried: the client may have chosen, and its claim is late.
        """
        known = self._heard.get(identity)
        if known is None:
            self._bidder.failed(identity, now)
            return
        known.ways.failed(address)
        another = known.ways.next_way(now) if now - known.began >= RACE_LASTS else None
        if another is not None and (not another.living(now) or another.standing != Standing.PROVED):
            another = None
        known.failures += another is None
        blocked = isinstance(error, UnreachableError) and "refused" not in str(error)
        if blocked or (another is None and known.failures > 1):
            where = address_label(address[0], "", address[1], 0)
            self._log.event("unreachable", **known.fields(), client=where, reason=str(error))
            if self._bidder.may_answer(identity, now):
                detail = f"{where}: {error}"
                self._served[known.application].answers.send(known, hello.UNREACHABLE, detail, now=now)
        if another is None:
            self._bidder.failed(identity, now)
        else:
            self._connect(known, another, now)
