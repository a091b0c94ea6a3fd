"""The client's side of a census, which asks which workers are there.

Contract: a pure machine.  `data_to_send` returns the datagrams that are due.  `receive` takes a datagram and returns
the `Answer` of a worker that was not heard before.  `finished` is True when no more answers are expected.  A census
asks in rounds.  Each round names the workers that are known, so that only lost answers are repeated.  It ends some time
after the last answer, not at a fixed time.  docs/protocol.md section 2.6.
"""

from __future__ import annotations

from cexec.errors import CertificateError, ProtocolError
from cexec.protocol.base import sodium
from cexec.protocol.base.limits import IDENTITY_SIZE, MAXIMUM_HOPS
from cexec.protocol.datagrams import datagram, hello
from cexec.protocol.datagrams.announcement import CENSUS, SealedAnnouncement
from cexec.protocol.datagrams.client_jobs import parse_jobs
from cexec.protocol.datagrams.requirements import (
    HOST,
    INSTANCE,
    JOBS,
    MACHINE,
    NAME,
    TERMINAL,
    instance_text,
    names_of,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, TypeAlias

    from cexec.protocol.base.keys import ClientKey
    from cexec.protocol.datagrams.client_jobs import ClientJob
    from cexec.protocol.datagrams.datagram import Datagram
    from cexec.protocol.datagrams.hello import Hello
    from cexec.protocol.datagrams.requirements import Requirements

    Sockaddr: TypeAlias = tuple[Any, ...]

LEAST_SPREAD = 0.02  # seconds (protocol) over which the answers to one round are spread at least
SPREAD = 0.0003  # seconds (protocol) of spread for each worker that is expected: what opening an answer costs
MOST_EXPECTED = 4096  # workers (protocol): a spread of 1.2 s

QUIET = 0.04  # seconds (ours) without an answer after which is asked for those that may have been lost
WINDOW = 0.06  # seconds (ours), and the spread, without an answer after the last round: then it is over
SLOWNESS = 2.0  # (ours) times the first answer's delay is QUIET, and WINDOW, where that is more: a slow network
PATIENCE = 1.0  # seconds (ours) until a census that nobody has answered is over
REPETITIONS = (0.1, 0.3, 0.6)  # seconds (ours) after the first round at which is asked again while nobody answers
LONGEST = 10.0  # seconds (ours)
MAXIMUM_ANSWERS = 10_000  # (ours)
MOST_REASONS, MOST_NAMES = 5, 4  # (ours) in one explanation, and of each reason


def spread(expected: int) -> float:
    """Seconds over which `expected` workers spread their answers."""
    return max(LEAST_SPREAD, SPREAD * min(expected, MOST_EXPECTED))


class Answer:
    """One worker.  `skew`: seconds that its clock is ahead of ours; `trouble`: why we could not use it, or nothing."""

    __slots__ = ("address", "hello", "skew", "trouble")

    def __init__(self, hello: Hello, address: str, skew: float, trouble: str) -> None:
        self.hello = hello
        self.address = address
        self.skew = skew
        self.trouble = trouble

    @property
    def attributes(self) -> dict[str, str]:
        """All attributes that --need can ask for."""
        named = {NAME: self.hello.name, HOST: self.hello.host, INSTANCE: instance_text(self.hello.instance)}
        return {**self.hello.attributes, **named}

    @property
    def labels(self) -> dict[str, str]:
        """The labels that `cservice --label` gave it."""
        return {name: value for name, value in self.hello.attributes.items() if name not in (*MACHINE, JOBS, TERMINAL)}

    @property
    def jobs(self) -> list[ClientJob]:
        """The jobs of this application that run there, as far as the answer had room for them."""
        return parse_jobs(self.hello.attributes.get(JOBS, ""))

    @property
    def names(self) -> set[str]:
        """All names by which --on and --not can call it."""
        return names_of(self.attributes, (self.address,))

    def lacking(self, requirements: Requirements) -> list[str]:
        """Returns what it lacks, in words; empty if it fits."""
        return requirements.lacking(self.attributes, (self.address,))


class Census:
    """One census of one application."""

    def __init__(
        self,
        key: ClientKey,
        now: float,
        *,
        requirements: Requirements | None = None,
        known: Iterable[bytes] = (),
        expected: int = 1,
        clocks: tuple[int, int] = (0, 0),
    ) -> None:
        """`known`: instances that need not answer; `expected`: about how many may, 1 when nothing is known.

        `clocks`: see `SealedAnnouncement`.
        """
        self.key = key
        self.answers: dict[bytes, Answer] = {}  # by instance, in the order of their coming
        self._requirements = requirements
        self._known = set(known)
        self._expected = expected
        self._clocks = clocks
        self._id = sodium.random_bytes(IDENTITY_SIZE)
        self._rounds: dict[bytes, tuple[SealedAnnouncement, float]] = {}  # by mac1, and when it was asked
        self._started = self._asked = self._last_answer = now
        self._spread = 0.0  # of the last round
        self._slowness = 0.0  # of the network: a multiple of the first answer's delay
        self._unanswered = 0  # rounds since the last answer
        self._repaired = False  # an answer has come to a later round: answers get lost here
        self._over = False

    @property
    def finished(self) -> bool:
        return self._over

    def next_timeout(self) -> float:
        """Returns when to call `data_to_send` again."""
        return min(self._next_step(), self._started + LONGEST)

    def data_to_send(self, now: float) -> list[bytes]:
        """Returns the datagrams that are due."""
        if self._over or now < self.next_timeout():
            return []
        if self._unanswered >= self._rounds_to_end() or now >= self._started + LONGEST:
            self._finish()
            return []
        self._asked = now
        self._unanswered += 1
        self._spread = spread(self._expected)
        sealed = SealedAnnouncement(
            self.key,
            job_id=self._id,
            attempt=len(self._rounds) + 1,
            kind=CENSUS,
            weight=max(1, min(self._expected, MOST_EXPECTED)),
            requirements=self._requirements,
            known=self._known,
            clocks=self._clocks,
        )
        self._rounds[sealed.mac1] = sealed, now
        return [sealed.datagram(len(self._rounds) - 1, 0, MAXIMUM_HOPS)]

    def receive(self, parsed: Datagram, source: Sockaddr, now: float, wall_now: float) -> Answer | None:
        """A datagram under our key; the answer in it, if it is one to us and of a worker that we did not know."""
        if parsed.kind != datagram.ANSWER or self._over:
            return None
        try:
            announced, message = hello.decode_answer(parsed.inner)
            if announced not in self._rounds:
                return None
            sealed, asked = self._rounds[announced]
            said = hello.open_hello(sealed.handshake(), message, self.key.authority_public)
        except ProtocolError:
            return None
        if said.purpose != hello.CENSUS or said.instance in self._known or len(self._known) >= MAXIMUM_ANSWERS:
            return None
        trouble = ""
        try:
            said.certificate.check_dates(wall_now)
        except CertificateError as error:
            trouble = str(error)
        answer = Answer(said, source[0].partition("%")[0], said.clock / 1000 - wall_now, trouble)
        if not self.answers:
            self._slowness = SLOWNESS * (now - asked)
        self._repaired |= bool(self.answers) and sealed.announcement.attempt > 1
        self.answers[said.instance] = answer
        self._known.add(said.instance)
        self._expected = max(self._expected, 2 * len(self.answers))
        self._last_answer = now
        self._unanswered = 0
        return answer

    def _rounds_to_end(self) -> int:
        """Counts the rounds that must bring no answer."""
        if not self.answers:
            return 1 + len(REPETITIONS)
        return 2 if self._repaired else 1

    def _next_step(self) -> float:
        """Returns when to ask again, or to end."""
        if not self._rounds:
            return self._started
        if not self.answers:
            return self._started + self._spread + (*REPETITIONS, PATIENCE)[self._unanswered - 1] - LEAST_SPREAD
        if not self._unanswered:
            return max(self._last_answer + max(QUIET, self._slowness), self._asked + self._spread)
        return self._asked + self._spread + max(WINDOW, self._slowness)

    def _finish(self) -> None:
        self._over = True
        for sealed, _ in self._rounds.values():
            sealed.erase()


def shown_names(answers: Iterable[Answer]) -> dict[bytes, str]:
    """Returns a name for each instance: its own, or name@address if several have the same."""
    together = list(answers)
    shared: dict[str, int] = {}
    for answer in together:
        shared[answer.hello.name] = shared.get(answer.hello.name, 0) + 1
    return {
        one.hello.instance: one.hello.name if shared[one.hello.name] == 1 else f"{one.hello.name}@{one.address}"
        for one in together
    }


def explain_lacking(answers: Iterable[Answer], requirements: Requirements) -> str:
    """Says how many workers exist and why they refuse: `2 workers exist; a: has no gpu; b: has mem=2G, not 4G`.

    Empty if there are no workers.
    """
    together = list(answers)
    names = shown_names(together)
    reasons: dict[str, list[str]] = {}
    for one in together:
        reason = one.trouble or ", ".join(one.lacking(requirements)) or "fits, but has not answered"
        reasons.setdefault(reason, []).append(names[one.hello.instance])
    if not reasons:
        return ""
    count = "1 worker exists" if len(together) == 1 else f"{len(together)} workers exist"
    said = sorted(reasons.items(), key=lambda item: -len(item[1]))
    told = [f"{_some(sorted(called))}: {reason}" for reason, called in said[:MOST_REASONS]]
    return "; ".join([count, *told, *(["and so on"] if len(said) > MOST_REASONS else [])])


def _some(names: list[str]) -> str:
    more = len(names) - MOST_NAMES
    return ", ".join(names) if more <= 1 else f"{', '.join(names[:MOST_NAMES])} and {more} more"
