"""`cexec --all`: a roll that is still called while the first jobs run.

Contract: an `OpenRoll` feeds a `Gathering` and a `RollReport` from a `RollCall` whose demands are met.  The search that
reads the sockets hands each answer to `hear`.  When all that had come by `now` was read, `advance(now)` is called, at
`next_timeout` or earlier: it goes on with the census, tells both when the roll is closed, and gives workers up.  A
worker that cannot be trusted is given up at once, and nobody waits for it.  docs/protocol.md section 2.2.
"""

from __future__ import annotations

from cexec.errors import CexecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cexec.client.everywhere.gathering import Gathering
    from cexec.client.everywhere.roll_call import RollCall
    from cexec.client.everywhere.roll_report import RollReport
    from cexec.client.search.trust import Trust
    from cexec.net.groups import Sockaddr
    from cexec.protocol.datagrams.datagram import Datagram
    from cexec.protocol.decisions.census import Answer


class OpenRoll:
    """The roll from the moment when the demands are met."""

    def __init__(
        self,
        call: RollCall,
        gathering: Gathering,
        report: RollReport,
        open_trust: Callable[[], Trust] | None,
        now: float,
    ) -> None:
        self._call = call
        self._gathering = gathering
        self._report = report
        self._open_trust = open_trust
        call.begin(now)
        for answer in call.answers.values():
            self._join(answer, now)

    def next_timeout(self) -> float:
        """Returns when to call `advance`."""
        return min(self._call.next_timeout(), self._gathering.next_timeout())

    def hear(self, parsed: Datagram, source: Sockaddr, now: float) -> None:
        """Takes an answer that has come by datagram, if it is one to the census."""
        answer = self._call.hear(parsed, source, now)
        if answer is not None:
            self._join(answer, now)

    def advance(self, now: float) -> None:
        """Does what is due."""
        if not self._call.closed:
            self._call.advance(now)
            if self._call.closed:
                self._gathering.close()
                self._report.roll_closed(self._call.answers.values())
        for instance, reason in self._gathering.given_up(now).items():
            self._report.gave_up(instance, self._call.answers[instance].address, reason)

    def _join(self, answer: Answer, now: float) -> None:
        """Waits for the worker, or names it if it cannot take part."""
        has_job = self._gathering.has_job(answer.hello.instance)  # then it was trusted when it connected
        trouble = "" if has_job else answer.trouble or self._distrust(answer)
        if trouble:
            self._report.gave_up(answer.hello.instance, answer.address, trouble)
        else:
            self._gathering.join(answer, now)

    def _distrust(self, answer: Answer) -> str:
        """Returns why the worker is not trusted, or ""."""
        if self._open_trust is None:
            return ""
        try:
            self._open_trust().check(answer.hello.certificate)
        except CexecError as error:
            return str(error)
        return ""
