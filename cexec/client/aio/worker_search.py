"""The search for one of many workers in an asyncio program.

Contract: `find_worker` announces until a worker has confirmed, gives it what `choose` then says, and returns its
`Lease`.  Searches and leases go on side by side.  The machine is that of `cexec`, `Search`; here it only waits in
asyncio's loop.  docs/protocol.md section 3.3.
"""

from __future__ import annotations

import asyncio
from time import monotonic

from cexec.client.aio.lease import Lease
from cexec.client.search.search import Search
from cexec.net.announcer import Announcer
from cexec.net.sockets import open_listener
from cexec.protocol.base import sodium
from cexec.protocol.base.limits import IDENTITY_SIZE
from cexec.protocol.connection.frames import Go
from cexec.protocol.datagrams.announcement import SealedAnnouncement

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, TypeAlias

    from cexec.client.search.candidate import Winner
    from cexec.net.groups import GroupEntry
    from cexec.protocol.base.keys import ClientKey
    from cexec.protocol.datagrams.hello import Hello
    from cexec.protocol.datagrams.requirements import Requirements

    Choose: TypeAlias = Callable[[Hello, str], Go]  # the worker and its address to the job that it gets


class Terms:
    """What every search of a program has in common.  Times in seconds; `accept_timeout` 0 waits for ever."""

    def __init__(
        self,
        *,
        key: ClientKey,
        groups: list[GroupEntry] | None,
        udp_port: int,
        ports: list[int] | None,
        accept_timeout: float,
        idle_timeout: float,
        requirements: Requirements | None = None,
        weight: int = 1,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        """`tell` gets lines for the person who waits."""
        self.key = key
        self.groups = groups
        self.udp_port = udp_port
        self.ports = ports
        self.accept_timeout = accept_timeout
        self.idle_timeout = idle_timeout
        self.requirements = requirements
        self.weight = weight
        self.tell = tell


async def find_worker(terms: Terms, choose: Choose) -> Lease:
    """The lease of a worker that has been given its first job; `NoWorkerError` after the accept timeout.

    A `choose` that raises `CexecError` does not want this worker, and the search goes on; it is asked again, too, when
    the worker is lost at that moment.
    """
    announcer = Announcer(terms.groups, terms.udp_port)
    try:
        sealed = SealedAnnouncement(
            terms.key,
            job_id=sodium.random_bytes(IDENTITY_SIZE),
            attempt=1,
            weight=terms.weight,
            requirements=terms.requirements,
        )
        search = WorkerSearch(
            choose,
            key=terms.key,
            sealed=sealed,
            announcer=announcer,
            listener=open_listener(terms.ports, loopback=announcer.loopback, ipv6=announcer.ipv6),
            accept_timeout=terms.accept_timeout,
            idle_timeout=terms.idle_timeout,
            complain=lambda address, text: None,
            tell=terms.tell,
        )
        return Lease(await search.find(), announcer)
    finally:
        announcer.close()


class WorkerSearch(Search):
    """A `Search` that waits in asyncio's loop, and asks what the job is when it knows the worker."""

    def __init__(self, choose: Choose, **options: Any) -> None:
        super().__init__(**options)
        self._choose = choose

    async def find(self) -> Winner:
        nothing = Go(job_id=bytes(IDENTITY_SIZE), attempt=1, streams=[])
        try:
            while True:
                now = monotonic()
                self._follow_race(now)
                ready = await _readable(self._filenos(now), self._next_timeout(now))
                winner = self._advance_all(ready, nothing)
                if winner is not None:
                    self._tell_the_others()
                    return winner
        finally:
            self.close()

    def _job_for(self, offer: Hello, address: str, go: Go) -> Go:
        return self._choose(offer, address)


async def _readable(fds: Iterable[int], until: float) -> set[int]:
    """Those of the descriptors that are readable, as soon as one is, or none when the time has come."""
    loop = asyncio.get_running_loop()
    woken = asyncio.Event()
    ready: set[int] = set()

    def wake(fd: int) -> None:
        ready.add(fd)
        woken.set()

    waited = list(fds)
    for fd in waited:
        loop.add_reader(fd, wake, fd)
    timer = loop.call_later(max(0.0, until - monotonic()), woken.set)
    try:
        await woken.wait()
    finally:
        timer.cancel()
        for fd in waited:
            loop.remove_reader(fd)
    return ready
