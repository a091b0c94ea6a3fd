"""`cexec --all`: the search until each worker of the roll has the job.

Contract: a `Gathering` is the `Choice` of the search.  Workers `join` it while the roll is open, until `close`; each of
them gets the job once.  `took` notes that a worker has the job, `took_back` that it has withdrawn its offer, `given_up`
returns the workers that it no longer waits for, and `complete` is true when the roll is closed and it waits for none.
The time is an argument.  docs/protocol.md sections 2.2 and 3.3.
"""

from __future__ import annotations

from cexec.client.everywhere.roll_call import may_have_run
from cexec.client.search.choice import OneJob
from cexec.protocol.base.limits import QUEUED_LIFETIME
from cexec.protocol.datagrams import hello
from cexec.protocol.decisions.race import Race

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cexec.client.search.reception import Winner
    from cexec.protocol.connection.frames import Go
    from cexec.protocol.datagrams.hello import Hello
    from cexec.protocol.decisions.census import Answer

NEVER = float("inf")


class RollRace(Race):
    """Announces for ever.  `until` tells how long the client waits for each worker that has not got the job."""

    def __init__(self, patience: float, now: float) -> None:
        super().__init__(accept_timeout=0.0, now=now, renews=False)
        self._patience = patience or NEVER
        self.until: dict[bytes, float] = {}

    def wait_for(self, instance: bytes, now: float) -> None:
        """Waits for this worker, from now on."""
        self.until[instance] = now + self._patience

    def join(self, instance: bytes, now: float) -> None:
        """Waits for one more worker, and heeds what it may have said before its answer to the census came."""
        self.wait_for(instance, now)
        if instance in self.answers:
            self._heed(self.answers[instance], now)

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
            self._heed(answer, now)

    def _heed(self, word: Hello, now: float) -> None:
        if word.purpose == hello.REFUSED:
            self.until[word.instance] = now
        elif word.instance in self._cannot:
            self.until[word.instance] = min(self.until[word.instance], now + self._patience)
        elif word.purpose == hello.QUEUED:
            self.until[word.instance] = max(self.until[word.instance], now + QUEUED_LIFETIME)


class Gathering(OneJob):
    """The search of one `cexec --all`: gives the job to each worker of the roll once."""

    def __init__(self, go: Go, patience: float, now: float) -> None:
        """`patience`: a worker is given up after so many seconds of silence; 0 waits for ever."""
        super().__init__(lambda offer: go)  # without requirements: a worker that lacks something is not in the roll
        self._roll: dict[bytes, str] = {}  # the workers' names by instance
        self._open = True
        self._started = now
        self.race = RollRace(patience, now)
        self._given: set[bytes] = set()

    def join(self, answer: Answer, now: float) -> None:
        """Takes one more worker into the roll.  It may have the job already: then it connected before it answered."""
        instance = answer.hello.instance
        self._roll[instance] = answer.hello.name
        if instance not in self._given:
            self.race.join(instance, now)

    def close(self) -> None:
        """No worker joins any more."""
        self._open = False

    @property
    def complete(self) -> bool:
        """True if the roll is closed, and every worker has the job or is given up."""
        return not self._open and not self.race.until

    def next_timeout(self) -> float:
        """Returns when the next worker is given up."""
        return min(self.race.until.values(), default=NEVER)

    def took(self, winner: Winner) -> None:
        """Notes that this worker has the job."""
        self._given.add(winner.hello.instance)
        self.race.until.pop(winner.hello.instance, None)

    def has_job(self, instance: bytes) -> bool:
        """Returns True if this worker has been given the job."""
        return instance in self._given

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
        names = sorted(self._roll[instance] for instance in self.race.until)
        return f"waiting for {', '.join(names) or 'answers of further workers'}"

    def wants(self, offer: Hello, now: float) -> bool:
        """Returns True for a worker that ran when the search began and has not got the job.

        A worker that missed the census is wanted, too.  One that was given up, or came later, is not.  While the roll
        is open, a worker whose answer is still on its way is not to be sent away only because its uptime is rounded.
        """
        if offer.instance in self._given:
            return False
        if offer.instance in self._roll:
            return offer.instance in self.race.until
        if self._open:
            return may_have_run(offer, self._started, now)
        return offer.uptime >= now - self._started

    def _reason(self, instance: bytes) -> str:
        answer = self.race.answers.get(instance)
        if answer is None:
            return "did not connect"
        if answer.purpose == hello.UNREACHABLE:
            return f"heard, but cannot connect to {answer.detail}; does a firewall on this machine block it?"
        if answer.purpose == hello.REFUSED:
            return f"refuses the job: {answer.detail}"
        return "was busy, and is not heard any more"
