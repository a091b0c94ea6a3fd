"""A worker's `Jobs` with real `JobProcess` objects, whose processes are sockets that say what a test wants them to.

Contract: `Scene(slots)` has a real bidder and a real log; as a context manager it closes all sockets.  `connected`
gives a connection to a process, `running` lets it run a job, `say` sends reports and lets all that follows happen.  An
`Actor` is one process: `words` is what its worker has told it so far.
"""

from __future__ import annotations

import io
import json
import signal
import socket
from types import SimpleNamespace
from typing import Any, Self

from cexec.protocol.base.limits import MAXIMUM_HOPS
from cexec.protocol.decisions.bid import Bidder
from cexec.protocol.decisions.bid_events import Connect, Forget, Wanted
from cexec.protocol.decisions.remembered import Origin
from cexec.system.storage.eventlog import EventLog
from cexec.worker.discovery.alert_sender import AlertedJob, GivenJob
from cexec.worker.discovery.heard import Copy, HeardAnnouncements, Known
from cexec.worker.jobs.assignment import MAXIMUM_SIZE
from cexec.worker.jobs.job_process import JobProcess
from cexec.worker.jobs.jobs import Jobs
from cexec.worker.jobs.report_memory import Notes, ReportMemory
from cexec.worker.jobs.reports import WAKE, JobFinished, ProgramStarted, Report, Starting, Taken, Word, encode
from tests.protocol.wires import APPLICATION

NOW = 100.0
SOON = NOW + 0.05  # when something is heard from a process: no client has kept a slot for nothing
CLEAN_END = 0  # the wait status of a process that ended well
SUPERVISOR = 1 << 20  # stands for the supervisor's descriptor


def finished(*, idle: bool = False, ahead: bool = False, status: int = 0) -> JobFinished:
    """A job has ended."""
    return JobFinished(
        status=status, sent=0, received=0, cpu=0.1, reason="", duration=0.5, idle=idle or ahead, ahead=ahead
    )


def taken(number: int, *, hears: bool = False) -> Taken:
    """The client has given the job of this number."""
    return Taken(number.to_bytes(16, "big"), 1, hears)


class Actor:
    """The other end of a process's socket, and what its supervisor says of it."""

    def __init__(self) -> None:
        ours, self.channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, self.channel):
            end.setblocking(False)
        self.killed = False
        memory = ReportMemory.create()
        memory.close_fd()
        self.notes = Notes(memory)
        self.process = JobProcess(ours, memory, self._be_killed)
        self.told_to_end = False  # as of the last look at `words`
        self._words: list[Word] = []

    def hears_the_end(self) -> bool:
        """Returns True if it has been told to end with its job."""
        _ = self.words
        return self.told_to_end

    @property
    def words(self) -> list[Word]:
        """All that it has been told, without the connections."""
        while True:
            try:
                data = self.channel.recv(MAXIMUM_SIZE)
            except BlockingIOError:
                return self._words
            if not data:
                self.told_to_end = True
                return self._words
            if not data.startswith(b"["):
                self._words.append(Word(data))

    def _be_killed(self) -> None:
        self.killed = True


class FakeSupervisor:
    """Starts actors, and says of them what a test wants."""

    def __init__(self) -> None:
        self.lost = False
        self.actors: list[Actor] = []
        self.dead: list[JobProcess] = []
        self.full = ""  # why it has no room for a process, if it has none

    def fileno(self) -> int:
        return SUPERVISOR

    def start(self) -> JobProcess:
        actor = Actor()
        self.actors.append(actor)
        if self.full:
            self.dead.append(actor.process)
            actor.channel.close()
        return actor.process

    def end(self) -> None:
        pass

    def hear(self) -> list[JobProcess]:
        dead, self.dead = self.dead, []
        for process in dead if self.full else ():
            process.not_started(self.full)
        return dead


class FakeAlerts:
    """Remembers what the loggers would be told."""

    def __init__(self) -> None:
        self.expected = 0  # jobs that may start
        self.ended_jobs: list[tuple[str, int | None]] = []
        self.given_jobs: list[tuple[bytes, int]] = []
        self.acknowledged_jobs: list[tuple[bytes, int]] = []

    def expect(self, count: int) -> None:
        self.expected = count

    def given(self, told: AlertedJob, job: GivenJob) -> None:
        self.given_jobs.append((told.job_id, told.attempt))

    def acknowledged(self, told: AlertedJob) -> None:
        self.acknowledged_jobs.append((told.job_id, told.attempt))

    def started(self, told: AlertedJob) -> str:
        return f"alert of {told.client_address}"

    def ended(self, alert: str, now: float, *, status: int | None, duration: float, **counts: int) -> bytes:
        assert duration >= 0.0
        self.ended_jobs.append((alert, status))
        return bytes(16)


