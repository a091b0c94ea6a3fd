"""The worker: hears announcements, bids, connects back, and gives each job to a process of its own.

Contract: `Worker(...).run()` is one poll loop without threads; `step` is one turn of it.  It returns when it has been
told to stop (SIGTERM or Ctrl-C: no new work, running jobs finish; a second one ends them) and no job is left.  SIGHUP
stops it, too, if its terminal has gone, and else lets it read its lists again.  It raises `LocalError` when somebody
has killed the supervisor.  Either way nothing is left that a job has started.  The worker knows a job by its
announcement's mac1; a process gets the connection before CONFIRM, and the worker forgets it.
docs/protocol.md sections 2 and 3.
"""

from __future__ import annotations

import enum
import select
import signal
from dataclasses import dataclass, field
from functools import partial
from time import monotonic, time
from typing import TYPE_CHECKING

from cexec.errors import CertificateError, LocalError
from cexec.protocol.decisions.bid_events import Connect, Forget, Penalized, Prove, Queued, Recovered, Wanted, Withdraw
from cexec.system.io.wakeup import PollSet, Wakeup, wait_readable
from cexec.system.process.strays import Strays
from cexec.system.storage.eventlog import still_run
from cexec.worker.discovery.admission import Admission
from cexec.worker.discovery.alert_sender import AlertClock, AlertSender
from cexec.worker.discovery.answers import Answers, Profile
from cexec.worker.discovery.listener import Listener
from cexec.worker.discovery.offers import Offers
from cexec.worker.discovery.presence_sender import PresenceSender
from cexec.worker.discovery.served import Served, hear_loggers
from cexec.worker.jobs.jobs import Jobs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cexec.net.announcer import Announcer
    from cexec.net.group_sockets import GroupSockets
    from cexec.protocol.base.keys import WorkerKey
    from cexec.protocol.decisions.bid import Bidder
    from cexec.system.storage.eventlog import EventLog
    from cexec.system.storage.series import Series
    from cexec.worker.discovery.load_watch import LoadWatch
    from cexec.worker.discovery.offer import Offer
    from cexec.worker.jobs.supervisor_link import SupervisorLink

STRAYS_PATIENCE = 5.0  # seconds (ours) at the end for strays that cannot be killed at once
NEVER = float("inf")


@dataclass(slots=True)
class Role:
    """Says who a worker is in one application and whom it serves there; `series` numbers its alerts."""

    key: WorkerKey
    series: Series
    admission: Admission = field(default_factory=Admission)


@dataclass(slots=True)
class WorkerNetwork:
    """Says where a worker hears and where it speaks: `announcer` sends to the group that `groups` hear."""

    groups: GroupSockets
    announcer: Announcer


class Stage(enum.IntEnum):
    """One more for each time that the worker has been told to stop."""

    SERVING = 0
    STOPPING = 1  # no new work
    ENDING = 2  # the jobs that run are ended, too


