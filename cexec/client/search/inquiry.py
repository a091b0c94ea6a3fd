"""The client's side of a census, with sockets: it asks which workers exist, for one or several applications at once.

Contract: an `Inquiry` is driven by its owner's loop (`advance`, `listen` or `receive`, `next_timeout`) or by its own
`run()`, and has the answers in `censuses`, one for each key.  No fault of the network raises an error here.
docs/protocol.md section 2.6.
"""

from __future__ import annotations

from time import monotonic, time

from cexec.net.announcer import clocks
from cexec.protocol.datagrams import datagram
from cexec.protocol.decisions.census import Census, explain_lacking
from cexec.system.io.wakeup import wait_readable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cexec.net.announcer import Announcer
    from cexec.net.groups import Sockaddr
    from cexec.protocol.base.keys import ClientKey
    from cexec.protocol.datagrams.datagram import Datagram
    from cexec.protocol.datagrams.requirements import Requirements
    from cexec.protocol.decisions.census import Answer


class Inquiry:
    """Censuses of some applications, taken in the group of one announcer."""

    def __init__(
        self,
        keys: Sequence[ClientKey],
        announcer: Announcer,
        *,
        requirements: Requirements | None = None,
        known: Iterable[bytes] = (),
        expected: int = 1,
        now: float | None = None,
    ) -> None:
        """`known` and `expected`: see `Census`; `requirements`: only workers that fit are asked; `now`: the time."""
        now = monotonic() if now is None else now
        known = list(known)
        self.partial = bool(known)  # True if some workers were not asked
        self.sent_to: list[str] = []  # labels of the destinations that got the last round
        self.censuses = [
            Census(key, now, requirements=requirements, known=known, expected=expected, clocks=clocks()) for key in keys
        ]
        self._announcer = announcer
        self._mac1_keys = [key.mac1_key for key in keys]

    @property
    def finished(self) -> bool:
        return all(census.finished for census in self.censuses)

    def next_timeout(self) -> float:
        """Returns when to call `advance` again.  Not to be called once the inquiry is finished."""
        return min(census.next_timeout() for census in self.censuses if not census.finished)

    def advance(self, now: float) -> bool:
        """Sends the questions that are due; returns True if the inquiry is finished."""
        for census in self.censuses:
            for data in census.data_to_send(now):
                self.sent_to = self._announcer.send(data) or self.sent_to
        return self.finished

    def receive(self, parsed: Datagram, source: Sockaddr, now: float) -> Answer | None:
        """Takes a datagram that the owner has parsed; returns the answer if it is new."""
        answer = self.censuses[parsed.key].receive(parsed, source, now, time())
        if answer is not None:
            self._announcer.answered(source[0])
        return answer

    def run(self, heard: Callable[[Census, Answer], None] | None = None) -> None:
        """Asks until the end, and calls `heard` with each answer as it comes."""
        now = monotonic()
        while not self.advance(now):  # by a time before the last answers were read: this process may have been stopped
            wait_readable(self._announcer.filenos(), self.next_timeout() - monotonic())
            now = monotonic()
            self.listen(now, heard)

    def filenos(self) -> list[int]:
        """Returns the descriptors at which answers come."""
        return self._announcer.filenos()

    def listen(self, now: float, heard: Callable[[Census, Answer], None] | None = None) -> None:
        """Takes what has come, and calls `heard` with each answer."""
        for data, source in self._announcer.receive():
            parsed = datagram.parse(data, self._mac1_keys)
            answer = None if parsed is None else self.receive(parsed, source, now)
            if heard is not None and parsed is not None and answer is not None:
                heard(self.censuses[parsed.key], answer)

    def explain(self, requirements: Requirements) -> str:
        """Returns in words what the workers of the first key lack; empty if there are no workers."""
        return explain_lacking(self.censuses[0].answers.values(), requirements)

    def finds(self, requirements: Requirements) -> bool:
        """Returns True if a worker of the first key fits."""
        answers = self.censuses[0].answers.values()
        return any(not one.trouble and not one.lacking(requirements) for one in answers)
