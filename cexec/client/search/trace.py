"""`cexec --explain`: records the steps of one call of cexec, and tells them in words at the end.

Contract: the search, the client and the driver call one method of the `Trace` that they were given for each step
(`announced`, `connected`, ...); they have none without `--explain`.  `lines()` tells the steps in order, then how long
each part took, then the likely causes if no worker got the job.  No method sends or waits; `lines` reads the
interfaces and the packet filter, and raises nothing.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from cexec.client.search.steps import (
    Announced,
    Answered,
    AttemptBegun,
    Browsing,
    CensusTaken,
    Connected,
    Dropped,
    Exited,
    Failed,
    Offered,
    PassedOver,
    Started,
    Won,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from cexec.client.search.steps import Step
    from cexec.net.groups import GroupEntry
    from cexec.protocol.datagrams.hello import Hello

STAGES: tuple[tuple[type[Step], type[Step], str], ...] = (  # from, to: the name of the time between two steps
    (AttemptBegun, Announced, "announcing"),
    (Announced, Connected, "first connection"),
    (Connected, Won, "confirmation and GO"),
    (Won, Started, "start of the program"),
    (Started, Exited, "the program"),
)


class Trace:
    """The steps of one call of cexec."""

    def __init__(
        self,
        *,
        fingerprint: str,
        groups: Sequence[GroupEntry] | None,
        udp_port: int,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.steps: list[Step] = []
        self._fingerprint = fingerprint
        self._groups = groups
        self._udp_port = udp_port
        self._clock = clock
        self._began = clock()

    # the steps

    def attempt_begun(self, number: int, port: int) -> None:
        self.steps.append(AttemptBegun(self._clock(), number, port))

    def passed_over(self, texts: Sequence[str]) -> None:
        self.steps.append(PassedOver(self._clock(), list(texts)))

    def announced(self, number: int, to: Sequence[str], failures: Mapping[str, str]) -> None:
        self.steps.append(Announced(self._clock(), number, list(to), dict(failures)))

    def browsing(self) -> None:
        self.steps.append(Browsing(self._clock()))

    def connected(self, address: str) -> None:
        self.steps.append(Connected(self._clock(), address))

    def offered(self, hello: Hello, address: str) -> None:
        self.steps.append(Offered(self._clock(), hello, address))

    def dropped(self, address: str, reason: str, hello: Hello | None) -> None:
        self.steps.append(Dropped(self._clock(), address, reason, hello))

    def answered(self, hello: Hello, address: str) -> None:
        self.steps.append(Answered(self._clock(), hello, address))

    def census_taken(self, found: str) -> None:
        self.steps.append(CensusTaken(self._clock(), found))

    def won(self, hello: Hello, address: str, told: int) -> None:
        self.steps.append(Won(self._clock(), hello, address, told))

    def started(self) -> None:
        self.steps.append(Started(self._clock()))

    def exited(self, status: int, sent: int, received: int) -> None:
        self.steps.append(Exited(self._clock(), status, sent, received))

    def failed(self, reason: str) -> None:
        self.steps.append(Failed(self._clock(), reason))

    # the words

    def lines(self) -> list[str]:
        """Returns the whole explanation."""
        group = "the default group" if self._groups is None else ",".join(entry.text for entry in self._groups)
        lines = [
            f"explanation (milliseconds from the start): key {self._fingerprint}, {group}, UDP port {self._udp_port}"
        ]
        for number, step in enumerate(self.steps):
            for text in step.words(self.steps[:number]):
                lines.append(f"{(step.when - self._began) * 1000:9.1f}  {text}")
        lines += self._stages()
        if not any(isinstance(step, Won) for step in self.steps):
            lines += self._causes()
        return lines

    def _stages(self) -> Iterator[str]:
        """Tells how long each part of the last attempt took."""
        first: dict[type[Step], float] = {}
        for step in self.steps:
            if isinstance(step, AttemptBegun):
                first = {}
            first.setdefault(type(step), step.when)
        taken = [
            f"{name} {(first[end] - first[begin]) * 1000:.1f}"
            for begin, end, name in STAGES
            if begin in first and end in first
        ]
        if taken:
            yield f"each step took: {', '.join(taken)}"

    def _causes(self) -> list[str]:
        from cexec.client.search.causes import likely_causes

        begun = [step for step in self.steps if isinstance(step, AttemptBegun)]
        announced = [step for step in self.steps if isinstance(step, Announced)]
        causes = likely_causes(
            fingerprint=self._fingerprint,
            groups=self._groups,
            udp_port=self._udp_port,
            reply_port=begun[-1].port if begun else None,
            sent_to=announced[-1].to if announced else [],
            failures=announced[-1].failures if announced else {},
            heard=any(isinstance(step, Answered | Offered | CensusTaken) for step in self.steps),
        )
        head = ["likely causes on this machine, in the order to look at them:"] if causes else []
        return head + [f"  - {cause}" for cause in causes]
