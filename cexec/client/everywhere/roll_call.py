"""`cexec --all`: the roll of the workers that exist, and the search until each of them has the job.

Contract: `call_roll` takes a census.  It raises `NoWorkerError` with the names of absent workers; nothing has been
started then.  A `Gathering` is the `Choice` of the search that follows: each worker of the roll gets the job once.
`took` notes that a worker has the job, `took_back` that it has withdrawn its offer, `given_up` returns the workers that
it no longer waits for, and `complete` is true when it waits for none.  The time is an argument.
docs/protocol.md sections 2.2 and 3.3.
"""

from __future__ import annotations

from time import monotonic

from cexec.client.search.choice import OneJob
from cexec.client.search.inquiry import Inquiry
from cexec.errors import NobodyAnsweredError, NoWorkerError
from cexec.protocol.base.limits import QUEUED_LIFETIME
from cexec.protocol.datagrams import hello
from cexec.protocol.decisions.race import Race

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cexec.client.search.reception import Winner
    from cexec.net.announcer import Announcer
    from cexec.protocol.base.keys import ClientKey
    from cexec.protocol.connection.frames import Go
    from cexec.protocol.datagrams.hello import Hello
    from cexec.protocol.datagrams.requirements import Requirements
    from cexec.protocol.decisions.census import Answer

ABSENCE_PATIENCE = 3.0  # seconds (ours): a worker that was just started has this long to answer the census
NEVER = float("inf")


def call_roll(
    key: ClientKey, announcer: Announcer, requirements: Requirements | None, expected: int
) -> dict[bytes, Answer]:
    """Returns the workers that fit, by instance: at least `expected`, and all that are named (--on)."""
    announcer.settle()
    found: dict[bytes, Answer] = {}
    deadline = monotonic() + ABSENCE_PATIENCE
    while True:
        inquiry = Inquiry([key], announcer, requirements=requirements, known=found, expected=max(1, expected))
        inquiry.run()
        found.update(inquiry.censuses[0].answers)
        usable = [answer for answer in found.values() if not answer.trouble]
        names = {name for answer in usable for name in answer.names}
        absent = [name for name in (requirements.wanted if requirements is not None else []) if name not in names]
        if usable and not absent and len(usable) >= expected:
            return found
        if monotonic() >= deadline:
            break
        if not announcer.loopback:
            announcer.browse()
    present = ", ".join(sorted(answer.hello.name for answer in usable)) or "none"
    if absent:
        raise NoWorkerError(f"absent: {', '.join(absent)} (present: {present}); nothing has been started")
    if expected > 1 or usable:
        raise NoWorkerError(
            f"expected {expected} workers, but {len(usable)} answered (present: {present}); nothing has been started"
        )
    everybody = Inquiry([key], announcer)
    everybody.run()
    lacking = everybody.explain(requirements) if requirements else ""
    failures = "".join(f"; {label}: {text}" for label, text in announcer.failures.items())
    if lacking:
        raise NoWorkerError(f"no worker of {key.fingerprint} fits: {lacking}")
    asked = f"asked {', '.join(inquiry.sent_to) or 'nobody'}{failures}"
    raise NobodyAnsweredError(f"no worker of {key.fingerprint} answered; {asked}")


class RollRace(Race):
    """Announces for ever.  `until` tells how long the client waits for each worker that has not got the job."""

    def __init__(self, roll: dict[bytes, Answer], patience: float, now: float) -> None:
        super().__init__(accept_timeout=0.0, now=now, renews=False)
        self._patience = patience or NEVER
        self.until: dict[bytes, float] = {}
        for instance in roll:
            self.wait_for(instance, now)

    def wait_for(self, instance: bytes, now: float) -> None:
        """Waits for one more worker, as long as for the others at the beginning."""
        self.until[instance] = now + self._patience

    def listens(self, now: float) -> bool:
        """Hears every worker, because it waits for each of them."""
        return True

    def was_stopped(self, seconds: float) -> None:
        super().was_stopped(seconds)
        for instance in self.until:
            self.until[instance] += seconds

    def answered(self, answer: Hello, now: float) -> None:
        super().answered(answer, now)
        if answer.instance in self.until:
            if answer.purpose == hello.REFUSED:
                self.until[answer.instance] = now
            elif answer.instance in self._cannot:
                self.until[answer.instance] = min(self.until[answer.instance], now + self._patience)
            elif answer.purpose == hello.QUEUED:
                self.until[answer.instance] = max(self.until[answer.instance], now + QUEUED_LIFETIME)


class Gathering(OneJob):
    """The search of one `cexec --all`: gives the job to each worker of the roll once."""

    def __init__(self, roll: dict[bytes, Answer], go: Go, patience: float, now: float) -> None:
        """`patience`: a worker is given up after so many seconds of silence; 0 waits for ever."""
        super().__init__(lambda offer: go)  # without requirements: a worker that lacks something is not in the roll
        self._roll = roll
        self._started = now
        self.race = RollRace(roll, patience, self._started)
        self._given: set[bytes] = set()

    @property
    def complete(self) -> bool:
        """True if every worker has the job or is given up."""
        return not self.race.until

    def next_timeout(self) -> float:
        """Returns when the next worker is given up."""
        return min(self.race.until.values(), default=NEVER)

    def took(self, winner: Winner) -> None:
        """Notes that this worker has the job."""
        self._given.add(winner.hello.instance)
        self.race.until.pop(winner.hello.instance, None)

    def took_back(self, winner: Winner, now: float) -> None:
        """Waits for this worker again: it took its offer back before it got the job."""
        self._given.discard(winner.hello.instance)
        if winner.hello.instance in self._roll:
            self.race.wait_for(winner.hello.instance, now)

    def given_up(self, now: float) -> dict[bytes, str]:
        """Gives up the workers whose time is over; returns them with the reasons, each worker once."""
        found: dict[bytes, str] = {}
        for instance, until in list(self.race.until.items()):
            if until <= now:
                del self.race.until[instance]
                found[instance] = self._reason(instance)
        return found

    def status(self) -> str:
        names = sorted(self._roll[instance].hello.name for instance in self.race.until)
        return f"waiting for {', '.join(names)}"

    def wants(self, offer: Hello, now: float) -> bool:
        """Returns True for a worker that ran when the search began and has not got the job.

        A worker that missed the census is wanted, too.  One that was given up, or came later, is not.
        """
        if offer.instance in self._roll:
            return offer.instance in self.race.until
        return offer.instance not in self._given and offer.uptime >= now - self._started

    def _reason(self, instance: bytes) -> str:
        answer = self.race.answers.get(instance)
        if answer is None:
            return "did not connect"
        if answer.purpose == hello.UNREACHABLE:
            return f"heard, but cannot connect to {answer.detail}; does a firewall on this machine block it?"
        if answer.purpose == hello.REFUSED:
            return f"refuses the job: {answer.detail}"
        return "was busy, and is not heard any more"
