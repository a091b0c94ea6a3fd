"""The search for one worker in an asyncio program.

Contract: `find_worker` announces until a worker has confirmed, gives it the job that `choose` then names, and returns
its `Lease`.  Searches and leases go on side by side.  The machine is that of `cexec`, `Search`; here it is driven by
asyncio's loop.  docs/protocol.md section 3.3.
"""

from __future__ import annotations

from time import monotonic

from cexec.client.aio.lease import Lease
from cexec.client.aio.readiness import readable
from cexec.client.search.choice import Choice, Notices
from cexec.client.search.search import Search
from cexec.net.announcer import Announcer, clocks
from cexec.net.sockets import open_listener
from cexec.protocol.base import sodium
from cexec.protocol.base.limits import IDENTITY_SIZE
from cexec.protocol.connection.frames import Go
from cexec.protocol.datagrams.announcement import SealedAnnouncement
from cexec.protocol.decisions.race import Race

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from cexec.client.request import NetworkSettings, Target, Times
    from cexec.client.search.reception import Winner
    from cexec.protocol.base.keys import ClientKey
    from cexec.protocol.datagrams.hello import Hello
    from cexec.protocol.datagrams.requirements import Requirements

    Choose: TypeAlias = Callable[[Hello, str], Go]  # the worker and its address to the job that it gets


class Terms:
    """The settings that all searches of a program share.  `tell` gets lines for the person who waits.

    `family`: FAMILY_SIZE bytes, the beginning of the job ids that are announced, or none.  A job that is told when its
    slot is wanted does not hear of searches of its own family.
    """

    __slots__ = ("family", "key", "network", "target", "tell", "times")

    def __init__(
        self,
        key: ClientKey,
        *,
        network: NetworkSettings,
        times: Times,
        target: Target,
        tell: Callable[[str], None] = lambda text: None,
        family: bytes = b"",
    ) -> None:
        self.key = key
        self.network = network
        self.times = times
        self.target = target
        self.tell = tell
        self.family = family


async def find_worker(terms: Terms, choose: Choose) -> Lease:
    """Returns the lease of a worker that has been given its first job; raises `NoWorkerError` after the accept timeout.

    If `choose` raises `CexecError`, the worker gets no job and the search goes on.  `choose` is called again, too, if
    the worker is lost at that moment.
    """
    announcer = Announcer(terms.network.groups, terms.network.udp_port)
    try:
        sealed = SealedAnnouncement(
            terms.key,
            job_id=terms.family + sodium.random_bytes(IDENTITY_SIZE - len(terms.family)),
            attempt=1,
            weight=terms.target.weight,
            requirements=terms.target.requirements,
            clocks=clocks(),
        )
        search = Search(
            terms.key,
            sealed,
            announcer,
            open_listener(terms.network.ports, loopback=announcer.loopback, ipv6=announcer.ipv6),
            AskedChoice(choose, terms.target.requirements),
            Race(accept_timeout=terms.times.accept, now=monotonic()),
            idle_timeout=terms.times.idle,
            notices=Notices(tell=terms.tell),
            open_trust=terms.target.open_trust,
        )
        return Lease(await _find(search), announcer, terms.times.progress)
    finally:
        announcer.close()


class AskedChoice(Choice):
    """Asks `choose` for the job once the worker is known."""

    def __init__(self, choose: Choose, requirements: Requirements | None) -> None:
        super().__init__(requirements)
        self._choose = choose

    def job_for(self, offer: Hello, address: str) -> Go:
        return self._choose(offer, address)


async def _find(search: Search) -> Winner:
    """Drives a search in asyncio's loop, until a worker has the job."""
    try:
        search.start(monotonic())
        while True:
            now = monotonic()
            ready = await readable(search.filenos(now), search.next_timeout(now))
            winner = search.step(ready, monotonic())
            if winner is not None:
                search.tell_others()
                return winner
    finally:
        search.close()