class Worker:
    """One cservice."""

    def __init__(
        self,
        *,
        roles: Sequence[Role],
        profile: Profile,
        network: WorkerNetwork,
        supervisor: SupervisorLink,
        bidder: Bidder,
        log: EventLog,
        load: LoadWatch,
        strays: Strays,
        random: Callable[[], float],
        most_files: int = 0,
        terminal: bool = False,
    ) -> None:
        """`roles`: one for each application that is served.  `random` gives floats from 0 up to but not 1.

        `terminal`: there was a controlling terminal at the start, so SIGHUP says that it has gone.

        `most_files`: bytes of files that one client may have here, 0 for any number.
        """
        now = monotonic()
        self._network = network
        self._bidder = bidder
        self._log = log
        self._load = load
        self._supervisor = supervisor
        self._strays = strays
        self._served = [_serve(role, profile, network, bidder, load, random) for role in roles]
        alerts = [one.alerts for one in self._served]
        self._alert_clock = AlertClock(alerts, now)
        self._listener = Listener(served=self._served, groups=network.groups, bidder=bidder, log=log, now=now)
        self._heard = self._listener.heard
        self._offers = Offers(served=self._served, heard=self._heard, bidder=bidder, log=log)
        self._jobs = Jobs(
            supervisor=supervisor, bidder=bidder, heard=self._heard, alerts=alerts, log=log, most_files=most_files
        )
        self._jobs.tell_no_room = self._offers.tell_no_room
        for index, one in enumerate(self._served):
            one.answers.jobs = partial(self._jobs.of_application, index)
        self._stage = Stage.SERVING
        self._terminal = terminal
        self._poll = PollSet()
        self._wakeup = self._catch_signals()

    def say_hello(self) -> None:
        """Tells the group that this worker is there."""
        for one in self._served:
            one.presences.hello(monotonic())

    def run(self) -> None:
        """Serves until told to stop."""
        self._strays.look(monotonic())  # no signal tells of those that are there already
        self._jobs.prepare()
        while not self._supervisor.lost and (self._stage is Stage.SERVING or self._jobs):
            self.step()
        self.close()
        if self._supervisor.lost:
            raise LocalError("the process that starts the jobs was killed; start cservice again")

    def step(self, longest: float = NEVER) -> None:
        """Waits until there is something to do, but not longer than so many seconds, and does it.

        Slots come first: what frees one or takes one is done before log and loggers hear of it.
        """
        groups = self._network.groups.filenos() if self._stage is Stage.SERVING else []
        ready = self._wait(groups, self._due(monotonic() + longest))
        now = monotonic()
        self._log.flush()
        if self._wakeup.fileno() in ready:
            self._read_signals(now)
        self._strays.handle_timeout(now)
        with self._log.together():
            self._jobs.hear(ready, now)
            self._follow_bids(now)
            if self._jobs.tell(now):
                self._alert_clock.news(now)
        for offer in self._offers.advance(ready, now):
            self._give(offer, now)
        if self._stage is Stage.SERVING and not ready.isdisjoint(groups):
            self._listener.listen(now)
        if not ready.isdisjoint(self._network.announcer.filenos()):
            hear_loggers(self._network.announcer, self._served)
        load = self._load.look(now, ready)
        if load is not None:
            self._bidder.load_sampled(load, now)
        for index, one in enumerate(self._served):
            if one.admission.refresh(now):
                self._expel(index, now)
        self._offers.handle_timeout(now)
        self._bidder.handle_timeout(now)
        self._listener.handle_timeout(now)
        self._alert_clock.handle_timeout(now)
        self._follow_bids(now)
        self._jobs.arrange()

    def close(self) -> None:
        """Sends the last job's alert, and closes everything."""
        for one in self._served:
            one.alerts.expect(0)
            one.alerts.handle_timeout(monotonic())
        self._offers.close()
        self._network.announcer.close()
        self._network.groups.close()
        self._load.close()
        self._supervisor.close()
        self._end_strays()
        self._wakeup.close()

    def _end_strays(self) -> None:
        """Waits for the end of what job processes have left to us because the supervisor was killed."""
        deadline = monotonic() + STRAYS_PATIENCE
        self._strays.look(monotonic())
        while (due := self._strays.next_timeout()) is not None and due < deadline:
            wait_readable((), due - monotonic())
            self._strays.handle_timeout(monotonic())
        self._supervisor.remove_groups()

    # waiting

    def _due(self, latest: float) -> float:
        """Returns when the next timer is due, or `latest` if that comes first."""
        serving = self._stage is Stage.SERVING
        times = [
            latest,
            self._listener.next_timeout(),
            self._load.next_timeout(),
            self._offers.next_timeout(),
            self._alert_clock.next_timeout(),
        ]
        optional = (self._jobs.next_timeout(), self._bidder.next_timeout() if serving else None,
                    self._strays.next_timeout())  # fmt: skip
        times += [time for time in optional if time is not None]
        return min(times)

    def _wait(self, groups: Sequence[int], due: float) -> set[int]:
        """Waits until then, or until a descriptor is ready, one of `groups` or another; returns those that are.

        Datagrams that are ignored end no wait: a flood of them costs nothing but reading it.  If nothing else is
        ready, the group is heard here, and is not among those that are returned.  News of multicast DNS do end it.
        """
        fds = (
            self._wakeup.fileno(),
            *self._jobs.filenos(), *groups, *self._load.filenos(), *self._network.announcer.filenos(),
        )  # fmt: skip
        masks = {**dict.fromkeys(fds, select.POLLIN), **self._offers.masks(), **self._log.masks()}
        datagrams = self._network.groups.datagram_filenos() if groups else []
        while True:
            now = monotonic()
            ready = set(self._poll.wait(masks, max(0.0, due - now)))
            if not ready or now >= due or not ready.issubset(datagrams):
                return ready
            if self._listener.listen(monotonic()):
                return set()

    def _catch_signals(self) -> Wakeup:
        made = Wakeup()
        made.start((signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD))
        return made

    def _read_signals(self, now: float) -> None:
        for number in self._wakeup.take():
            if number == signal.SIGCHLD:
                self._strays.look(now)
            elif number == signal.SIGHUP:
                self._hang_up(now)
            else:
                self.stop()

    def _hang_up(self, now: float) -> None:
        """SIGHUP: the terminal has gone, if there was one; else somebody wants the lists to be read again.

        The kernel and the shell may both send it, so a second one ends no job.
        """
        if self._terminal and self._stage is Stage.SERVING:
            self.stop("SIGHUP: its terminal has gone")
        elif not self._terminal:
            self._log.event("reread", reason="SIGHUP: the lists of revoked certificates are read again")
            for index, one in enumerate(self._served):
                if one.admission.refresh(now, at_once=True):
                    self._expel(index, now)

    def stop(self, reason: str = "") -> None:
        """Takes no new work; when it is called again it ends the jobs that run."""
        event = "stopping" if self._stage is Stage.SERVING else "ending"
        self._log.event(event, jobs=self._jobs.running, reason=reason)
        if self._stage is Stage.SERVING:
            self._stage = Stage.STOPPING
            self._listener.leave()
            self._jobs.stop()
            self._offers.close()
            if self._jobs.running:
                self._log.event("waiting", reason=still_run(self._jobs.running))
        else:
            self._stage = Stage.ENDING
            self._jobs.terminate()

    # clients

    def _expel(self, application: int, now: float) -> None:
        """Follows a new list of revoked certificates, for clients that wait and for jobs that run."""
        admission = self._served[application].admission
        problem = admission.problem
        self._log.event("revocations", reason=problem or admission.warning or "a new list has come")
        if admission.revoked(self._served[application].key.identity.certificate):
            self._log.event("revocations", reason="this worker's own certificate is revoked: clients will not take it")
        carried = self._jobs.announced()
        self._heard.reconsider(application)
        for known in self._heard.waiting():
            if known.mac1 in carried or known.application != application:
                continue
            try:
                admission.check(known.opened.announcement.certificate, time())
            except CertificateError as error:
                self._heard.refuse(known, str(error))
                self._bidder.forget(known.mac1, now)
                self._log.event("refused", **known.fields(), reason=known.refusal)
        self._jobs.expel(application, admission.revoked)
        if problem:
            self._jobs.end_leases(application)

    # bids

    def _follow_bids(self, now: float) -> None:
        while (event := self._bidder.next_event()) is not None:
            if isinstance(event, Penalized):
                self._log.event("slowed", seconds=event.seconds, reason=event.reason)
            elif isinstance(event, Recovered):
                self._log.event("recovered")
            elif isinstance(event, Forget) and self._jobs.leased(event.identity):
                self._jobs.end_lease(event.identity)
            elif isinstance(event, Forget):
                self._heard.forget(event.identity, now, over=event.over)
                self._offers.forget(event.identity)
            elif self._stage is not Stage.SERVING:
                self._bidder.forget(event.identity, now)  # nothing happens to one that holds a slot
            elif isinstance(event, (Queued, Prove)):
                known = self._heard.get(event.identity)
                if known is not None:
                    self._served[known.application].answers.send_word(known, now, prove=isinstance(event, Prove))
            elif isinstance(event, Withdraw):
                self._jobs.withdraw(event.identity)
            elif isinstance(event, Wanted):
                self._jobs.tell_wanted(event.identity)
            elif isinstance(event, Connect) and self._jobs.leased(event.identity):
                self._jobs.offer(event.identity, now)
            elif isinstance(event, Connect):
                self._offers.connect(event.identity, now)

    def _give(self, offer: Offer, now: float) -> None:
        """Gives the connection of a client that has proved itself to a process, if a slot is left, and forgets it."""
        known = self._heard.get(offer.identity)
        if known is not None:
            known.connected(offer.client, now)
        if self._bidder.reserved(offer.identity, now, latency=offer.latency):
            assert known is not None  # a bid that holds a slot is never forgotten
            self._jobs.start(offer, known, now)
        else:
            self._bidder.withdrawn(offer.identity, now)
        self._offers.drop(offer)


def _serve(
    role: Role,
    profile: Profile,
    network: WorkerNetwork,
    bidder: Bidder,
    load: LoadWatch,
    random: Callable[[], float],
) -> Served:
    """Makes what belongs to one application."""
    key, announcer = role.key, network.announcer
    answers = Answers(key=key, profile=profile, groups=network.groups, bidder=bidder, load=load, random=random)
    presences = PresenceSender(key, answers.instance, profile.host, announcer, role.admission.revoked)
    alerts = AlertSender(
        key=key,
        instance=answers.instance,
        series=role.series,
        announcer=announcer,
        bidder=bidder,
        revoked=role.admission.revoked,
    )
    return Served(key, role.admission, answers, presences, alerts)
