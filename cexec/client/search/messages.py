"""The messages of a search: for the person who waits, and in the ancestor's words for programs.

Contract: functions that return texts; no input and no output.  A search that finds a worker at once needs none.
"""

from __future__ import annotations

from cexec.common_errors import (
    CexecError,
    DisconnectedError,
    NoWorkerError,
    ProtocolError,
    VerifyError,
)
from cexec.protocol.datagrams.hello import UNREACHABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cexec.protocol.datagrams.hello import Hello
    from cexec.protocol.decisions.race import Race


def ancestors_words(error: CexecError) -> str:
    """Returns the ancestor's words for an error of a peer; CEXEC_FD_FOR_ERRORS gets them."""
    if isinstance(error, VerifyError):
        return "signature didn't verify"
    if isinstance(error, ProtocolError):
        return "violated protocol"
    if isinstance(error, DisconnectedError):
        return "disconnected unexpectedly"
    return str(error)


def complaint(answer: Hello) -> str:
    """Says why a worker that has answered does not take the job."""
    if answer.purpose == UNREACHABLE:
        what = f"heard you, but cannot connect to {answer.detail}; does a firewall on this machine block it?"
    else:
        what = f"refuses: {answer.detail}"
    return f"worker {answer.name} {what}"


def count(number: int, noun: str) -> str:
    """Returns number and noun, as in `1 worker` or `2 workers`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


class Facts:
    """The state of a search, as far as its messages need it.

    `sent_to`: labels of the destinations that got the last announcement; `failures`: a reason for each of the others.
    `lacking`: the workers that a census has found, and what each of them lacks; empty before a census.  `crowd`: who
    has filled the client's listener, or empty.
    """

    __slots__ = ("crowd", "failures", "fingerprint", "lacking", "race", "sent_to")

    def __init__(
        self,
        fingerprint: str,
        race: Race,
        sent_to: Sequence[str],
        failures: Mapping[str, str],
        lacking: str,
        crowd: str = "",
    ) -> None:
        self.crowd = crowd
        self.fingerprint = fingerprint
        self.race = race
        self.sent_to = sent_to
        self.failures = failures
        self.lacking = lacking

    def sent(self) -> str:
        """Says how often we announced, to whom, and where that failed."""
        failures = "".join(f"; {label}: {text}" for label, text in self.failures.items())
        announcements = count(self.race.transmissions, "announcement")
        return f"sent {announcements} to {', '.join(self.sent_to) or 'nobody'}{failures}"


def status(facts: Facts, now: float) -> str:
    """Tells the person at the terminal why the job has not begun."""
    return _status(facts, now) + (f"; {facts.crowd}" if facts.crowd else "")


def _status(facts: Facts, now: float) -> str:
    queued = facts.race.queued()
    if queued:
        slots = sum(answer.slots for answer in queued)
        busy = sum(min(answer.running, answer.slots) for answer in queued)
        if busy < slots:
            # A worker holds free slots back while it offers them to others, and for a while after failures.
            free = f"{busy} of {count(slots, 'slot')} busy, none free for this job yet (cps tells how healthy they are)"
            return f"{count(len(queued), 'worker')}, {free}; waiting{_limits_met(queued)}"
        full = f"{count(len(queued), 'worker')}, {'all ' if slots > 1 else ''}{count(slots, 'slot')} busy; waiting"
        return full + _limits_met(queued)
    left = facts.race.seconds_left(now)
    rest = "; waiting" if left is None else f"; {left:.0f} s left"
    if facts.lacking:
        return f"no worker of {facts.fingerprint} fits: {facts.lacking}{rest}"
    return f"no worker of {facts.fingerprint} has answered; {facts.sent()}{rest}"


def _limits_met(queued: Sequence[Hello]) -> str:
    """Says what the first worker that has told it says about limits of this client."""
    return next((f"; worker {answer.name} says: {answer.detail}" for answer in queued if answer.detail), "")


def failure(facts: Facts, invalid: Mapping[str, str]) -> NoWorkerError:
    """Tells why the search gives up.  `invalid`: for each worker whose certificate is not valid now, the reason."""
    complaints = "".join(f"; {complaint(answer)}" for answer in facts.race.complaints())
    complaints += "".join(f"; worker {name} was not taken: {text}" for name, text in invalid.items())
    crowd = f"; {facts.crowd}" if facts.crowd else ""
    seconds = f"{facts.race.accept_timeout:g} s"
    if complaints:
        return NoWorkerError(f"no worker of {facts.fingerprint} could take the job in {seconds}{complaints}{crowd}")
    if facts.lacking:
        return NoWorkerError(f"no worker of {facts.fingerprint} fits: {facts.lacking}")
    from cexec.errors import NobodyAnsweredError  # most searches find a worker

    return NobodyAnsweredError(
        f"no worker of {facts.fingerprint} answered in {seconds}; {facts.sent()}{crowd}; "
        "is cservice running with this key, in the same group (CEXEC_GROUP)?"
    )


def advised(error: CexecError, words: Sequence[str]) -> str:
    """Returns the text of an error, with the command that tells why if nobody has said anything.

    The first of `words` is what the user calls the client key; an error that comes before that is known has none.
    """
    from cexec.errors import NobodyAnsweredError

    text = str(error)
    if not isinstance(error, NobodyAnsweredError):
        return text
    from cexec.system.storage.user_files import quoted

    return f"{text}{'' if text.endswith('?') else ';'} cexec --explain {quoted(words[0])} tells why"