class Scene:
    """A worker with so many slots."""

    def __init__(self, slots: int) -> None:
        self.log = io.StringIO()
        self.alerts, self.other_alerts = FakeAlerts(), FakeAlerts()
        self.application = 0  # whose clients connect; 1 has `other_alerts`
        self.bidder = Bidder(slots=slots, random=lambda: 0.0)
        self.supervisor = FakeSupervisor()
        self.jobs = self.make_jobs()

    def make_jobs(self, most_files: int = 0) -> Jobs:
        return Jobs(
            supervisor=self.supervisor,  # type: ignore[arg-type]
            bidder=self.bidder,
            heard=HeardAnnouncements(),
            alerts=[self.alerts, self.other_alerts],  # type: ignore[list-item]
            log=EventLog(self.log, as_json=True),
            most_files=most_files,
        )

    @property
    def actors(self) -> list[Actor]:
        return self.supervisor.actors

    def reserve(self, identity: bytes, origin: Origin, now: float = NOW) -> None:
        """An announcement is heard, and gets a slot."""
        self.bidder.consider(identity, 1, 60.0, now, targeted=True, origin=origin)
        self.bidder.handle_timeout(now)
        assert isinstance(self.bidder.next_event(), Connect)
        assert self.bidder.reserved(identity, now)

    def connected(self, number: int, now: float = NOW, *, host: int | None = None) -> Actor:
        """A process of its own gets the connection of the client 127.0.0.HOST, whose announcement has this number.

        HOST is the number by default.
        """
        identity, client = number.to_bytes(16, "big"), (f"127.0.0.{host or number}", 4000)
        known = Known(identity, APPLICATION.hear(APPLICATION.announce(job_id=identity)), now, self.application)
        way: Any = None  # the socket that heard it
        known.ways.hear(client, MAXIMUM_HOPS, Copy(client, way), now)
        self.reserve(identity, known.origin, now)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
            records = SimpleNamespace(keys=("", False, b"", b""))
            offer: Any = SimpleNamespace(
                identity=identity, client=client, connection=connection, records=records, latency=0.0
            )
            self.jobs.start(offer, known, now)
        return self.actors[-1]

    def running(self, number: int, *, hears: bool = False) -> Actor:
        """A process that runs its first job in a slot.  `hears`: the job has asked to be told that this is wanted."""
        actor = self.connected(number)
        self.say(actor, taken(number, hears=hears), Starting(), ProgramStarted(1))
        return actor

    def say(self, actor: Actor, *reports: Report) -> None:
        """Sends reports of a process, and lets all that follows happen."""
        self.say_bytes(actor, *map(encode, reports))

    def say_bytes(self, actor: Actor, *messages: bytes) -> None:
        for message in messages:
            actor.notes.write(message)
        actor.channel.send(WAKE)
        self.hear(actor)

    def hear(self, actor: Actor) -> None:
        """Lets all happen that follows from what a process has sent, or from its end."""
        self._hear(actor.process.fileno())

    def die(self, actor: Actor, status: int | None = signal.SIGKILL) -> None:
        """Lets all happen that follows from the end of a process: its socket tells it before the supervisor does."""
        actor.channel.close()
        self._hear(actor.process.fileno())
        actor.process.ended(status)
        self.supervisor.dead.append(actor.process)
        self._hear(SUPERVISOR)

    def _hear(self, descriptor: int) -> None:
        self.jobs.hear({descriptor}, SOON)
        self.follow_bids()
        self.jobs.tell(SOON)

    def follow_bids(self) -> None:
        """Does what the bidder says."""
        while (event := self.bidder.next_event()) is not None:
            if isinstance(event, Connect) and self.jobs.leased(event.identity):
                self.jobs.offer(event.identity, SOON)
            elif isinstance(event, Forget) and self.jobs.leased(event.identity):
                self.jobs.end_lease(event.identity)
            elif isinstance(event, Wanted):
                self.jobs.tell_wanted(event.identity)

    def lines(self) -> list[dict[str, Any]]:
        """The log."""
        return [json.loads(line) for line in self.log.getvalue().splitlines()]

    def events(self) -> list[str]:
        """The names of the log's events."""
        return [line["event"] for line in self.lines()]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for actor in self.actors:
            actor.channel.close()
