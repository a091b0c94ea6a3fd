"""Who is in the cluster: the workers that answer now, and who comes, goes, or is complained about.

Contract: `take_census` asks once, which takes about a second, and returns a `ClusterWorker` for each that has answered.
`follow` yields a `ClusterChange` for everything that happens, for ever; it begins with the workers that are there.
Both read the list of revoked certificates as `cps` does.  A complaint is what another client of the application says of
a worker.  docs/protocol.md sections 2.6, 5.1 and 5.2.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

from cexec.client.aio.readiness import readable
from cexec.client.search.inquiry import Inquiry
from cexec.client.search.roster import Roster
from cexec.errors import CertificateError, ProtocolError
from cexec.net.announcer import Announcer
from cexec.protocol.base.token_bucket import TokenBucket
from cexec.protocol.datagrams import alert
from cexec.protocol.datagrams.requirements import JOBS
from cexec.protocol.decisions.census import shown_names
from cexec.system.call_threads import in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from cexec.client.search.roster import WorkerRow
    from cexec.protocol.datagrams.datagram import Datagram
    from cexec.protocol.datagrams.requirements import Requirements
    from cexec.protocol.decisions.census import Answer
    from cexec.python.settings import Settings

JOINED, LEFT, COMPLAINT = "joined", "left", "complaint"
INTERVAL = 5.0  # seconds (ours) between two censuses of `follow`: a worker that was killed says nothing
MOST_ALERTS = 100.0  # complaints (ours) a second that are opened, since each costs a signature
REMEMBERED = 1000  # alerts (ours) whose copies, which come over other networks, are known


@dataclass(frozen=True, slots=True)
class ClusterWorker:
    """One running cservice, by its answer to a census.

    `instance`: 16 bytes that no other has; `load`: 0 idle to 1 full; `uptime`: in seconds; `skew`: seconds that its
    clock is ahead of ours; `health`: "ok", or what is wrong with it.  `attributes`: what `need` can ask for.
    """

    name: str
    instance: bytes
    address: str
    host: str
    slots: int
    running: int
    waiting: int
    load: float
    speed: float
    labels: dict[str, str]
    attributes: dict[str, str]
    version: str
    uptime: int
    skew: float
    health: str


@dataclass(frozen=True, slots=True)
class ClusterChange:
    """`kind`: "joined", "left" or "complaint".  `worker`: its name; `address`: where it is.

    `info` has its figures, unless it is only known by a complaint.  `text`: what a complaint says.
    """

    kind: str
    worker: str
    address: str
    info: ClusterWorker | None
    text: str = ""


async def take_census(settings: Settings, requirements: Requirements | None = None) -> list[ClusterWorker]:
    """Returns the workers that answer now, by name; with `requirements` those that fit."""
    announcer = Announcer(settings.network.groups, settings.network.udp_port)
    try:
        await in_thread(announcer.settle)
        inquiry = Inquiry([settings.key], announcer, requirements=requirements)
        now = monotonic()
        while not inquiry.advance(now):  # by a time before the last answers were read
            await readable(inquiry.filenos(), inquiry.next_timeout())
            now = monotonic()
            inquiry.listen(now)
    finally:
        announcer.close()
    answers = list(inquiry.censuses[0].answers.values())
    names = shown_names(answers)
    found = [describe(answer, names[answer.hello.instance], settings) for answer in answers]
    return sorted(found, key=lambda one: (one.name, one.instance))


async def follow(settings: Settings) -> AsyncIterator[ClusterChange]:
    """Yields what happens."""
    roster = Roster([settings.key], settings.network.groups, settings.network.udp_port)
    watch = _Watch(settings)
    try:
        await in_thread(roster.settle)
        roster.open(watch.changed, INTERVAL, watch.heard)
        while True:
            roster.step(monotonic())
            while watch.changes:
                yield watch.changes.popleft()
            await readable(roster.filenos(), roster.next_timeout())
    finally:
        roster.close()


class LiveWorkers:
    """The workers that are there, kept up to date by `run`: `workers` has them by instance.

    `settled` is set when a census has found some, or the second one has not; `changed` is called after each change of a
    worker.
    """

    def __init__(self, settings: Settings, changed: Callable[[], None] = lambda: None) -> None:
        self.workers: dict[bytes, ClusterWorker] = {}
        self.settled = asyncio.Event()
        self._settings = settings
        self._rows: dict[bytes, Answer] = {}
        self._tell = changed

    def names(self) -> dict[bytes, str]:
        """Returns a name for each instance that no other has: its own, or name@address."""
        return shown_names(self._rows.values())

    async def run(self) -> None:
        """Asks at once and then every few seconds, and hears who comes and goes meanwhile, for ever."""
        roster = Roster([self._settings.key], self._settings.network.groups, self._settings.network.udp_port)
        try:
            await in_thread(roster.settle)
            roster.open(self._changed, INTERVAL)
            while True:
                roster.step(monotonic())
                if roster.censuses >= 2 or (roster.censuses and self.workers):  # a busy worker may answer the second
                    self.settled.set()
                await readable(roster.filenos(), roster.next_timeout())
        finally:
            roster.close()

    def _changed(self, row: WorkerRow | None, gone: bool) -> None:
        if row is None:
            return
        instance = row.answer.hello.instance
        if gone:
            self._rows.pop(instance, None)
            self.workers.pop(instance, None)
        else:
            self._rows[instance] = row.answer
            self.workers[instance] = describe(row.answer, row.answer.hello.name, self._settings)
        self._tell()


def describe(answer: Answer, name: str, settings: Settings) -> ClusterWorker:
    """Returns the figures of an answer; the worker is shown by this name."""
    hello = answer.hello
    return ClusterWorker(
        name=name,
        instance=hello.instance,
        address=answer.address,
        host=hello.host,
        slots=hello.slots,
        running=hello.running,
        waiting=hello.waiting,
        load=hello.load,
        speed=hello.speed,
        labels=answer.labels,
        attributes={key: value for key, value in answer.attributes.items() if key != JOBS},
        version=hello.version,
        uptime=hello.uptime,
        skew=round(answer.skew, 3),
        health=_health(answer, settings),
    )


def _health(answer: Answer, settings: Settings) -> str:
    try:
        settings.open_trust().check(answer.hello.certificate)
    except CertificateError as error:
        return str(error)
    return answer.trouble or answer.hello.detail


class _Watch:
    """Makes `changes` of what the roster reports."""

    def __init__(self, settings: Settings) -> None:
        self.changes: deque[ClusterChange] = deque()
        self._settings = settings
        self._there: dict[bytes, ClusterWorker] = {}
        self._allowance = TokenBucket(MOST_ALERTS, MOST_ALERTS, monotonic())
        self._heard: dict[bytes, None] = {}  # mac1 of alerts

    def changed(self, row: WorkerRow | None, gone: bool) -> None:
        if row is None:
            return
        instance = row.answer.hello.instance
        info = describe(row.answer, row.answer.hello.name, self._settings)
        known = self._there.pop(instance, None)
        if gone:
            self.changes.append(ClusterChange(LEFT, info.name, info.address, info))
            return
        self._there[instance] = info
        if known is None:
            self.changes.append(ClusterChange(JOINED, info.name, info.address, info))

    def heard(self, parsed: Datagram) -> None:
        """Takes an alert; it counts if it is a client's complaint, and its author may make one."""
        now = monotonic()
        if parsed.mac1 in self._heard or not self._allowance.left(now):
            return
        self._allowance.spend(1.0)
        if len(self._heard) >= REMEMBERED:
            del self._heard[next(iter(self._heard))]
        self._heard[parsed.mac1] = None
        try:
            told = alert.open_alert(self._settings.key, parsed.inner)
            self._settings.open_trust().check(told.certificate)
        except ProtocolError:
            return
        if told.outcome == alert.COMPLAINT:
            info = self._there.get(told.instance)
            name, address = (told.worker_name, told.worker_address) if info is None else (info.name, info.address)
            text = f"{alert.COMPLAINTS[told.complaint]}, says {told.client_name} at {told.client_address}"
            self.changes.append(ClusterChange(COMPLAINT, name, address, info, text))
