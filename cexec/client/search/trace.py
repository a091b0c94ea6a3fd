"""`cexec --explain`: what happened when, and why, in words.

Contract: those who do the work call `note(step, **facts)` on the `Trace` that they were given, if any; `lines()`
tells the story at the end, with the likely causes when nobody took the job.  The steps, and their facts:

    attempt   number, port (of our listener)                    started   -
    announced number, to, failures (label -> reason)            exit      status, sent, received (bytes)
    browsing  -                                                 failed    reason (of the attempt)
    connected address                                           dropped   address, reason, hello (or None)
    offered   hello, address                                    answered  hello, address
    won       hello, address, told (how many others were cancelled)
    census    found (who is there, and what they lack)
"""

from __future__ import annotations

from time import monotonic

from cexec.protocol.datagrams.hello import QUEUED, REFUSED, UNREACHABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any, TypeAlias

    from cexec.net.groups import GroupEntry
    from cexec.protocol.datagrams.hello import Hello

    Note: TypeAlias = tuple[float, str, dict[str, Any]]

STAGES = (  # from, to: what the time between two steps was spent on
    ("attempt", "announced", "announcing"),
    ("announced", "connected", "first connection"),
    ("connected", "won", "confirmation and GO"),
    ("won", "started", "start of the program"),
    ("started", "exit", "the program"),
)


class Trace:
    """The notes of one call of cexec."""

    def __init__(
        self,
        *,
        fingerprint: str,
        groups: Sequence[GroupEntry] | None,
        udp_port: int,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._fingerprint = fingerprint
        self._groups = groups
        self._udp_port = udp_port
        self._clock = clock
        self._started = clock()
        self._notes: list[Note] = []

    def note(self, step: str, **facts: Any) -> None:
        self._notes.append((self._clock(), step, facts))

    def lines(self) -> list[str]:
        """The story."""
        group = "the default group" if self._groups is None else ",".join(entry.text for entry in self._groups)
        lines = [
            f"explanation (milliseconds from the start): key {self._fingerprint}, {group}, UDP port {self._udp_port}"
        ]
        for number, (when, step, facts) in enumerate(self._notes):
            for text in _WORDS[step](facts, self._notes[:number]):
                lines.append(f"{(when - self._started) * 1000:9.1f}  {text}")
        lines += self._stages()
        if not any(step == "won" for _, step, _ in self._notes):
            lines += self._causes()
        return lines

    def _stages(self) -> Iterator[str]:
        """How long each step of the last attempt took."""
        first: dict[str, float] = {}
        for when, step, _ in self._notes:
            if step == "attempt":
                first = {}
            first.setdefault(step, when)
        taken = [
            f"{words} {(first[end] - first[begin]) * 1000:.1f}"
            for begin, end, words in STAGES
            if begin in first and end in first
        ]
        if taken:
            yield f"each step took: {', '.join(taken)}"

    def _causes(self) -> list[str]:
        from cexec.client.search.causes import likely_causes

        last: dict[str, dict[str, Any]] = {step: facts for _, step, facts in self._notes}
        announced = last.get("announced", {})
        causes = likely_causes(
            fingerprint=self._fingerprint,
            groups=self._groups,
            udp_port=self._udp_port,
            reply_port=last.get("attempt", {}).get("port"),
            sent_to=announced.get("to", []),
            failures=announced.get("failures", {}),
            heard=not last.keys().isdisjoint(("answered", "offered", "census")),
        )
        head = ["likely causes on this machine, in the order to look at them:"] if causes else []
        return head + [f"  - {cause}" for cause in causes]


# words for each step: from its facts, and the notes before it

Facts: TypeAlias = "Mapping[str, Any]"


def _attempt(facts: Facts, before: list[Note]) -> Iterator[str]:
    yield f"attempt {facts['number']}, listening on TCP port {facts['port']}"


def _announced(facts: Facts, before: list[Note]) -> Iterator[str]:
    yield f"announcement {facts['number']} sent to {', '.join(facts['to']) or 'nobody'}"
    for label, reason in facts["failures"].items():
        yield f"announcement {facts['number']} could not be sent to {label}: {reason}"


def _browsing(facts: Facts, before: list[Note]) -> Iterator[str]:
    yield "nobody has answered yet: looking for workers by multicast DNS"


def _connected(facts: Facts, before: list[Note]) -> Iterator[str]:
    yield f"connection from {facts['address']}"


def _offered(facts: Facts, before: list[Note]) -> Iterator[str]:
    yield f"{_worker(facts)} offers itself: {_state(facts['hello'])}"


def _dropped(facts: Facts, before: list[Note]) -> Iterator[str]:
    who = f"{_worker(facts)}: " if facts["hello"] is not None else f"connection from {facts['address']}: "
    yield f"{who}{facts['reason'] or 'dropped'}"


def _answered(facts: Facts, before: list[Note]) -> Iterator[str]:
    answer: Hello = facts["hello"]
    if answer.purpose == QUEUED:
        yield f"{_worker(facts)} is busy and will offer itself later: {_state(answer)}"
    elif answer.purpose == UNREACHABLE:
        yield f"{_worker(facts)} has heard, but cannot connect to {answer.detail}"
    elif answer.purpose == REFUSED:
        yield f"{_worker(facts)} refuses: {answer.detail}"


def _census(facts: Facts, before: list[Note]) -> Iterator[str]:
    yield f"who is there: {facts['found']}"


def _won(facts: Facts, before: list[Note]) -> Iterator[str]:
    winner: Hello = facts["hello"]
    offered = [(when, note) for when, step, note in before if step == "offered"]
    others = [note["hello"] for _, note in offered if note["hello"].instance != winner.instance]
    if others:
        names = ", ".join(f"{one.name} (load {one.load:.2f})" for one in others)
        why = f"the first of {len(others) + 1} to confirm, before {names}"
    else:
        why = "the first to connect and confirm, and the only one so far"
    told = facts["told"]
    ended = f", and {told} other connection{'s' if told > 1 else ''} ended" if told else ""
    yield f"{_worker(facts)} gets the job: {why}; GO is sent{ended}"


def _program_started(facts: Facts, before: list[Note]) -> Iterator[str]:
    yield "the program has started"


def _exit(facts: Facts, before: list[Note]) -> Iterator[str]:
    amounts = f"{facts['sent']} bytes in, {facts['received']} bytes out"
    yield f"the program has ended with status {facts['status']}: {amounts}"


def _failed(facts: Facts, before: list[Note]) -> Iterator[str]:
    yield f"this attempt has failed: {facts['reason']}"


_WORDS: dict[str, Callable[[Facts, list[Note]], Iterator[str]]] = {
    "attempt": _attempt,
    "announced": _announced,
    "browsing": _browsing,
    "connected": _connected,
    "offered": _offered,
    "dropped": _dropped,
    "answered": _answered,
    "census": _census,
    "won": _won,
    "started": _program_started,
    "exit": _exit,
    "failed": _failed,
}


def _worker(facts: Facts) -> str:
    return f"worker {facts['hello'].name} at {facts['address']}"


def _state(hello: Hello) -> str:
    return f"load {hello.load:.2f}, speed {hello.speed:.2f}, {hello.running} of {hello.slots} slots busy"
