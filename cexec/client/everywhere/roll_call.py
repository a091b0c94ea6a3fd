"""`cexec --all`: the roll of the workers that exist, which is called by censuses.

Contract: a `RollCall` asks when `advance` is called for the first time.  Its owner hands on what comes (`hear`), and
then calls `advance` again, at `next_timeout` or earlier.  `wait` does all of that until `demands_met`: nobody whom the
person has named is absent, and enough workers have answered.  Until then one census follows another; after
ABSENCE_PATIENCE `advance` raises `NoWorkerError`, with the names of absent workers, and nothing has been started.  From
then on jobs may run: the owner says when they begin (`begin`), and drives the census in its own loop until it is over
and the roll is `closed`.  Answers that come before that join the roll, unless the worker was started after `begin`.
The time is an argument, but for `wait`.  docs/protocol.md sections 2.2 and 2.6.
"""

from __future__ import annotations

from time import monotonic

from cexec.client.search.inquiry import Inquiry
from cexec.errors import NobodyAnsweredError, NoWorkerError
from cexec.system.io.wakeup import wait_readable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cexec.net.announcer import Announcer
    from cexec.net.groups import Sockaddr
    from cexec.protocol.base.keys import ClientKey
    from cexec.protocol.datagrams.datagram import Datagram
    from cexec.protocol.datagrams.hello import Hello
    from cexec.protocol.datagrams.requirements import Requirements
    from cexec.protocol.decisions.census import Answer

ABSENCE_PATIENCE = 3.0  # seconds (ours): a worker that was just started has this long to answer the census
NEVER = float("inf")


class RollCall:
    """Calls the roll of the workers that fit.  `answers` has it by instance, in the order of their coming."""

    def __init__(
        self, key: ClientKey, announcer: Announcer, requirements: Requirements | None, expected: int, now: float
    ) -> None:
        """`expected`: the least number of workers; those that `requirements` name must be there, too."""
        self.answers: dict[bytes, Answer] = {}
        self.closed = False
        self._key = key
        self._announcer = announcer
        self._requirements = requirements
        self._expected = expected
        self._absent = [] if requirements is None else list(requirements.wanted)
        self._usable: list[Answer] = []
        self._deadline = now + ABSENCE_PATIENCE
        self._begun = NEVER
        self._inquiry = self._ask(now)

    @property
    def demands_met(self) -> bool:
        """True if nobody is absent, and enough workers, but one at least, can be used."""
        return not self._absent and len(self._usable) >= max(1, self._expected)

    def wait(self) -> None:
        """Asks until the demands are met.  A signal has its usual effect meanwhile."""
        now = monotonic()
        while not self.demands_met:
            self.advance(now)  # by a time before the last answers were read: this process may have been stopped
            wait_readable(self._inquiry.filenos(), self.next_timeout() - monotonic())
            now = monotonic()
            self._inquiry.listen(now, lambda census, answer: self._note(answer))

    def begin(self, now: float) -> None:
        """Jobs begin: a worker that is started from now on takes no part, as it may be one that has had the job."""
        self._begun = now

    def next_timeout(self) -> float:
        """Returns when to call `advance`."""
        return NEVER if self.closed else self._inquiry.next_timeout()

    def hear(self, parsed: Datagram, source: Sockaddr, now: float) -> Answer | None:
        """Takes a datagram that the owner has parsed; returns the answer of a worker that joins the roll."""
        answer = self._inquiry.receive(parsed, source, now)
        if answer is None or not may_have_run(answer.hello, self._begun, now):
            return None
        self._note(answer)
        return answer

    def advance(self, now: float) -> None:
        """Asks what is due, closes the roll or gives up.  All that had come by `now` must have been heard."""
        if self.closed or not self._inquiry.advance(now):
            return
        if self.demands_met:
            self.closed = True
            return
        if now >= self._deadline:
            raise self._failure()
        if not self._announcer.loopback:
            self._announcer.browse()
        self._inquiry = self._ask(now)

    def _ask(self, now: float) -> Inquiry:
        """Begins a census of the workers that have not answered yet."""
        return Inquiry(
            [self._key],
            self._announcer,
            requirements=self._requirements,
            known=self.answers,
            expected=max(1, self._expected),
            now=now,
        )

    def _note(self, answer: Answer) -> None:
        self.answers[answer.hello.instance] = answer
        if not answer.trouble:
            self._usable.append(answer)
            if self._absent:
                names = answer.names
                self._absent = [name for name in self._absent if name not in names]

    def _failure(self) -> NoWorkerError:
        """Tells who is absent, or what those lack that are there; for that all workers are asked."""
        present = ", ".join(sorted(answer.hello.name for answer in self._usable)) or "none"
        if self._absent:
            return NoWorkerError(f"absent: {', '.join(self._absent)} (present: {present}); nothing has been started")
        if self._expected > 1 or self._usable:
            return NoWorkerError(
                f"expected {self._expected} workers, but {len(self._usable)} answered (present: {present}); "
                "nothing has been started"
            )
        everybody = Inquiry([self._key], self._announcer)
        everybody.run()
        lacking = everybody.explain(self._requirements) if self._requirements else ""
        failures = "".join(f"; {label}: {text}" for label, text in self._announcer.failures.items())
        if lacking:
            return NoWorkerError(f"no worker of {self._key.fingerprint} fits: {lacking}")
        asked = f"asked {', '.join(self._inquiry.sent_to) or 'nobody'}{failures}"
        return NobodyAnsweredError(f"no worker of {self._key.fingerprint} answered; {asked}")


def may_have_run(worker: Hello, since: float, now: float) -> bool:
    """Returns False if a worker was surely started later than that.  Its uptime is in whole seconds, rounded down."""
    return worker.uptime + 1 > now - since
