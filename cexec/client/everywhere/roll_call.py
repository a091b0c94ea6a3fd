"""`cexec --all`: who is there, and the search until every one of them has the job.

Contract: `call_roll` asks by census and raises `NoWorkerError` that names who is absent; nothing has been started then.
A `Gathering` announces until each worker of the roll has got GO or is given up: `advance` returns the next one that has
it, `given_up` the others with reasons, `complete` when none is left.  Each instance gets the job once.
docs/protocol.md section 3.3.
"""

from __future__ import annotations

from time import monotonic

from cexec.client.search.inquiry import Inquiry
from cexec.client.search.search import Search
from cexec.errors import NoWorkerError
from cexec.protocol.base.limits import MAXIMUM_HOPS, QUEUED_LIFETIME
from cexec.protocol.datagrams import hello
from cexec.protocol.decisions.race import Race

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cexec.client.search.candidate import Winner
    from cexec.net.announcer import Announcer
    from cexec.protocol.base.keys import ClientKey
    from cexec.protocol.connection.frames import Go
    from cexec.protocol.datagrams.hello import Hello
    from cexec.protocol.datagrams.requirements import Requirements
    from cexec.protocol.decisions.census import Answer

ABSENCE_PATIENCE = 3.0  # seconds (ours) that workers who ought to be there have to answer the census
NEVER = float("inf")


def call_roll(
    key: ClientKey, announcer: Announcer, requirements: Requirements | None, expected: int
) -> dict[bytes, Answer]:
    """The workers that fit, by instance: at least `expected`, and all that are named (--on)."""
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
    asked = f"answered; asked {', '.join(inquiry.sent_to) or 'nobody'}{failures}"
    reason = f"fits: {lacking}" if lacking else asked
    raise NoWorkerError(f"no worker of {key.fingerprint} {reason}")


class RollRace(Race):
    """Announces for ever, and knows until when each worker is to be waited for."""

    def __init__(self, roll: dict[bytes, Answer], patience: float, now: float) -> None:
        super().__init__(accept_timeout=0.0, now=now)
        self._patience = patience or NEVER
        self.until = dict.fromkeys(roll, now + patience if patience else NEVER)

    def answered(self, answer: Hello, now: float) -> None:
        super().answered(answer, now)
        if answer.instance in self.until:
            if answer.purpose == hello.REFUSED:
                self.until[answer.instance] = now
            elif answer.instance in self._cannot:
                self.until[answer.instance] = min(self.until[answer.instance], now + self._patience)
            elif answer.purpose == hello.QUEUED:
                self.until[answer.instance] = max(self.until[answer.instance], now + QUEUED_LIFETIME)


class Gathering(Search):
    """The search of one `cexec --all`."""

    def __init__(self, roll: dict[bytes, Answer], *, patience: float, **options: Any) -> None:
        """`patience`: seconds without a word of a worker after which it is given up, 0: never; the rest: `Search`."""
        super().__init__(accept_timeout=0.0, **options)
        self._roll = roll
        self._started = monotonic()
        self._waited = RollRace(roll, patience, self._started)
        self._race = self._waited
        self._given: set[bytes] = set()

    @property
    def complete(self) -> bool:
        return not self._waited.until

    def filenos(self) -> list[int]:
        return self._filenos(monotonic())

    def next_timeout(self) -> float:
        return min([self._next_timeout(monotonic()), *self._waited.until.values()])

    def advance(self, ready: set[int], go: Go) -> Winner | None:
        """Goes on with all that is ready or due, up to the next worker that has got `go`."""
        self._follow_race(monotonic())
        winner = self._advance_all(ready, go)
        if winner is not None:
            self._given.add(winner.hello.instance)
            self._waited.until.pop(winner.hello.instance, None)
        return winner

    def given_up(self) -> dict[bytes, str]:
        """The workers that are waited for no longer, each told once, and why."""
        now = monotonic()
        found: dict[bytes, str] = {}
        for instance, until in list(self._waited.until.items()):
            if until <= now:
                del self._waited.until[instance]
                found[instance] = self._reason(instance)
        return found

    def finish(self) -> None:
        """The announcement is taken back."""
        self._announcer.send(self._sealed.claim(len(self._given), MAXIMUM_HOPS))
        self.close()

    @property
    def _picky(self) -> bool:
        return False  # whoever lacks something is not in the roll

    def status(self, now: float) -> str:
        names = sorted(self._roll[instance].hello.name for instance in self._waited.until)
        return f"waiting for {', '.join(names)}"

    def _wants(self, offer: Hello) -> bool:
        """Once each, and nobody who was not there when the census was taken."""
        if offer.instance in self._roll:
            return offer.instance in self._waited.until
        return offer.instance not in self._given and offer.uptime >= monotonic() - self._started

    def _reason(self, instance: bytes) -> str:
        answer = self._waited.answers.get(instance)
        if answer is None:
            return "did not connect"
        if answer.purpose == hello.UNREACHABLE:
            return f"heard, but cannot connect to {answer.detail}; does a firewall on this machine block it?"
        if answer.purpose == hello.REFUSED:
            return f"refuses the job: {answer.detail}"
        return "was busy, and is not heard any more"
