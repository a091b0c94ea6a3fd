"""A worker's `Jobs` with real `JobProcess` objects, whose processes do nothing and say what a test wants them to.

Contract: `Scene(slots)` has a real bidder and a real log; as a context manager it ends all processes.  `connected`
gives a connection to a process, `running` lets it run a job, `say` sends reports and lets all that follows happen.  An
`Actor` is one process: `words` is what its worker has told it so far.
"""

from __future__ import annotations

import io
import json
import os
import select
import signal
import socket
from types import SimpleNamespace
from typing import Any, Self

from cexec.protocol.decisions.bid import Bidder
from cexec.protocol.decisions.bid_events import Connect, Forget
from cexec.system.storage.eventlog import EventLog
from cexec.worker.discovery.alert_sender import AlertedJob, GivenJob
from cexec.worker.discovery.heard import HeardAnnouncements, Known
from cexec.worker.jobs.job_process import JobProcess
from cexec.worker.jobs.jobs import Jobs
from cexec.worker.jobs.reports import MAXIMUM_REPORT, JobFinished, ProgramStarted, Report, Taken, Word, encode
from tests.protocol.wires import APPLICATION

NOW = 100.0
DEADLINE = 20.0  # seconds
CLEAN_END = signal.SIGUSR1  # a process that gets it exits with status 0


def finished(*, idle: bool = False, ahead: bool = False, status: int = 0) -> JobFinished:
    """A job has ended."""
    return JobFinished(
        status=status, sent=0, received=0, cpu=0.1, reason="", duration=0.5, idle=idle or ahead, ahead=ahead
    )


def taken(number: int) -> Taken:
    """The client has given the job of this number."""
    return Taken(number.to_bytes(16, "big"), 1)


class Actor:
    """One process and the other end of its socket."""

    def __init__(self) -> None:
        ours, self.channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, self.channel):
            end.setblocking(False)
        signal.pthread_sigmask(signal.SIG_BLOCK, {CLEAN_END})
        self.pid = os.fork()
        if self.pid == 0:
            os.closerange(3, 1 << 16)
            signal.sigwait({CLEAN_END})
            os._exit(0)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {CLEAN_END})
        self.process = JobProcess(self.pid, ours, None)
        self.told_to_end = False  # as of the last look at `words`
        self._words: list[Word] = []

    @property
    def words(self) -> list[Word]:
        """All that it has been told, without the connections."""
        while True:
            try:
                data = self.channel.recv(MAXIMUM_REPORT)
            except BlockingIOError:
                return self._words
            if not data:
                self.told_to_end = True
                return self._words
            if not data.startswith(b"["):
                self._words.append(Word(data))

    def die(self, number: int = signal.SIGKILL) -> None:
        """Ends the process, and waits until its worker can see that."""
        os.kill(self.pid, number)
        self.channel.close()
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)  # not reaped: that is for its JobProcess to do
        assert select.select([self.process], [], [], DEADLINE)[0]

    def close(self) -> None:
        self.channel.close()
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass  # its JobProcess has reaped it


class FakeAlerts:
    """Remembers what the loggers would be told."""

    def __init__(self) -> None:
        self.ended_jobs: list[tuple[str, int | None]] = []
        self.given_jobs: list[tuple[bytes, int]] = []
        self.acknowledged_jobs: list[tuple[bytes, int]] = []

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
        self.alerts = FakeAlerts()
        self.bidder = Bidder(slots=slots, random=lambda: 0.0)
        self.actors: list[Actor] = []
        self.jobs = Jobs(
            program=None,  # type: ignore[arg-type]
            bidder=self.bidder,
            heard=HeardAnnouncements(),
            alerts=self.alerts,  # type: ignore[arg-type]
            log=EventLog(self.log, as_json=True),
            fork=lambda program: self._fork(),
        )

    def _fork(self) -> JobProcess:
        self.actors.append(Actor())
        return self.actors[-1].process

    def reserve(self, identity: bytes, now: float = NOW, weight: int = 1) -> None:
        """An announcement is heard, and gets a slot."""
        self.bidder.consider(identity, weight, 60.0, now, targeted=True)
        self.bidder.handle_timeout(now)
        assert isinstance(self.bidder.next_event(), Connect)
        assert self.bidder.reserved(identity, now)

    def connected(self, number: int, now: float = NOW) -> Actor:
        """A process of its own gets the connection of the client 127.0.0.NUMBER, whose announcement has this number."""
        identity, client = number.to_bytes(16, "big"), (f"127.0.0.{number}", 4000)
        self.reserve(identity, now)
        known = Known(identity, APPLICATION.hear(APPLICATION.announce(job_id=identity)), now)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
            records = SimpleNamespace(keys=("", False, b"", b""))
            offer: Any = SimpleNamespace(identity=identity, client=client, connection=connection, records=records)
            self.jobs.start(offer, known, now)
        return self.actors[-1]

    def running(self, number: int) -> Actor:
        """A process that runs its first job in a slot."""
        actor = self.connected(number)
        self.say(actor, taken(number), ProgramStarted(1))
        return actor

    def say(self, actor: Actor, *reports: Report) -> None:
        """Sends reports of a process, and lets all that follows happen."""
        self.say_bytes(actor, *map(encode, reports))

    def say_bytes(self, actor: Actor, *messages: bytes) -> None:
        for message in messages:
            actor.channel.send(message)
        self.hear(actor)

    def hear(self, actor: Actor) -> None:
        """Lets all happen that follows from what a process has sent, or from its end."""
        self.jobs.hear({actor.process.fileno()}, NOW + 1.0)
        while (event := self.bidder.next_event()) is not None:
            if isinstance(event, Connect) and self.jobs.leased(event.identity):
                self.jobs.offer(event.identity, NOW + 1.0)
            elif isinstance(event, Forget) and self.jobs.leased(event.identity):
                self.jobs.end_lease(event.identity)
        self.jobs.tell(NOW + 1.0)

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
            actor.close()
